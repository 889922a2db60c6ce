"""The encoder-decoder of two LSTMs, with knobs: what `jax_models.explicit_state` computes if all are neutral.

The leaves are `encoder/cell/*`, `decoder/cell/*` and, with a projection, `projection/*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_models.counterfactual.blend import mix_rows, pass_gradient, round_tensor
from jax_models.counterfactual.cells import LSTMParts, share_leaves, turn_weights
from jax_models.counterfactual.loop import run_cell
from jax_models.counterfactual.losses import weigh_features
from jax_models.counterfactual.taps import Taps


class Prediction(NamedTuple):
    """What the forward pass gives, named as in `jax_models.forward.Forward`."""

    encoded: Float[Array, "batch src_time units"]
    encoder_state: LSTMParts
    decoded: Float[Array, "batch tgt_time units"]
    decoder_state: LSTMParts
    prediction: Float[Array, "batch tgt_time target_features"]


def predict(
    weights: Mapping[str, Array], batch: Mapping[str, Array], knobs: Any, handoff: LSTMParts, taps: Taps
) -> tuple[Float[Array, ""], Prediction]:
    """The loss, and what the forward pass gives.

    Args:
        weights: leaves by path.
        batch: `source` [batch, src_time, source_features], `target` [batch, 1 + tgt_time, target_features],
            and with a given state `initial_state/c` and `initial_state/h` [batch, units].
        knobs: `Knobs` of `oracle.knobs`, which hold the lengths.
        handoff: a perturbation of the encoder's final state, zeros.
        taps: what collects each step's values.
    """
    source, target, rounded = batch["source"], batch["target"], knobs.rounded
    weights = {path: round_tensor(rounded[path], leaf) for path, leaf in weights.items()}
    cells = {
        site: turn_weights(share_leaves(weights, knobs.share, site), cell)
        for site, cell in knobs.cells.items()
    }
    units = weights["encoder/cell/recurrent_kernel"].shape[0]
    nothing = jnp.zeros((len(source), units), source.dtype)
    start = tuple(batch.get(f"initial_state/{part}", nothing) for part in "ch")
    read = round_tensor(rounded["source"], pass_gradient(knobs.passes["read_source"], source))
    encoded, state = run_cell(
        "encoder/cell", cells["encoder/cell"], knobs.cells["encoder/cell"], read, start, taps=taps
    )
    encoder_state = LSTMParts(*state)

    handed_over = [part + zero for part, zero in zip(encoder_state, handoff, strict=True)]
    handed_over = [pass_gradient(knobs.passes["handoff"], part) for part in handed_over]
    handed_over = [round_tensor(rounded["handoff"], part) for part in handed_over]
    decoded, state = run_cell(
        "decoder/cell",
        cells["decoder/cell"],
        knobs.cells["decoder/cell"],
        round_tensor(
            rounded["target"], pass_gradient(knobs.passes["read_target"], target)[:, knobs.target_in]
        ),
        tuple(mix_rows(knobs.handoff, handed_over)),
        taps=taps,
        limit=jnp.max(knobs.steps_lengths),
    )
    prediction = decoded
    if "projection/kernel" in weights:
        prediction = taps("step/projection/input", round_tensor(rounded["decoded"], decoded))
        prediction = prediction @ weights["projection/kernel"] + weights["projection/bias"]
        prediction = taps("step/projection/output", prediction)
    prediction = round_tensor(rounded["prediction"], prediction)
    labels = pass_gradient(knobs.passes["labels"], target)[:, knobs.target_out]
    loss = weigh_features(knobs, prediction, labels)
    return loss, Prediction(encoded, encoder_state, decoded, LSTMParts(*state), prediction)


def differentiate(weights: Mapping[str, Array], batch: Mapping[str, Array], knobs: Any) -> dict[str, Any]:
    """The forward pass, the loss and its gradients.

    Returns:
        `forward` (a `Prediction`), `loss`, `d_weights` by path, `d_batch` by name, and `d_handoff`: the
        adjoint of the encoder's final state, `handoff_c` and `handoff_h`.
    """
    units = weights["encoder/cell/recurrent_kernel"].shape[0]
    nothing = jnp.zeros((len(batch["source"]), units), batch["source"].dtype)

    def loss_of(weights: Any, batch: Any, handoff: LSTMParts) -> tuple[Any, Prediction]:
        return predict(weights, batch, knobs, handoff, Taps(None))

    gradients = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
    (loss, forward), (d_weights, d_batch, d_handoff) = gradients(weights, batch, LSTMParts(nothing, nothing))
    return {
        "forward": forward,
        "loss": loss,
        "d_weights": d_weights,
        "d_batch": d_batch,
        "d_handoff": {"handoff_c": d_handoff.c, "handoff_h": d_handoff.h},
    }


def watch(
    weights: Mapping[str, Array], batch: Mapping[str, Array], knobs: Any, perturbations: Mapping[str, Array]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss and every tapped value, for perturbations of zero by name. See `Taps`."""
    units = weights["encoder/cell/recurrent_kernel"].shape[0]
    nothing = jnp.zeros((len(batch["source"]), units), batch["source"].dtype)
    taps = Taps(perturbations)
    loss, _ = predict(weights, batch, knobs, LSTMParts(nothing, nothing), taps)
    return loss, taps.values
