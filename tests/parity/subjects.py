"""All parity subjects: importing a module of this folder registers its own."""

from __future__ import annotations

import importlib

from tests.parity.harness import SUBJECTS

MODULES: tuple[str, ...] = (
    "attention",
    "attention_nmt",
    "attention_wrapper",
    "beam_search",
    "decoders",
    "dropout_cache",
    "losses",
    "samplers",
    "keras_cells",
    "keras_layers",
    "keras_stateful",
    "monotonic",
    "contrib_cells",
    "tf1_cells",
    "tf1_loops",
    "tfa_rnn",
)

for module in MODULES:
    importlib.import_module(f"tests.parity.{module}")

__all__ = ["SUBJECTS"]
