"""Checks the gradients of TensorFlow encoder-decoders against independent Flax models.

Importing this package imports neither JAX nor TensorFlow; a function that needs one imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oracle.assertion import GradientMismatchError, assert_gradients_match
    from oracle.bridge.mirror import MirrorError, MirrorSpec, mirror, mirrors
    from oracle.bridge.mirror.pieces import Piece
    from oracle.case import Case, random_case, read_case, write_case
    from oracle.check import Request
    from oracle.compare import Comparison, Row, compare_records
    from oracle.errors import OracleError
    from oracle.legacy_graph.repair import repair
    from oracle.live_port import LivePort, compare_live
    from oracle.pair import compare_pair
    from oracle.record import Record, read_record, record_port, write_record
    from oracle.report import render_text
    from oracle.run_jax import run_oracle
    from oracle.run_tf import run_port
    from oracle.runner import InProcess, TwoProcesses
    from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder
    from oracle.verify import verify_record

_HOMES = {
    "Attention": "oracle.spec",
    "AttentionNMT": "oracle.spec",
    "Case": "oracle.case",
    "Comparison": "oracle.compare",
    "EncoderDecoder": "oracle.spec",
    "GradientMismatchError": "oracle.assertion",
    "InProcess": "oracle.runner",
    "LSTM": "oracle.spec",
    "LivePort": "oracle.live_port",
    "MirrorError": "oracle.bridge.mirror",
    "MirrorSpec": "oracle.bridge.mirror",
    "OracleError": "oracle.errors",
    "Piece": "oracle.bridge.mirror.pieces",
    "Record": "oracle.record",
    "Request": "oracle.check",
    "Row": "oracle.compare",
    "TwoProcesses": "oracle.runner",
    "assert_gradients_match": "oracle.assertion",
    "compare_live": "oracle.live_port",
    "compare_pair": "oracle.pair",
    "compare_records": "oracle.compare",
    "mirror": "oracle.bridge.mirror",
    "mirrors": "oracle.bridge.mirror",
    "random_case": "oracle.case",
    "read_case": "oracle.case",
    "read_record": "oracle.record",
    "record_port": "oracle.record",
    "render_text": "oracle.report",
    "repair": "oracle.legacy_graph.repair",
    "run_oracle": "oracle.run_jax",
    "run_port": "oracle.run_tf",
    "verify_record": "oracle.verify",
    "write_case": "oracle.case",
    "write_record": "oracle.record",
}
"""Where each public name is defined."""

__all__ = [
    "LSTM",
    "Attention",
    "AttentionNMT",
    "Case",
    "Comparison",
    "EncoderDecoder",
    "GradientMismatchError",
    "InProcess",
    "LivePort",
    "MirrorError",
    "MirrorSpec",
    "OracleError",
    "Piece",
    "Record",
    "Request",
    "Row",
    "TwoProcesses",
    "assert_gradients_match",
    "compare_live",
    "compare_pair",
    "compare_records",
    "mirror",
    "mirrors",
    "random_case",
    "read_case",
    "read_record",
    "record_port",
    "render_text",
    "repair",
    "run_oracle",
    "run_port",
    "verify_record",
    "write_case",
    "write_record",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'oracle' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
