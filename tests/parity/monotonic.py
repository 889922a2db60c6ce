"""Parity of `jax_models.monotonic`: the functions and the two mechanisms.

TensorFlow refuses "recursive" mode in float64, because it makes its ones and zeros in the default
dtype. So it is compared in float32 as it is, against measured noise, and in float64 with nothing changed
but that default.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from jax_models.monotonic import (
    BahdanauMonotonicAttention,
    LuongMonotonicAttention,
    monotonic_attention,
    safe_cumprod,
)
from oracle.bridge.attention_layouts import bahdanau_attention, luong_attention
from oracle.bridge.layout import Layout
from tests.parity.attention import SIZES, Setting, mechanism_pair
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

MODES = st.sampled_from(["parallel", "recursive", "recursive in float64", "hard"])

PROBABILITIES = st.sampled_from(["inside", "with zeros and ones", "zeros and ones", "zeros", "ones"])


def probabilities(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1], representable in float32; see `PROBABILITIES`."""
    p = rng.random(shape).astype(np.float32).astype(np.float64)
    extreme = rng.integers(0, 2, shape).astype(np.float64)
    if kind == "with zeros and ones":
        return np.where(rng.random(shape) < 0.5, p, extreme)
    if kind == "inside":
        return p
    return {"zeros and ones": extreme, "zeros": np.zeros(shape), "ones": np.ones(shape)}[kind]


@contextlib.contextmanager
def float64_defaults(mode: str) -> Iterator[None]:
    """For "recursive in float64": `tf.ones` and `tf.zeros` are float64 unless told otherwise."""
    if mode != "recursive in float64":
        yield
        return
    ones, zeros = tf.ones, tf.zeros
    with (
        mock.patch.object(tf, "ones", lambda shape, dtype=tf.float64: ones(shape, dtype)),
        mock.patch.object(tf, "zeros", lambda shape, dtype=tf.float64: zeros(shape, dtype)),
    ):
        yield


@parity(
    "tfa.seq2seq.safe_cumprod",
    configurations=st.fixed_dictionaries(
        {
            "shape": st.sampled_from([(1,), (4,), (3, 4), (2, 3, 4)]),
            "axis": st.sampled_from([0, -1]),
            "exclusive": st.booleans(),
            "reverse": st.booleans(),
            "x": PROBABILITIES,
            "beyond": st.booleans(),
            "seed": st.integers(0, 2**16),
        }
    ),
)
def safe_cumprod_parity(config: Config) -> Pair:
    """Zeros, ones, and numbers outside [0, 1] among the factors."""
    rng = np.random.default_rng(config["seed"])
    values = probabilities(rng, config["x"], config["shape"])
    if config["beyond"]:
        values = values * rng.choice([-1, 1, 1.5], config["shape"])
    # Positive, so that no sum of smallest normal numbers cancels to a subnormal one, which XLA takes for 0.
    weights = rng.uniform(1, 2, config["shape"])
    options = {name: config[name] for name in ("axis", "exclusive", "reverse")}
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = tfa.seq2seq.safe_cumprod(x, **options)
        loss = tf.reduce_sum(output * weights)

    def run(x):
        output = safe_cumprod(x, **options)
        return jnp.sum(output * weights), output

    (ours, ours_output), gradient = jax.value_and_grad(run, has_aux=True)(jnp.asarray(values))
    return Pair(
        tf={"output": output.numpy(), "loss": loss.numpy(), "gradient": tape.gradient(loss, x).numpy()},
        jax={"output": ours_output, "loss": ours, "gradient": gradient},
    )


