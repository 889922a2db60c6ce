"""Small cases that several tests share."""

from __future__ import annotations

import msgspec

from oracle import zoo
from oracle.case import Case, random_case
from oracle.spec import LSTM, AttentionNMT, EncoderDecoder, Spec

SMALL = EncoderDecoder(source_features=3, target_features=2, encoder=LSTM(units=5), decoder=LSTM(units=5))


def shrink(spec: Spec, units: int = 5) -> Spec:
    """The same model with few units and features, every size another number."""
    if isinstance(spec, AttentionNMT):
        luong = spec.attention.mechanism.startswith("luong")
        attention = msgspec.structs.replace(
            spec.attention,
            units=2 * units if luong else 7,
            layer_units=8 if spec.attention.layer_units else None,
        )
        return msgspec.structs.replace(
            spec, source_vocab=11, target_vocab=9, embedding=3, units=units, attention=attention
        )
    cells = {
        name: msgspec.structs.replace(getattr(spec, name), units=units) for name in ("encoder", "decoder")
    }
    return msgspec.structs.replace(spec, source_features=3, target_features=2, **cells)


def small_case(port: str, *, seed: int = 0) -> Case:
    """A random case of a port's spec, shrunk: 4 rows, 6 source steps and 7 target steps."""
    (choice,) = zoo.choose(port)
    return random_case(shrink(choice.variant.spec), seed=seed, batch_size=4, source_time=6, target_time=7)
