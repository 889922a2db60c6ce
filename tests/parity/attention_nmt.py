"""Parity of the translator: `tf_models.attention_nmt` and `jax_models.attention_nmt`, weights carried over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from oracle.bridge.mapping import read_gradients, write_weights
from oracle.bridge.nmt_sites import find_nmt_sites
from oracle.spec import Attention
from oracle.spec import AttentionNMT as Spec
from oracle.steps.attention_nmt import build_module, differentiate, name_tensors
from oracle.steps.leaves import nest_leaves
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf
from tf_models import attention_nmt as port_module

BOS, EOS = 1, 2

MECHANISMS = ("luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic")

SPECS = {
    "mechanism": st.sampled_from(MECHANISMS),
    "scaled": st.booleans(),
    "attention_layer": st.sampled_from([None, 5]),
    "cell": st.sampled_from(["lstm", "gru"]),
    "units": st.sampled_from([2, 3]),
    "layers": st.sampled_from([1, 2]),
    "batch": st.sampled_from([1, 3]),
    "source_time": st.sampled_from([1, 4]),
    "seed": st.integers(0, 2**16),
}


def draw_spec(config: Config) -> Spec:
    """The spec of a configuration. No two sizes of a layer are alike."""
    units = config["units"]
    luong = config["mechanism"].startswith("luong")
    attention = Attention(
        config["mechanism"], 2 * units if luong else 5, config["scaled"], config["attention_layer"]
    )
    return Spec(9, 7, 3, config["cell"], units, config["layers"], attention)


def draw_weights(spec: Spec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random float64 leaves, the kernels of variance 1/rows, so that no softmax saturates."""
    weights = {}
    for site in find_nmt_sites(spec):
        for leaf, shape in site.layout.leaves.items():
            spread = 1 if site.path.endswith("embedding") else shape[0] ** -0.5 if len(shape) == 2 else 0.5
            weights[f"{site.path}/{leaf}"] = spread * rng.normal(size=shape)
    return weights


def draw_batch(spec: Spec, rng: np.random.Generator, config: Config) -> dict[str, np.ndarray]:
    """Random ids, padded with 0 past random lengths, of which the first is full."""
    rows, source_time, target_time = config["batch"], config["source_time"], config["target_time"]
    source_length = rng.integers(1, source_time, rows, endpoint=True, dtype=np.int32)
    target_length = rng.integers(1, target_time, rows, endpoint=True, dtype=np.int32)
    if config["full"]:
        source_length[0], target_length[0] = source_time, target_time
    source = rng.integers(1, spec.source_vocab, (rows, source_time), dtype=np.int32)
    target = rng.integers(2, spec.target_vocab, (rows, 1 + target_time), dtype=np.int32)
    target[:, 0] = BOS
    source *= np.arange(source_time) < source_length[:, None]
    target *= np.arange(1 + target_time) < 1 + target_length[:, None]
    return {
        "source": source,
        "source_length": source_length,
        "target": target,
        "target_length": target_length,
    }


def make_port(spec: Spec, weights: dict[str, np.ndarray]) -> port_module.AttentionNMT:
    """A port with the weights. The shortest of batches makes its variables."""
    port = port_module.build(spec, variant="full", dtype=tf.float64)
    one = tf.constant([1])
    port.step(
        {
            "source": tf.constant([[1]]),
            "source_length": one,
            "target": tf.constant([[BOS, EOS]]),
            "target_length": one,
        }
    )
    variables = port.variables_by_name()
    values = write_weights(find_nmt_sites(spec), weights)
    assert variables.keys() == values.keys()
    for name, value in values.items():
        variables[name].assign(value)
    return port


def run_ours(
    spec: Spec, weights: dict[str, np.ndarray], batch: dict[str, np.ndarray]
) -> dict[str, np.ndarray | None]:
    """What the port's step gives, by our side."""
    ids = {name: jnp.asarray(array) for name, array in batch.items()}
    with jax.disable_jit():  # Compiling takes longer than so few steps.
        return name_tensors(spec, differentiate(spec, path="plain")(nest_leaves(weights), ids))


@parity(
    "tf_models.attention_nmt",
    configurations=st.fixed_dictionaries(
        {**SPECS, "target_time": st.sampled_from([1, 3]), "full": st.booleans()}
    ),
)
def attention_nmt_parity(config: Config) -> Pair:
    """One step of the translator: outputs, states, alignments, loss and every gradient."""
    rng, spec = np.random.default_rng(config["seed"]), draw_spec(config)
    weights, batch = draw_weights(spec, rng), draw_batch(spec, rng, config)
    step = make_port(spec, weights).step({name: tf.constant(array) for name, array in batch.items()})
    step = tf.nest.map_structure(lambda tensor: None if tensor is None else tensor.numpy(), step)
    gradients = {**step.gradients, **read_gradients(find_nmt_sites(spec), step.variable_gradients)}
    by_tf = {**step.forward, "loss": step.loss}
    by_tf |= {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    return Pair(tf=by_tf, jax=run_ours(spec, weights, batch))


def _has_no_ties(config: Config) -> bool:
    """Whether the logits depend on the step.

    Without an attention layer the attention is the context, which with one memory step is always the same:
    then every order of the same tokens is as likely, and rounding chooses among them.
    """
    return config["attention_layer"] is not None or config["source_time"] > 1


@parity(
    "tf_models.attention_nmt: decoding",
    configurations=st.fixed_dictionaries(
        {
            **SPECS,
            "beam_width": st.sampled_from([1, 3]),
            "length_penalty_weight": st.sampled_from([0.0, 0.7]),
            "maximum_iterations": st.sampled_from([1, 6]),
        }
    ).filter(_has_no_ties),
)
def decoding_parity(config: Config) -> Pair:
    """Greedy decoding and beam search give the same tokens and lengths."""
    rng, spec = np.random.default_rng(config["seed"]), draw_spec(config)
    weights = draw_weights(spec, rng)
    batch = draw_batch(spec, rng, {**config, "target_time": 1, "full": True})
    steps, beams = config["maximum_iterations"], config["beam_width"]
    tokens = {"start_token": BOS, "end_token": EOS, "maximum_iterations": steps}
    beam_options = {"beam_width": beams, "length_penalty_weight": config["length_penalty_weight"]}

    port, source = make_port(spec, weights), (batch["source"], batch["source_length"])
    greedy_tf, greedy_lengths_tf = port.greedy_decode(*map(tf.constant, source), **tokens)
    beam_tf, beam_lengths_tf = port.beam_search_decode(*map(tf.constant, source), **tokens, **beam_options)

    module, variables = build_module(spec), {"params": jax.tree.map(jnp.asarray, nest_leaves(weights))}
    source = map(jnp.asarray, source)
    source = tuple(source)
    greedy, greedy_lengths = module.apply(variables, *source, **tokens, method="greedy_decode")
    beam, beam_lengths = module.apply(
        variables, *source, **tokens, **beam_options, method="beam_search_decode"
    )
    # TensorFlow's outputs end with the longest row.
    return Pair(
        tf={
            "greedy": greedy_tf.numpy(),
            "greedy/lengths": greedy_lengths_tf.numpy(),
            "beam": beam_tf.numpy(),
            "beam/lengths": beam_lengths_tf.numpy(),
        },
        jax={
            "greedy": np.asarray(greedy)[:, : greedy_tf.shape[1]],
            "greedy/lengths": np.asarray(greedy_lengths),
            "beam": np.asarray(beam)[:, : beam_tf.shape[1]],
            "beam/lengths": np.asarray(beam_lengths),
        },
    )
