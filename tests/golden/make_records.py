"""Make the golden records: what real TensorFlow computed, kept so that any machine can check the oracle.

    uv run python -m tests.golden.make_records

Run it with TensorFlow 2.15.1 and tfa 0.23. Each port gets a case and the port's record of it beside
this file; `tests/oracle/test_golden.py` runs the oracle on the case, on whatever JAX is there.
"""

from __future__ import annotations

from pathlib import Path

from oracle.case import write_case
from oracle.record import write_record
from oracle.run_tf import run_port
from tests.oracle.cases import small_case

FOLDER = Path(__file__).parent / "records"

GOLDEN = {
    "dynamic_rnn/full": "v1",
    "dynamic_rnn/lengths": "v1",
    "explicit_state/full": "function",
    "implicit_state/exchanged": "function",
    "implicit_state/outside_tape": "function",
}
"""The ports that are kept, and the mode in which each ran."""


def name_files(port: str) -> tuple[Path, Path]:
    """Where the case and the record of a port are kept."""
    stem = port.replace("/", "-")
    return FOLDER / f"{stem}.case.safetensors", FOLDER / f"{stem}.record.safetensors"


def main() -> None:
    """Make every record."""
    FOLDER.mkdir(exist_ok=True)
    for port, mode in GOLDEN.items():
        case = small_case(port, seed=20)
        case_path, record_path = name_files(port)
        record = run_port(case, model=port, mode=mode)
        write_case(case, case_path)
        write_record(record, record_path)
        print(f"{record_path.name}: {len(record.tensors)} tensors, {record.origin.versions}")


if __name__ == "__main__":
    main()