@parity(
    "tfa.seq2seq.monotonic_attention",
    configurations=st.fixed_dictionaries(
        {
            "batch": st.sampled_from([1, 3]),
            "memory": st.sampled_from([1, 4, 7]),
            "mode": MODES,
            "p": PROBABILITIES,
            "previous": st.sampled_from(["one-hot", "distribution"]),
            "seed": st.integers(0, 2**16),
        }
    ),
)
def monotonic_attention_parity(config: Config) -> Pair:
    """Every mode, with probabilities of 0 and 1 everywhere, some places, and nowhere."""
    rng = np.random.default_rng(config["seed"])
    shape, mode = (config["batch"], config["memory"]), config["mode"]
    dtype = np.float32 if mode == "recursive" else np.float64
    p = probabilities(rng, config["p"], shape)
    previous = np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    if config["previous"] == "distribution":
        previous = rng.random(shape).astype(np.float32).astype(np.float64)
    weights = rng.normal(size=shape).astype(np.float32)
    p_tf, previous_tf = tf.constant(p, dtype), tf.constant(previous, dtype)
    with tf.GradientTape() as tape, float64_defaults(mode):
        tape.watch([p_tf, previous_tf])
        output = tfa.seq2seq.monotonic_attention(p_tf, previous_tf, mode.split()[0])
        loss = tf.reduce_sum(output * weights.astype(dtype))
        of_p, of_previous = tape.gradient(loss, [p_tf, previous_tf])
    by_tf = {"output": output, "loss": loss, "gradient/p": of_p, "gradient/previous": of_previous}

    def by_jax(dtype: Any) -> dict[str, np.ndarray]:
        def run(p, previous):
            output = monotonic_attention(p, previous, mode.split()[0])
            return jnp.sum(output * weights.astype(dtype)), output

        (loss, output), gradients = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)(
            jnp.asarray(p, dtype), jnp.asarray(previous, dtype)
        )
        named = {
            "output": output,
            "loss": loss,
            "gradient/p": gradients[0],
            "gradient/previous": gradients[1],
        }
        return {name: np.asarray(array) for name, array in named.items()}

    exact = by_jax(np.float64)
    noise = {}
    if dtype == np.float32:
        noise = {name: rough - exact[name] for name, rough in by_jax(np.float32).items()}
    return Pair(tf={name: tensor.numpy() for name, tensor in by_tf.items()}, jax=exact, noise=noise)


MONOTONIC = {
    "mode": MODES,
    "sigmoid_noise": st.sampled_from([0.0, 0.7]),
    "initial_state": st.booleans(),
}


def monotonic_pair(config: Config, layout: Layout, tf_class: Any, our_class: Any, options: Any) -> Pair:
    """`mechanism_pair` of a monotonic mechanism, TensorFlow's random numbers replaced by ours."""
    mode, noisy = config["mode"], config["sigmoid_noise"] > 0
    dtype = np.float32 if mode == "recursive" else np.float64
    width = config["units"] if tf_class is tfa.seq2seq.LuongMonotonicAttention else 0
    setting = Setting(config, dtype=dtype, query_width=width)
    options = {**options, "mode": mode.split()[0], "sigmoid_noise": config["sigmoid_noise"]}

    # The mechanism's first call, which builds it, draws too.
    draws = iter([np.zeros_like(setting.noise[0]), *setting.noise])

    def draw(shape, *, dtype, seed):
        noise = next(draws)
        assert (tuple(shape), seed) == (noise.shape, None)
        return tf.constant(noise, dtype)

    with float64_defaults(mode), mock.patch.object(tf.random, "normal", draw):
        return mechanism_pair(
            setting,
            layout,
            lambda **given: tf_class(config["units"], dtype=dtype, **options, **given),
            our_class(config["units"], **options),
            one_hot=True,
            noisy=noisy,
            initial_state=config["initial_state"],
        )


@parity(
    "tfa.seq2seq.LuongMonotonicAttention",
    configurations=st.fixed_dictionaries({**SIZES, **MONOTONIC, "scale": st.booleans()}),
)
def luong_monotonic_parity(config: Config) -> Pair:
    return monotonic_pair(
        config,
        luong_attention(config["depth"], config["units"], scale=config["scale"], monotonic=True),
        tfa.seq2seq.LuongMonotonicAttention,
        LuongMonotonicAttention,
        {"scale": config["scale"]},
    )


@parity(
    "tfa.seq2seq.BahdanauMonotonicAttention",
    configurations=st.fixed_dictionaries({**SIZES, **MONOTONIC, "normalize": st.booleans()}),
)
def bahdanau_monotonic_parity(config: Config) -> Pair:
    return monotonic_pair(
        config,
        bahdanau_attention(
            config["query"],
            config["depth"],
            config["units"],
            normalize=config["normalize"],
            monotonic=True,
        ),
        tfa.seq2seq.BahdanauMonotonicAttention,
        BahdanauMonotonicAttention,
        {"normalize": config["normalize"]},
    )
