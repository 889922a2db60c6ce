"""Knobs: every seam of an encoder-decoder at which ports go wrong, as a number that can be turned.

`jax_models.counterfactual` computes the model of a spec with every knob as an argument of one compiled
program. With neutral knobs it computes the oracle's numbers; a cause (`oracle.causes`) is a setting of some
of them. NumPy only. Knobs are named tuples, which JAX takes as they are; an array's axes stand behind it.

A float of 0 or 1 blends two formulas exactly, since 1*x + 0*y is x for finite numbers, in the gradient too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from oracle.spec import AttentionNMT, EncoderDecoder

CELL_ACTIVATIONS = ("tanh", "relu", "linear", "sigmoid", "softsign")
"""What the activation of a cell can be instead; the first is right."""

LOSS_FORMS: Mapping[str, tuple[str, ...]] = {
    "encoder-decoder": ("squared", "absolute", "huber"),
    "attention-nmt": ("logits", "probabilities"),
}
"""What a loss can be of one element instead; the first is right. `probabilities` takes the softmax for the
logits, and so takes it twice."""


class CellKnobs(NamedTuple):
    """The knobs of one cell and the loop over it.

    Args:
        gates: [gates, gates]; each gate's pre-activation is the sum of those of all, so weighted.
        forget_bias: added to an LSTM's forget gate (unused by a GRU).
        bias_scale: the bias times this.
        transposed: 1 for each square block of the recurrent kernel transposed.
        hard_sigmoid: 1 for max(0, min(1, 0.2x + 0.5)) in place of the sigmoid.
        activation: [5] a weight for each of `CELL_ACTIVATIONS`.
        reset_after: of a GRU, 1 for r * (h @ R + b), 0 for (r * h) @ R + b.
        update_exchanged: of a GRU, 1 for (1 - z) * h + z * n in place of z * h + (1 - z) * n.
        lengths: [batch] int32; past them a row's state is carried on.
        zero_past: 1 for outputs of zero past the lengths, 0 for the last one repeated.
        order_in: [batch, time] int32; step t reads the input order_in[b, t].
        order_out: [batch, time] int32; output t is what was computed at order_out[b, t].
        start: [parts, parts] the initial state from the one meant, parts (c, h) of an LSTM, (h,) of a GRU.
        through_time: [time] what of the gradient passes from step t to the state before it.
        keep: [batch, time, units] by which the outputs are multiplied: a dropout's mask.
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


class AttentionKnobs(NamedTuple):
    """The knobs of the attention.

    Args:
        memory_lengths: [batch] int32; scores past them are masked.
        scaled: 0 for Luong's scale or Bahdanau's normalisation left out, where the spec has it.
        divisor: the scores are divided by this.
        previous_query: 1 for the state before the step as the query, in place of the cell's output.
        feeding: what of the attention is fed to the next step's input.
        output_attention: 1 for the attention as the output, 0 for the cell's output (of one width only).
        memory_layers: [layers] a weight for each encoder layer's outputs as the memory.
        memory_rows: [batch] int32; row b attends to the memory of row memory_rows[b].
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
            ones, so weighted. A slot is (layer, part, direction) in this order, the direction last; see
            `handoff_slots`.
        passes: by seam, what of the gradient passes: `handoff`, `memory` (the encoder's outputs as the
            attention's memory), `feeding` (the attention fed to the next step), `embedded_source`,
            `embedded_target`, `layers` (from one encoder layer to the one below).
        share: by pair `later<-earlier` of cells of one shape (`shared_cells`), 1 for the later one's
            recurrent kernel and bias being the earlier one's (and its kernel where that fits too).
        decoder_layers: [layers] a weight for each decoder layer's output as that of the stack.
        target_in: [tgt_time] int32; step t reads `target[:, target_in[t]]`.
        target_out: [tgt_time] int32; step t is held to `target[:, target_out[t]]`.
        loss_weights: [batch, tgt_time]; the loss is the sum of each step's loss (of features, their mean),
            so weighted.
        loss_form: a weight for each of `LOSS_FORMS`.
        label_smoothing: the part of a label that is spread over all tokens.
        steps_lengths: [batch] int32 or the target's time throughout: the decoder runs up to the longest of
            them (tfa's loop ends with its longest row); a row's steps past its own length go on.
    """

    cells: dict[str, CellKnobs]
    attention: AttentionKnobs | None
    handoff: Any
    passes: dict[str, Any]
    share: dict[str, Any]
    decoder_layers: Any
    target_in: Any
    target_out: Any
    loss_weights: Any
    loss_form: Any
    label_smoothing: Any
    steps_lengths: Any


def handoff_slots(spec: EncoderDecoder | AttentionNMT) -> tuple[tuple[int, str, str], ...]:
    """The slots of `Knobs.handoff`: (layer, part `c` or `h`, direction `forward` or `backward`)."""
    if isinstance(spec, EncoderDecoder):
        return tuple((0, part, "forward") for part in "ch")
    parts = "ch" if spec.cell == "lstm" else "h"
    directions = ("forward", "backward")
    return tuple((i, part, way) for i in range(spec.layers) for part in parts for way in directions)
