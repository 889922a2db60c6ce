"""The spec of a model, from the names and shapes of its variables, where it is one that a spec describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oracle.bridge.mapping import check_names
from oracle.bridge.sites import Convention, Site, find_sites
from oracle.errors import BridgeError, OracleError
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec

Shapes = Mapping[str, tuple[int, ...]]

ENCODER_DECODER_UNKNOWN = "forget_bias, initial_state, lengths, handoff"
"""The fields of an encoder-decoder's spec that no variable shows, and that have their defaults."""


@dataclass(frozen=True)
class Inference:
    """What was found.

    Args:
        spec: the spec, or None.
        sites: the spec's sites; empty without one.
        reason: why there is none, or which fields the variables do not show.
    """

    spec: Spec | None
    sites: tuple[Site, ...]
    reason: str


def infer_spec(shapes: Shapes, convention: str) -> Inference:
    """Find the spec whose sites are exactly these variables."""
    if convention not in ("tf1", "keras"):
        return Inference(None, (), "its variables are not named as a port's are")
    naming: Convention = "tf1" if convention == "tf1" else "keras"
    attempts = (_encoder_decoder(shapes, naming), _attention_nmt(shapes))
    spec = next((attempt for attempt in attempts if isinstance(attempt, EncoderDecoder | AttentionNMT)), None)
    if spec is None:
        reasons = [attempt for attempt in attempts if isinstance(attempt, str) and attempt]
        return Inference(None, (), "; ".join(reasons) or "it has not the variables of one")
    try:
        sites = find_sites(spec, naming)
        check_names(sites, shapes, where="its variables")
    except BridgeError as error:
        return Inference(None, (), str(error).rpartition(";")[0])
    unknown = ENCODER_DECODER_UNKNOWN if isinstance(spec, EncoderDecoder) else ""
    reason = f"the variables do not show {unknown}: these have their defaults" if unknown else ""
    return Inference(spec, sites, reason)


def _encoder_decoder(shapes: Shapes, convention: Convention) -> Spec | str:
    inner = "rnn/basic_lstm_cell" if convention == "tf1" else "cell"
    kernels = [shapes.get(f"{scope}/{inner}/kernel", ()) for scope in ("encoder", "decoder")]
    if any(len(kernel) != 2 for kernel in kernels):
        missing = [
            scope for scope, kernel in zip(("encoder", "decoder"), kernels, strict=True) if len(kernel) != 2
        ]
        return f"an encoder-decoder has {missing[0]}/{inner}/kernel"
    units = kernels[0][1] // 4
    rows = units if convention == "tf1" else 0
    source, target = (kernel[0] - rows for kernel in kernels)
    try:
        return EncoderDecoder(
            source, target, LSTM(units), LSTM(kernels[1][1] // 4), projection="projection/kernel" in shapes
        )
    except OracleError as error:
        return str(error)


def _attention_nmt(shapes: Shapes) -> Spec | str:
    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = shapes.get(name, ())
        if len(found) != rank:
            raise BridgeError(f"an attention translator has {name}")
        return found

    try:
        source, embedding = shape("encoder/embedding/embeddings", 2)
        target, _ = shape("decoder/embedding/embeddings", 2)
        cell = "encoder/layers/0/forward_layer/cell"
        units, columns = shape(f"{cell}/recurrent_kernel", 2)
        kind = {4 * units: "lstm", 3 * units: "gru"}.get(columns)
        if kind is None:
            raise BridgeError(
                f"{cell}/recurrent_kernel [{units}, {columns}] is neither an LSTM's nor a GRU's"
            )
        mechanism = "decoder/attention_mechanism"
        _, depth = shape(f"{mechanism}/memory_layer/kernel", 2)
    except BridgeError as error:
        return str(error)
    layers = {match[1] for name in shapes if (match := re.match(r"encoder/layers/(\d+)/", name))}
    base = "bahdanau" if f"{mechanism}/attention_v" in shapes else "luong"
    monotonic = "_monotonic" if f"{mechanism}/attention_score_bias" in shapes else ""
    width = shapes.get("decoder/attention_layer/kernel", (0, None))[-1]
    try:
        attention = Attention(
            mechanism=f"{base}{monotonic}",  # pyright: ignore[reportArgumentType]
            units=depth,
            scaled=f"{mechanism}/attention_g" in shapes,
            layer_units=width,
        )
        return AttentionNMT(source, target, embedding, kind, units, len(layers), attention)
    except OracleError as error:
        return str(error)
