"""The translator with attention, with knobs: what `jax_models.attention_nmt` computes if all are neutral.

The leaves are those of `jax_models.attention_nmt`, by path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_models.counterfactual.blend import mix, mix_rows, pass_gradient, round_tensor
from jax_models.counterfactual.cells import CellWeights, LSTMParts, State, share_leaves, turn_weights
from jax_models.counterfactual.decoding import Decoded, decode
from jax_models.counterfactual.loop import run_cell
from jax_models.counterfactual.losses import weigh_tokens
from jax_models.counterfactual.taps import Taps


@dataclass(frozen=True)
class Form:
    """What of a translator is fixed when it is compiled, besides the shapes.

    Args:
        cell: the kind of every cell.
        layers: layers of the encoder and of the decoder.
        mechanism: the decoder's attention mechanism; the leaves say whether it is scaled.
    """

    cell: Literal["lstm", "gru"]
    layers: int
    mechanism: Literal["luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic"]


class Translation(NamedTuple):
    """What the forward pass gives, named as in `jax_models.attention_nmt.Translation`."""

    encoded: Float[Array, "batch src_time memory"]
    encoder_states: tuple[Any, ...]
    decoded: Decoded


class Perturbations(NamedTuple):
    """Zeros whose adjoints are those of the vectors of the tokens and of the encoder's final states."""

    source: Float[Array, "batch src_time embedding"]
    target: Float[Array, "batch tgt_time embedding"]
    states: tuple[State, ...]


def translate(
    form: Form,
    weights: Mapping[str, Array],
    batch: Mapping[str, Array],
    knobs: Any,
    perturbations: Perturbations,
    taps: Taps,
) -> tuple[Float[Array, ""], Translation]:
    """The loss, and what the forward pass gives.

    Args:
        form: what is fixed.
        weights: leaves by path.
        batch: tokens, `source` [batch, src_time] and `target` [batch, 1 + tgt_time].
        knobs: `Knobs` of `oracle.knobs`, which hold the lengths.
        perturbations: zeros.
        taps: what collects each step's values.
    """
    passes, rounded = knobs.passes, knobs.rounded
    weights = {path: round_tensor(rounded[path], leaf) for path, leaf in weights.items()}
    cells = {
        site: turn_weights(share_leaves(weights, knobs.share, site), cell)
        for site, cell in knobs.cells.items()
    }
    vectors = pass_gradient(passes["embedded_source"], weights["encoder/embedding/embedding"])[
        batch["source"]
    ]
    embedded = taps("step/encoder/embedding/output", vectors + perturbations.source)
    embedded = round_tensor(rounded["source"], pass_gradient(passes["read_source"], embedded))
    layers, states = _encode(form, cells, knobs, embedded, taps)

    joined = tuple(_join_directions(ahead, behind) for ahead, behind in states)
    handed_over = [
        tuple(part + zero for part, zero in zip(state, zeros, strict=True))
        for state, zeros in zip(joined, perturbations.states, strict=True)
    ]
    starts = _hand_over(knobs, handed_over)

    read = batch["target"][:, knobs.target_in]
    vectors = pass_gradient(passes["embedded_target"], weights["decoder/embedding/embedding"])[read]
    embedded = taps("step/decoder/embedding/output", vectors + perturbations.target)
    embedded = round_tensor(rounded["target"], pass_gradient(passes["read_target"], embedded))
    decoded = decode(form.mechanism, weights, cells, knobs, embedded, layers, starts, taps)
    decoded = decoded._replace(states=tuple(_name_state(state) for state in decoded.states))

    loss = weigh_tokens(knobs, decoded.logits, batch["target"][:, knobs.target_out])
    encoded = mix(knobs.encoder_layers, layers)
    return loss, Translation(encoded, tuple(_name_state(state) for state in joined), decoded)


