"""Knobs: every seam of an encoder-decoder at which ports go wrong, as a number that can be turned.

`jax_models.counterfactual` computes the model of a spec with every knob as an argument of one compiled
program. With neutral knobs it computes the oracle's numbers; a cause (`oracle.causes`) is a setting of some
of them. NumPy only. Knobs are named tuples, which JAX takes as they are; an array's axes stand behind it.

A float of 0 or 1 blends two formulas exactly, since 1*x + 0*y is x for finite numbers, in the gradient too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from oracle.case import weight_shapes
from oracle.spec import AttentionNMT, EncoderDecoder

CELL_ACTIVATIONS = ("tanh", "relu", "linear", "sigmoid", "softsign")
"""What the activation of a cell can be instead; the first is right."""

LOSS_FORMS: Mapping[str, tuple[str, ...]] = {
    "encoder-decoder": ("squared", "absolute", "huber"),
    "attention-nmt": ("logits", "probabilities"),
}
"""What a loss can be of one element instead; the first is right. `probabilities` takes the softmax for the
logits, and so takes it twice."""


SEAMS: Mapping[str, tuple[str, ...]] = {
    "encoder-decoder": ("handoff", "read_source", "read_target", "labels"),
    "attention-nmt": (
        "handoff",
        "memory",
        "feeding",
        "embedded_source",
        "embedded_target",
        "read_source",
        "read_target",
        "layers",
    ),
}
"""Where the gradient can be held back. `handoff`: from the decoder's first state to the encoder's final one;
`memory`: from the attention to the encoder's outputs; `feeding`: from a step's input to the attention
before it; `embedded_*`: from the vectors of the tokens to the table (the vectors keep theirs); `read_*`: from
the first layer to the vectors of the tokens, or to the features; `labels`: from the loss to the target that
the prediction is held to; `layers`: from one encoder layer to the one below."""

ROUNDINGS = ("", "float32", "bfloat16", "float16")
"""The dtypes to which `Knobs.rounded` casts, by number; 0 is none."""

ROUNDED: Mapping[str, tuple[str, ...]] = {
    "encoder-decoder": ("source", "target", "handoff", "decoded", "prediction"),
    "attention-nmt": ("source", "target", "layers", "memory", "handoff", "decoded", "prediction"),
}
"""What can be cast to another dtype and back, besides every leaf. `source` and `target`: what encoder and
decoder read (vectors of tokens, or features); `layers`: what an encoder layer reads of the one below;
`memory`: what is attended to; `handoff`: the encoder's final state on its way to the decoder; `decoded`: what
the projection or the output layer reads; `prediction`: what the loss does."""


class CellKnobs(NamedTuple):
    """The knobs of one cell and the loop over it.

    Args:
        gates: [gates, gates]; each gate's pre-activation is the sum of those of all, so weighted: row g
            holds what gate g takes from each. An LSTM's gates are i, f, g, o, a GRU's z, r, h.
        forget_bias: [gates] added to an LSTM's gates: the forget bias, of the forget gate (unused by a GRU).
        bias_scale: the bias times this, `forget_bias` not included.
        transposed: 1 for each square block of the recurrent kernel transposed.
        hard_sigmoid: 1 for max(0, min(1, 0.2x + 0.5)) in place of the sigmoid.
        activation: [5] a weight for each of `CELL_ACTIVATIONS`.
        reset_after: of a GRU, 1 for r * (h @ R + b), 0 for (r * h) @ R + b.
        update_exchanged: of a GRU, 1 for (1 - z) * h + z * n in place of z * h + (1 - z) * n.
        lengths: [batch] int32; at steps (of the loop, not of the input) past them a row's state is carried
            on. Of a decoder with attention, past the lengths of its last cell the attention is carried on,
            too: its lengths are those of `impute_finished`.
        zero_past: 1 for outputs of zero past the lengths, 0 for the last one repeated (zero if there was
            none). Of a decoder with attention that is so of each cell's output, and the last cell's
            makes logits and alignments zero.
        order_in: [batch, time] int32; step t reads the input order_in[b, t]. Of a decoder with attention
            only the first cell's counts, and moves the embedded tokens, not the attention beside them.
        order_out: [batch, time] int32; output t is what was computed at step order_out[b, t]. Without
            effect in a decoder with attention.
        start: [parts, parts] the initial state from the one meant, parts (c, h) of an LSTM, (h,) of a GRU;
            row p holds what part p takes from each.
        through_time: [time] what of the gradient passes from step t to the state before it.
        keep: [batch, time, units] by which the outputs are multiplied, in the order of the outputs: a
            dropout's mask. The state is not multiplied.
        rounded: int32; to which of `ROUNDINGS` what is multiplied by the recurrent kernel is cast and back at
            each step, and its adjoint. What else is done with the state is done with all of it.
    """

    gates: Any
    forget_bias: Any
    bias_scale: Any
    transposed: Any
    hard_sigmoid: Any
    activation: Any
    reset_after: Any
    update_exchanged: Any
    lengths: Any
    zero_past: Any
    order_in: Any
    order_out: Any
    start: Any
    through_time: Any
    keep: Any
    rounded: Any


class AttentionKnobs(NamedTuple):
    """The knobs of the attention.

    Args:
        memory_lengths: [batch] int32; memory past them is zero, and its scores are masked.
        scaled: 0 for Luong's scale or Bahdanau's normalisation left out, where the spec has it.
        divisor: the scores are divided by this, before a monotonic mechanism adds its bias.
        previous_query: 1 for the last cell's h before the step as the query, in place of its output.
        feeding: what of the attention is fed to the next step's input.
        output_attention: 1 for the attention as the output, 0 for the cell's output (of one width only).
        memory_layers: [layers] a weight for each encoder layer's outputs as the memory.
        memory_rows: [batch] int32; row b attends to the memory of row memory_rows[b] (and within the
            length memory_lengths[b] all the same).
    """

    memory_lengths: Any
    scaled: Any
    divisor: Any
    previous_query: Any
    feeding: Any
    output_attention: Any
    memory_layers: Any
    memory_rows: Any


class Knobs(NamedTuple):
    """All of them.

    Args:
        cells: by the path of the cell's leaves: `encoder/cell`, `encoder/layers_0/backward/cell`.
        attention: None without attention.
        handoff: [slots, slots]; each part of the decoder's first state is the sum of the encoder's final
            ones, so weighted: row s holds what slot s of the decoder takes from each of the encoder. A
            slot is (layer, part, direction) in this order, the direction last; see `handoff_slots`.
        passes: by seam (`SEAMS`), what of the gradient passes back through it.
        share: by pair `later<-earlier` of cells of one shape (`shared_cells`), 1 for the later one's
            recurrent kernel and bias being the earlier one's (and its kernel where that fits too).
        encoder_layers: [layers] a weight for each encoder layer's outputs as what the encoder is said to
            give; what is attended to is `AttentionKnobs.memory_layers`.
        decoder_layers: [layers] a weight for each decoder layer's output as that of the stack.
        target_in: [tgt_time] int32; step t reads `target[:, target_in[t]]`.
        target_out: [tgt_time] int32; step t is held to `target[:, target_out[t]]`.
        loss_weights: [batch, tgt_time]; the loss is the sum of each step's loss (of features, their mean),
            so weighted.
        loss_form: a weight for each of `LOSS_FORMS`.
        label_smoothing: the part of a label that is spread over all tokens (unused without tokens).
        steps_lengths: [batch] int32 or the target's time throughout: the decoder runs up to the longest of
            them (tfa's loop ends with its longest row); a row's steps past its own length go on.
        rounded: by tensor (`ROUNDED`) or by leaf, int32, to which of `ROUNDINGS` it is cast and back, and so
            is its adjoint; minus that for the tensor alone, as one that was rounded before it was given.
    """

    cells: dict[str, CellKnobs]
    attention: AttentionKnobs | None
    handoff: Any
    passes: dict[str, Any]
    share: dict[str, Any]
    encoder_layers: Any
    decoder_layers: Any
    target_in: Any
    target_out: Any
    loss_weights: Any
    loss_form: Any
    label_smoothing: Any
    steps_lengths: Any
    rounded: dict[str, Any]


def handoff_slots(spec: EncoderDecoder | AttentionNMT) -> tuple[tuple[int, str, str], ...]:
    """The slots of `Knobs.handoff`: (layer, part `c` or `h`, direction `forward` or `backward`)."""
    if isinstance(spec, EncoderDecoder):
        return tuple((0, part, "forward") for part in "ch")
    parts = "ch" if spec.cell == "lstm" else "h"
    directions = ("forward", "backward")
    return tuple((i, part, way) for i in range(spec.layers) for part in parts for way in directions)


def shared_cells(spec: EncoderDecoder | AttentionNMT) -> tuple[str, ...]:
    """The pairs `later<-earlier` of `Knobs.share`, which a port may have made one by mistake."""
    if isinstance(spec, EncoderDecoder):
        return ("decoder/cell<-encoder/cell",)
    layers = [f"encoder/layers_{i}" for i in range(spec.layers)]
    directions = [f"{layer}/backward/cell<-{layer}/forward/cell" for layer in layers]
    return (*directions, *(f"decoder/cells_{i}<-decoder/cells_0" for i in range(1, spec.layers)))


def neutral_knobs(spec: EncoderDecoder | AttentionNMT, batch: Mapping[str, np.ndarray]) -> Knobs:
    """The knobs with which `jax_models.counterfactual` computes what the spec says.

    Floats are float64, whole numbers int32; the arrays belong to the caller.

    Args:
        spec: the model.
        batch: as `oracle.batch.batch_tensors` says.
    """
    rows, time = batch["source"].shape[:2]
    steps = batch["target"].shape[1] - 1
    if isinstance(spec, EncoderDecoder):
        source, target = _full(rows, time), _full(rows, steps)
        if spec.lengths:
            source, target = batch["source_length"].astype(np.int32), batch["target_length"].astype(np.int32)
        cells = {
            "encoder/cell": _neutral_cell("lstm", spec.encoder.units, source, time, spec.encoder.forget_bias),
            "decoder/cell": _neutral_cell(
                "lstm", spec.decoder.units, target, steps, spec.decoder.forget_bias
            ),
        }
        attention, decoder_layers, steps_lengths = None, 1, _full(rows, steps)
        loss_weights, kind = np.full((rows, steps), 1 / (rows * steps)), "encoder-decoder"
    else:
        source, steps_lengths = (batch[f"{name}_length"].astype(np.int32) for name in ("source", "target"))
        cells = {}
        for i in range(spec.layers):
            for way in ("forward", "backward"):
                cell = _neutral_cell(spec.cell, spec.units, source, time)
                if way == "backward":
                    cell = cell._replace(order_in=_reversed(source, time), order_out=_reversed(source, time))
                cells[f"encoder/layers_{i}/{way}/cell"] = cell
        for i in range(spec.layers):
            cells[f"decoder/cells_{i}"] = _neutral_cell(spec.cell, 2 * spec.units, _full(rows, steps), steps)
        attention, decoder_layers = _neutral_attention(spec.layers, source), spec.layers
        loss_weights, kind = _weigh_tokens(spec, steps_lengths, steps), "attention-nmt"
    passes = dict.fromkeys(SEAMS[kind], np.float64(1))
    if isinstance(spec, EncoderDecoder) and spec.handoff == "stopped":
        passes["handoff"] = np.float64(0)
    return Knobs(
        cells=cells,
        attention=attention,
        handoff=_neutral_handoff(spec),
        passes=passes,
        share=dict.fromkeys(shared_cells(spec), np.float64(0)),
        encoder_layers=_one_of(decoder_layers, -1),
        decoder_layers=_one_of(decoder_layers, -1),
        target_in=np.arange(steps, dtype=np.int32),
        target_out=np.arange(1, steps + 1, dtype=np.int32),
        loss_weights=loss_weights,
        loss_form=_one_of(len(LOSS_FORMS[kind]), 0),
        label_smoothing=np.float64(0),
        steps_lengths=steps_lengths,
        rounded=dict.fromkeys((*ROUNDED[kind], *weight_shapes(spec)), np.int32(0)),
    )


def _neutral_cell(
    kind: str, units: int, lengths: np.ndarray, time: int, forget_bias: float = 0.0
) -> CellKnobs:
    gates, parts = {"lstm": (4, 2), "gru": (3, 1)}[kind]
    rows = len(lengths)
    order = np.tile(np.arange(time, dtype=np.int32), (rows, 1))
    return CellKnobs(
        gates=np.eye(gates),
        forget_bias=forget_bias * np.eye(gates)[1],
        bias_scale=np.float64(1),
        transposed=np.float64(0),
        hard_sigmoid=np.float64(0),
        activation=_one_of(len(CELL_ACTIVATIONS), 0),
        reset_after=np.float64(1),
        update_exchanged=np.float64(0),
        lengths=lengths.copy(),
        zero_past=np.float64(1),
        order_in=order,
        order_out=order.copy(),
        start=np.eye(parts),
        through_time=np.ones(time),
        keep=np.ones((rows, time, units)),
        rounded=np.int32(0),
    )


def _neutral_attention(layers: int, source_length: np.ndarray) -> AttentionKnobs:
    return AttentionKnobs(
        memory_lengths=source_length.copy(),
        scaled=np.float64(1),
        divisor=np.float64(1),
        previous_query=np.float64(0),
        feeding=np.float64(1),
        output_attention=np.float64(1),
        memory_layers=_one_of(layers, -1),
        memory_rows=np.arange(len(source_length), dtype=np.int32),
    )


def _neutral_handoff(spec: EncoderDecoder | AttentionNMT) -> np.ndarray:
    same = np.eye(len(handoff_slots(spec)))
    if isinstance(spec, AttentionNMT):
        return same
    return {"zeros": np.zeros_like(same), "exchanged": same[::-1].copy()}.get(spec.handoff, same)


def _weigh_tokens(spec: AttentionNMT, target_length: np.ndarray, steps: int) -> np.ndarray:
    """The weight of each token in the loss; 0 of padding, and at a step that no row has."""
    counted = (np.arange(steps) < target_length[:, None]).astype(np.float64)
    if spec.loss == "tokens":
        return counted / counted.sum()
    if spec.loss == "steps":
        return counted / np.maximum(counted.sum(axis=0), 1)
    return counted / len(counted)


def _reversed(lengths: np.ndarray, time: int) -> np.ndarray:
    """Each row's first `lengths` steps the other way round; its own inverse."""
    steps = np.arange(time)
    return np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps).astype(np.int32)


def _full(rows: int, time: int) -> np.ndarray:
    return np.full(rows, time, np.int32)


def _one_of(count: int, index: int) -> np.ndarray:
    weights = np.zeros(count)
    weights[index] = 1
    return weights
