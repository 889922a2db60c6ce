"""The command on a tiny selection, in a process of its own; and what the checks beside it see."""

from __future__ import annotations

from pathlib import Path

import pytest

from oracle.errors import WorkerError
from oracle.selftest.baselines import CHEX, JAX, NORMS, TENSORFLOW, ask_baselines
from oracle.selftest.correct import check_correct
from oracle.selftest.faults import find_fault
from oracle.selftest.pool import run_all
from oracle.selftest.results import read_results
from oracle.selftest.trial import prepare, run_fault

pytestmark = [pytest.mark.tf, pytest.mark.jax, pytest.mark.slow]


def test_the_command_runs_keeps_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from oracle.commands.selftest import selftest

    output, page = tmp_path / "run.json", tmp_path / "detection.md"
    options = {"faults": "state-h-alone", "baselines": False, "processes": 1, "output": output, "page": page}
    assert selftest(correct=1, **options) == 0
    run = read_results(output)
    assert [(result.fault, result.subject) for result in run.faults] == [
        ("loop-state-h-alone", "loop"),
        ("loop-state-h-alone", "loop-lengths"),
        ("state-h-alone", "pair"),
        ("state-h-alone", "pair-wide"),
    ]
    assert {result.codes for result in run.faults} == {("C103",)}
    assert len({result.number for result in run.correct if not result.refused}) >= 1
    assert "the goals are met" in capsys.readouterr().out
    assert "| seeded faults detected, in float64 | all | 4 of 4 |" in page.read_text()
    # All of it is there: no process is started.
    assert selftest(correct=0, resume=True, **options) == 0
    assert read_results(output) == run


def test_what_fails_in_a_process_is_said() -> None:
    with pytest.raises(WorkerError, match="no seeded fault 'zzz'"):
        list(run_all([{"do": "fault", "fault": "zzz", "subject": "pair", "seed": 0}], processes=1))


@pytest.mark.parametrize(
    ("name", "norms", "others"),
    [
        ("state-exchanged", True, False),
        ("state-stopped", True, True),
        ("row-of-gradient-by-1e-06", False, False),
    ],
)
def test_what_the_checks_beside_it_see(name: str, norms: bool, others: bool) -> None:
    fault, prepared = find_fault(name), prepare("pair", 0)
    said = {one.check: one.seen for one in ask_baselines(fault, prepared, run_fault(fault, prepared))}
    assert said == {NORMS: norms, TENSORFLOW: others, JAX: others, CHEX: said[CHEX]}
    # chex lets an error grow with the size of what it checks.
    assert said[CHEX] is not None


def test_a_right_port_is_judged_in_both_precisions() -> None:
    # The last was once called wrong: its normalised vector has one element, whose gradient is zero in theory
    # and in TensorFlow, and a rounding in JAX.
    drawn = [(5, 0), (5, 1), (0, 985)]
    results = [result for seed, number in drawn for result in check_correct(seed, number)]
    assert [result.dtype for result in results] == ["float64", "float32"] * 3
    assert not [result for result in results if result.alarms]
    assert any(not result.refused for result in results)
