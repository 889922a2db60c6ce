from __future__ import annotations

import json

import pytest

from oracle import spec as spec_module
from oracle import zoo
from oracle.errors import SpecError
from oracle.spec import LSTM, EncoderDecoder
from tests.oracle.cases import SMALL


@pytest.mark.parametrize("choice", zoo.choices(), ids=lambda choice: choice.name)
def test_every_spec_survives_json(choice: zoo.Choice) -> None:
    spec = choice.variant.spec
    assert spec_module.decode(json.loads(json.dumps(spec_module.encode(spec)))) == spec


@pytest.mark.parametrize(
    "change, said",
    [
        ({"units": 4}, "unknown field `units`"),
        ({"source_features": "3"}, "source_features"),
        ({"handoff": "lost"}, "handoff"),
        ({"type": "transformer"}, "transformer"),
        ({"encoder": {"cell": "lstm", "units": 0, "forget_bias": 1.0}}, "encoder.units is 0"),
        ({"encoder": {"cell": "lstm", "units": 6, "forget_bias": 1.0}}, "same number of units"),
        ({"projection": False}, "without a projection"),
    ],
)
def test_bad_spec_is_refused_by_name(change: dict, said: str) -> None:
    values = spec_module.encode(SMALL) | change
    with pytest.raises(SpecError, match=said):
        spec_module.decode(values)


def test_missing_field_is_refused() -> None:
    values = spec_module.encode(SMALL)
    del values["decoder"]
    with pytest.raises(SpecError, match="decoder"):
        spec_module.decode(values)


def test_spec_is_frozen_and_compares_by_value() -> None:
    with pytest.raises(AttributeError):
        SMALL.source_features = 9
    assert EncoderDecoder(3, 2, LSTM(5), LSTM(5)) == SMALL
    assert hash(EncoderDecoder(3, 2, LSTM(5), LSTM(5))) == hash(SMALL)
