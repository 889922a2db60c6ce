"""What an assertion goes by where its arguments are silent, and where it leaves what it found.

The pytest plugin sets it for each test; elsewhere it has its defaults. It imports no framework.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from oracle.compare import Comparison

Precision = Literal["f64", "f32", "both"]


@dataclass(frozen=True)
class AssertionContext:
    """How assertions run.

    Args:
        precision: in which precision ports that are built for the assertion run.
        mode: how TensorFlow runs them.
        seed: of every random choice.
        folder: where the records of a mismatch go; None for a temporary folder of their own.
        test: what is being tested, `tests/test_port.py::test_port`; for the command that repeats it.
        comparisons: every comparison that was made, for the reports.
    """

    precision: Precision = "f64"
    mode: str = "eager"
    seed: int = 0
    folder: Path | None = None
    test: str = ""
    comparisons: list[Comparison] = field(default_factory=list)

    def make_folder(self) -> Path:
        """A folder for the records of one mismatch, of its own."""
        if self.folder is None:
            return Path(tempfile.mkdtemp(prefix="gradient-oracle-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = sum(1 for _ in self.folder.iterdir())
        while (place := self.folder / str(taken)).exists():
            taken += 1
        place.mkdir()
        return place


_CONTEXT: ContextVar[AssertionContext | None] = ContextVar("oracle_assertion_context", default=None)


def current_context() -> AssertionContext:
    """The context that is in force."""
    return _CONTEXT.get() or AssertionContext()


@contextlib.contextmanager
def use_context(context: AssertionContext) -> Iterator[AssertionContext]:
    """Let assertions go by this context, within the `with` only."""
    token = _CONTEXT.set(context)
    try:
        yield context
    finally:
        _CONTEXT.reset(token)
