"""The oracle, on the JAX that is here, against what real TensorFlow computed elsewhere."""

from __future__ import annotations

import pytest

from oracle.case import read_case
from oracle.compare import compare_records
from oracle.record import read_record
from oracle.run_jax import run_oracle
from tests.golden.make_records import GOLDEN, name_files

pytestmark = pytest.mark.jax


@pytest.mark.parametrize("port", sorted(GOLDEN))
def test_oracle_agrees_with_the_record(port: str) -> None:
    case_path, record_path = name_files(port)
    record = read_record(record_path)
    assert record.origin.versions["tensorflow"] == "2.15.1"
    comparison = compare_records(record, run_oracle(read_case(case_path), model=port))
    assert comparison.matches == (not port.startswith("implicit_state")), comparison.findings
    statuses = {row.name: row.status for row in comparison.rows}
    expected = {"implicit_state/exchanged": "mismatch", "implicit_state/outside_tape": "none"}
    assert statuses["gradient/encoder/cell/kernel"] == expected.get(port, "match")
