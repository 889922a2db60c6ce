"""What a worker process replies, and what its caller raises of it."""

from __future__ import annotations

import io
import json

import pytest

from oracle import worker
from oracle.bridge.mirror import MirrorError
from oracle.errors import BridgeError, OracleError
from oracle.legacy_graph.errors import GraphError


@pytest.mark.parametrize(
    "error, kind",
    [
        (MirrorError("mirror: model/dense: its call is overridden"), BridgeError),
        (GraphError("G207", "no"), OracleError),
        (BridgeError("no weights"), BridgeError),
    ],
)
def test_an_error_of_ours_is_raised_as_one(
    error: OracleError, kind: type[OracleError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_it(request: object) -> None:
        raise error

    monkeypatch.setattr(worker, "_serve", raise_it)
    replies = io.StringIO()
    worker._reply(replies, {})
    with pytest.raises(OracleError) as caught:
        worker.raise_reply(json.loads(replies.getvalue()))
    assert type(caught.value) is kind
    assert str(caught.value) == str(error)


def test_any_other_error_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_it(request: object) -> None:
        raise KeyError("units")

    monkeypatch.setattr(worker, "_serve", raise_it)
    replies = io.StringIO()
    worker._reply(replies, {})
    with pytest.raises(RuntimeError, match="KeyError: 'units'"):
        worker.raise_reply(json.loads(replies.getvalue()))