def differentiate(
    form: Form, weights: Mapping[str, Array], batch: Mapping[str, Array], knobs: Any
) -> dict[str, Any]:
    """The forward pass, the loss and its gradients.

    Returns:
        `translation` (a `Translation`), `loss`, `d_weights` by path, and `d_perturbations`: the adjoints
        `embedded_source`, `embedded_target`, and of each layer's handed over state, `encoder_state_0_h`.
    """

    def loss_of(weights: Any, perturbations: Perturbations) -> tuple[Any, Translation]:
        return translate(form, weights, batch, knobs, perturbations, Taps(None))

    gradients = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    zeros = _make_zeros(form, weights, batch, knobs)
    (loss, translation), (d_weights, adjoints) = gradients(weights, zeros)
    d_perturbations = {"embedded_source": adjoints.source, "embedded_target": adjoints.target}
    for layer, state in enumerate(adjoints.states):
        parts = zip("ch" if form.cell == "lstm" else "h", state, strict=True)
        d_perturbations |= {f"encoder_state_{layer}_{part}": adjoint for part, adjoint in parts}
    return {
        "translation": translation,
        "loss": loss,
        "d_weights": d_weights,
        "d_perturbations": d_perturbations,
    }


def watch(
    form: Form,
    weights: Mapping[str, Array],
    batch: Mapping[str, Array],
    knobs: Any,
    perturbations: Mapping[str, Array],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss and every tapped value, for perturbations of zero by name. See `Taps`."""
    taps = Taps(perturbations)
    loss, _ = translate(form, weights, batch, knobs, _make_zeros(form, weights, batch, knobs), taps)
    return loss, taps.values


def _encode(
    form: Form, cells: Mapping[str, CellWeights], knobs: Any, embedded: Array, taps: Taps
) -> tuple[list[Array], list[tuple[State, State]]]:
    """Each layer's outputs, and each layer's final states, forward and backward."""
    layers, states = [], []
    inputs = embedded
    for i in range(form.layers):
        outputs, finals = [], []
        for way in ("forward", "backward"):
            site = f"encoder/layers_{i}/{way}/cell"
            units = cells[site].recurrent.shape[0]
            nothing = jnp.zeros((len(embedded), units), embedded.dtype)
            start = (nothing,) * (2 if form.cell == "lstm" else 1)
            run = run_cell(site, cells[site], knobs.cells[site], inputs, start, taps=taps)
            outputs.append(run.outputs)
            finals.append(run.state)
        layers.append(jnp.concatenate(outputs, axis=-1))
        states.append(tuple(finals))
        inputs = round_tensor(knobs.rounded["layers"], pass_gradient(knobs.passes["layers"], layers[-1]))
    return layers, states


def _hand_over(knobs: Any, states: list[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
    """The decoder's first states, by way of the slots: layer, part, direction."""
    passed = [
        tuple(
            round_tensor(knobs.rounded["handoff"], pass_gradient(knobs.passes["handoff"], part))
            for part in state
        )
        for state in states
    ]
    slots = [half for state in passed for part in state for half in jnp.split(part, 2, axis=-1)]
    mixed = iter(mix_rows(knobs.handoff, slots))
    return [tuple(jnp.concatenate([next(mixed), next(mixed)], axis=-1) for _ in state) for state in states]


def _join_directions(ahead: tuple[Array, ...], behind: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(jnp.concatenate(parts, axis=-1) for parts in zip(ahead, behind, strict=True))


def _name_state(state: tuple[Array, ...]) -> Any:
    return LSTMParts(*state) if len(state) == 2 else state[0]


def _make_zeros(
    form: Form, weights: Mapping[str, Array], batch: Mapping[str, Array], knobs: Any
) -> Perturbations:
    table = weights["encoder/embedding/embedding"]
    rows, time = batch["source"].shape
    units = weights["decoder/cells_0/recurrent_kernel"].shape[0]
    nothing = jnp.zeros((rows, units), table.dtype)
    return Perturbations(
        jnp.zeros((rows, time, table.shape[1]), table.dtype),
        jnp.zeros((rows, len(knobs.target_in), table.shape[1]), table.dtype),
        ((nothing,) * (2 if form.cell == "lstm" else 1),) * form.layers,
    )
