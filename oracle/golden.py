"""Golden records: a port's gradients, kept from an earlier run and held against later ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oracle.assertion import assert_gradients_match
from oracle.compare import Comparison
from oracle.errors import UsageError
from oracle.pair import Pair, compare_pair
from oracle.record import Record, read_record, write_record
from oracle.report.pair import render_pair


@dataclass(frozen=True)
class GradientOracle:
    """What the fixture `gradient_oracle` gives to a test.

    Args:
        folder: where the golden records of the test's module are.
        test: the test's name.
        update: whether golden records are written instead of compared with.
        asserted: the golden records that were written or compared with.
    """

    folder: Path
    test: str
    update: bool = False
    asserted: set[Path] = field(default_factory=set, repr=False)

    def assert_match(self, port: Any, **arguments: Any) -> tuple[Comparison, ...]:
        """As `oracle.assert_gradients_match`."""
        __tracebackhide__ = True
        return assert_gradients_match(port, **arguments)

    def assert_golden(
        self, record: Record | str | os.PathLike[str], *, name: str = "", tolerance: float | None = None
    ) -> Pair | None:
        """Fail unless a record is the golden one, tensor by tensor.

        Args:
            record: a record, or the path of one.
            name: what tells it from others of the same test.
            tolerance: what is allowed, as a part of a tensor's largest element; by default 1e-12 in float64,
                and what `oracle.pair` assumes in other precisions.

        Returns:
            What was compared; None if the golden record was written.

        Raises:
            AssertionError: if there is no golden record, the port raised, or a tensor is not what it was.
            UsageError: if another record of the test has this name.
            RecordError: if the golden record is damaged, or of other weights or another batch.
        """
        __tracebackhide__ = True
        new = record if isinstance(record, Record) else read_record(record)
        if new.failure is not None:
            raise AssertionError(f"the port raised {new.failure.type}: {new.failure.message}")
        golden = self.folder / f"{self.test}{f'-{name}' if name else ''}.safetensors"
        if golden in self.asserted:
            raise UsageError(
                f"{golden.name}: the test has compared another record with it; tell them apart: name='...'"
            )
        self.asserted.add(golden)
        if self.update:
            golden.parent.mkdir(parents=True, exist_ok=True)
            write_record(new, golden)
            return None
        if not golden.is_file():
            raise AssertionError(
                f"{golden}: there is no golden record; pytest --oracle-update writes it, to be committed"
            )
        pair = compare_pair(new, read_record(golden), tolerance=tolerance)
        pair = replace(pair, names=("now", "golden"))
        if not pair.matches:
            raise AssertionError(
                f"{golden}: not as it was; if that is meant, pytest --oracle-update writes it anew\n"
                f"{render_pair(pair, 'text')}"
            )
        return pair
