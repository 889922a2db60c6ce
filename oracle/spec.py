"""A spec: what an encoder-decoder is, with no framework in it.

A spec is frozen, compares by value, and is written to and read from JSON strictly: a field that is
unknown, missing or of the wrong type is an error, never ignored.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from oracle.bridge.mirror.spec import MirrorSpec
from oracle.errors import SpecError

Handoff = Literal["state", "stopped", "zeros", "exchanged"]
"""How the encoder's final state reaches the decoder: passed on as it is (right); passed on with no
gradient behind it; replaced by zeros; passed on with h and c exchanged."""


class LSTM(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="lstm", tag_field="cell"):
    """An LSTM cell. `forget_bias` is what is added to the forget gate at run time."""

    units: int
    forget_bias: float = 1.0


class EncoderDecoder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="encoder-decoder"):
    """An encoder that reads `source`, and a decoder that starts from its state and predicts `target`.

    The decoder is fed the target (teacher forcing): it reads `target[:, :-1]` and is held to
    `target[:, 1:]` by the mean of the squared differences over every element, padding included.

    Args:
        source_features: width of a source step.
        target_features: width of a target step, which is what the model predicts.
        encoder: the encoder's cell.
        decoder: the decoder's cell; it has as many units as the encoder, whose state it takes over.
        projection: whether a dense layer takes the decoder's output to `target_features`. Without it
            the decoder's units are the prediction, and must be `target_features` many.
        initial_state: where the encoder starts: from `implicit` zeros, or from a `given` state.
        lengths: whether rows have lengths of their own, past which outputs are zero and states stay.
        handoff: how the encoder's final state reaches the decoder.
    """

    source_features: int
    target_features: int
    encoder: LSTM
    decoder: LSTM
    projection: bool = True
    initial_state: Literal["implicit", "given"] = "implicit"
    lengths: bool = False
    handoff: Handoff = "state"

    def __post_init__(self) -> None:
        sizes = {
            "source_features": self.source_features,
            "target_features": self.target_features,
            "encoder.units": self.encoder.units,
            "decoder.units": self.decoder.units,
        }
        for name, size in sizes.items():
            if size < 1:
                raise SpecError(f"spec: {name} is {size}; it must be at least 1")
        if self.encoder.units != self.decoder.units:
            raise SpecError(
                f"spec: the decoder has {self.decoder.units} units and cannot start from the state of an "
                f"encoder with {self.encoder.units}; give both the same number of units"
            )
        if not self.projection and self.decoder.units != self.target_features:
            raise SpecError(
                f"spec: without a projection the decoder's {self.decoder.units} units are the prediction, "
                f"but target_features is {self.target_features}; make them equal, or set projection"
            )


class Attention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An attention mechanism of tfa.seq2seq.

    Args:
        mechanism: which one.
        units: its depth; for Luong's the decoder's units.
        scaled: Luong's `scale`, Bahdanau's `normalize`.
        layer_units: width of the attention layer; None for none, so that the attention is the context.
    """

    mechanism: Literal["luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic"]
    units: int
    scaled: bool = False
    layer_units: int | None = None


LossAverage = Literal["tokens", "steps", "rows"]
"""What a loss by token is averaged over: all tokens that are no padding; at each step over the rows that
have one, and summed over the steps; or a row's tokens summed, and averaged over the rows."""


class AttentionNMT(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="attention-nmt"):
    """A translator: embeddings, a bidirectional encoder, an attentive decoder that is fed its attention.

    Each layer of the encoder concatenates its two directions; the decoder has as many layers of twice the
    units, and each starts from the concatenated final states of the encoder's layer. The loss is the
    cross-entropy by token, without the padding.

    Args:
        source_vocab: number of source tokens, the padding among them.
        target_vocab: number of target tokens.
        embedding: width of both embeddings.
        cell: the kind of every cell.
        units: units of each direction of the encoder.
        layers: layers of the encoder and of the decoder.
        attention: the decoder's attention.
        loss: what the cross-entropy is averaged over.
    """

    source_vocab: int
    target_vocab: int
    embedding: int
    cell: Literal["lstm", "gru"]
    units: int
    layers: int
    attention: Attention
    loss: LossAverage = "tokens"

    def __post_init__(self) -> None:
        sizes = {
            "source_vocab": self.source_vocab,
            "target_vocab": self.target_vocab,
            "embedding": self.embedding,
            "units": self.units,
            "layers": self.layers,
            "attention.units": self.attention.units,
            "attention.layer_units": 1 if self.attention.layer_units is None else self.attention.layer_units,
        }
        for name, size in sizes.items():
            if size < 1:
                raise SpecError(f"spec: {name} is {size}; it must be at least 1")
        if self.attention.mechanism.startswith("luong") and self.attention.units != 2 * self.units:
            raise SpecError(
                f"spec: Luong attention of {self.attention.units} units cannot be queried by a decoder of "
                f"{2 * self.units}; give attention.units = {2 * self.units}"
            )


Spec = EncoderDecoder | AttentionNMT | MirrorSpec
"""Every kind of model that can be described."""


def encode(spec: Spec) -> dict[str, object]:
    """Give the spec as plain JSON values."""
    return msgspec.to_builtins(spec)


def decode(values: object) -> Spec:
    """Read a spec from plain JSON values.

    Raises:
        SpecError: if a field is unknown, missing, of the wrong type, or contradicts another.
    """
    try:
        return msgspec.convert(values, Spec)
    except msgspec.ValidationError as error:
        raise SpecError(f"spec: {error}") from error


def describe(spec: Spec) -> str:
    """Say in one line what the model is: `LSTM(256) encoder-decoder, 13 -> 12 features, ...`."""
    if isinstance(spec, MirrorSpec):
        return spec.describe()
    if isinstance(spec, AttentionNMT):
        return _describe_nmt(spec)
    parts = [
        f"LSTM({spec.encoder.units}) encoder-decoder",
        f"{spec.source_features} -> {spec.target_features} features",
        "dense projection" if spec.projection else "no projection",
        f"{spec.initial_state} initial state",
        "lengths" if spec.lengths else "no lengths",
    ]
    if spec.handoff != "state":
        parts.append(f"handoff {spec.handoff}")
    return ", ".join(parts)


def _describe_nmt(spec: AttentionNMT) -> str:
    attention, width = spec.attention, spec.attention.layer_units
    scaling = {"luong": ", scaled", "bahdanau": ", normalized"}[attention.mechanism.split("_")[0]]
    return ", ".join(
        [
            f"{spec.layers} x bidirectional {spec.cell.upper()}({spec.units}) encoder",
            f"{spec.layers} x {spec.cell.upper()}({2 * spec.units}) decoder",
            f"{spec.source_vocab} -> {spec.target_vocab} tokens",
            f"embeddings {spec.embedding}",
            f"{attention.mechanism} attention {attention.units}{scaling if attention.scaled else ''}",
            "no attention layer" if width is None else f"attention layer {width}",
            *([] if spec.loss == "tokens" else [f"loss by {spec.loss}"]),
        ]
    )
