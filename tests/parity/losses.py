"""Parity of `jax_models.losses`."""

from __future__ import annotations

from typing import Any

import numpy as np
import optax
from hypothesis import strategies as st

from jax_models.losses import SequenceLoss, mean_squared_error, sequence_loss
from tests.parity.decoding import hold_together
from tests.parity.harness import Config, Pair, parity
from tests.parity.tensorflow_side import tf, tfa

REDUCTIONS = (
    (True, True, False, False),
    (True, False, False, False),
    (False, True, False, False),
    (False, False, True, True),
    (False, False, True, False),
    (False, False, False, True),
    (False, False, False, False),
    None,
)
"""average_across_timesteps, average_across_batch, sum_over_timesteps, sum_over_batch; None: the defaults."""

LOSSES = {
    "batch": st.sampled_from([1, 3]),
    "time": st.sampled_from([1, 4]),
    "vocab": st.sampled_from([1, 5]),
    "reduction": st.sampled_from(REDUCTIONS),
    "targets": st.sampled_from(["ids", "distributions", "unnormalized"]),
    "weights": st.sampled_from(["random", "mask", "zero", "one row zero", "negative"]),
    "loss_function": st.booleans(),
    "seed": st.integers(0, 2**16),
}


def _tf_loss(labels: Any, logits: Any) -> Any:
    return 2 * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _jax_loss(labels: Any, logits: Any) -> Any:
    return 2 * optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def draw_loss(config: Config) -> tuple[dict[str, np.ndarray], dict[str, bool]]:
    """The arrays and the reduction's options."""
    rng = np.random.default_rng(config["seed"])
    shape = (config["batch"], config["time"])
    weights = rng.uniform(0.5, 2, shape)
    if config["weights"] == "mask":
        weights = (np.arange(shape[1]) < rng.integers(0, shape[1] + 1, shape[0])[:, None]).astype(float)
    elif config["weights"] == "zero":
        weights *= 0
    elif config["weights"] == "one row zero":
        weights[0] = 0
    elif config["weights"] == "negative":
        weights = -weights
    targets = rng.integers(0, config["vocab"], shape).astype(np.int32)
    if config["targets"] != "ids" and not config["loss_function"]:
        targets = rng.uniform(0.1, 1, (*shape, config["vocab"]))
        targets /= targets.sum(axis=-1, keepdims=True)
        if config["targets"] == "unnormalized":
            targets *= rng.uniform(0, 2, (*shape, 1))
    given = {
        "logits": 3 * rng.normal(size=(*shape, config["vocab"])),
        "targets": targets,
        "weights": weights,
    }
    names = ("average_across_timesteps", "average_across_batch", "sum_over_timesteps", "sum_over_batch")
    return given, dict(zip(names, config["reduction"] or (), strict=False))


def with_weights(loss: Any, x: Any) -> dict[str, Any]:
    """The results. The weights are one, lest their gradient be nothing but the rounding of c - c: an
    average over a single step does not depend on its weight.
    """
    return {"loss of sequence": loss, "weights": 1.0 * x["weights"]}


@parity("tfa.seq2seq.sequence_loss", configurations=st.fixed_dictionaries(LOSSES))
def sequence_loss_parity(config: Config) -> Pair:
    given, options = draw_loss(config)
    in_tf = {"softmax_loss_function": _tf_loss} if config["loss_function"] else {}
    in_jax = {"softmax_loss_function": _jax_loss} if config["loss_function"] else {}
    return hold_together(
        config["seed"],
        given=given,
        model=None,
        run_tf=lambda x: with_weights(tfa.seq2seq.sequence_loss(**x, **options, **in_tf), x),
        run_jax=lambda _, x: with_weights(sequence_loss(**x, **options, **in_jax), x),
    )


@parity("tfa.seq2seq.SequenceLoss", configurations=st.fixed_dictionaries(LOSSES))
def sequence_loss_class(config: Config) -> Pair:
    given, options = draw_loss(config)
    in_tf = {"softmax_loss_function": _tf_loss} if config["loss_function"] else {}
    in_jax = {"softmax_loss_function": _jax_loss} if config["loss_function"] else {}

    def call(loss: Any, x: Any) -> dict[str, Any]:
        return with_weights(loss(x["targets"], x["logits"], x["weights"]), x)

    return hold_together(
        config["seed"],
        given=given,
        model=None,
        run_tf=lambda x: call(tfa.seq2seq.SequenceLoss(**options, **in_tf), x),
        run_jax=lambda _, x: call(SequenceLoss(**options, **in_jax), x),
    )


@parity(
    "tf.keras.losses.MeanSquaredError",
    configurations=st.fixed_dictionaries(
        {"shape": st.sampled_from([(1,), (3, 2), (2, 4, 1)]), "seed": st.integers(0, 2**16)}
    ),
)
def mean_squared_error_parity(config: Config) -> Pair:
    rng = np.random.default_rng(config["seed"])
    given = {name: rng.normal(size=config["shape"]) for name in ("outputs", "targets")}
    return hold_together(
        config["seed"],
        given=given,
        model=None,
        run_tf=lambda x: {"error": tf.keras.losses.MeanSquaredError()(x["targets"], x["outputs"])},
        run_jax=lambda _, x: {"error": mean_squared_error(x["outputs"], x["targets"])},
    )
