"""The processes of the suite: what they answer, and what becomes of one that ends."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import msgspec
import pytest

from bench.cases import BenchCase, attention_spec
from bench.contestants import CONTESTANTS, SIDES
from bench.profiling import KINDS
from bench.suite import Settings, count_turns, leave_out_measured, run_suite
from bench.workers import FailedError, Workers, pin_environment
from oracle.case import random_case, write_case
from oracle.errors import UsageError
from oracle.spec import LSTM, EncoderDecoder

SPEC = EncoderDecoder(5, 4, LSTM(3), LSTM(3))


@pytest.fixture
def workers(tmp_path):
    with Workers(tmp_path, threads=1, limit=120) as workers:
        yield workers


@pytest.fixture
def sources(tmp_path):
    write_case(random_case(SPEC), tmp_path / "case.safetensors")
    names = {"name": "floor-numpy", "job": "gradient", "case": str(tmp_path / "case.safetensors")}
    return {**names, "target": "", "port": "", "seed": 0}


def test_a_contestant_is_made_ready_and_run(workers, sources, tmp_path):
    start = workers.ask("numpy", "prepare", **sources, result=str(tmp_path / "result"))
    assert start["first"] > 0
    assert start["compile"] is None
    assert workers.ask("numpy", "run", name="floor-numpy", times=3) > 0


def test_a_process_is_held_to_its_threads(workers):
    workers.ask("numpy", "versions")
    (worker,) = workers._workers.values()
    assert len(os.sched_getaffinity(worker._process.pid)) == 1
    assert pin_environment(3)["OPENBLAS_NUM_THREADS"] == "3"


def test_what_raises_has_failed_and_the_process_goes_on(workers, sources, tmp_path):
    with pytest.raises(FailedError, match="absent.safetensors"):
        workers.ask(
            "numpy", "prepare", **{**sources, "case": "absent.safetensors"}, result=str(tmp_path / "r")
        )
    with pytest.raises(FailedError, match="another contestant"):
        workers.ask("numpy", "run", name="floor-numpy", times=1)
    assert workers.is_running("numpy")


def test_a_process_that_is_ended_is_started_anew(workers, sources, tmp_path):
    workers.ask("numpy", "prepare", **sources, result=str(tmp_path / "result"))
    (worker,) = workers._workers.values()
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.wait()
    with pytest.raises(FailedError, match="ended by signal 9, mostly a lack of memory"):
        workers.ask("numpy", "run", name="floor-numpy", times=1)
    assert not workers.is_running("numpy")
    with pytest.raises(FailedError, match="another contestant took their common process"):
        workers.ask("numpy", "run", name="floor-numpy", times=1)
    workers.ask("numpy", "prepare", **sources, result=str(tmp_path / "result"))
    assert workers.ask("numpy", "run", name="floor-numpy", times=1) > 0


def test_who_does_not_answer_has_failed(tmp_path):
    with (
        Workers(tmp_path, threads=1, limit=0.01) as workers,
        pytest.raises(FailedError, match="took longer than 0 s"),
    ):
        workers.ask("numpy", "versions")


def test_memory_is_weighed_in_a_process_of_its_own(workers, sources):
    big = {**sources}
    spec = EncoderDecoder(5, 4, LSTM(512), LSTM(512))
    write_case(random_case(spec, batch_size=64, source_time=8, target_time=8), big["case"])
    peak = workers.ask_fresh("numpy", "weigh", **big, times=2)
    if peak is None:
        pytest.skip("the peak cannot be forgotten here")
    # Each kernel [512, 2048] has 4 MiB, and there are more than ten of them.
    assert 2**25 < peak < 2**30
    assert not workers.is_running("numpy")


CASE = BenchCase("gradient/tiny/2x3x4", "gradient", SPEC, 2, 3, profile=True)


@pytest.mark.jax
@pytest.mark.slow
def test_a_run_holds_everyone_who_was_asked(tmp_path):
    settings = Settings(
        rounds=3, budget=1.0, threads=1, only=("plain", "flax", "fast", "cudnn", "floor-numpy")
    )
    turns, kept = [], []
    run = run_suite([CASE], settings, on_done=turns.append, on_case=kept.append)
    assert kept == [run]
    assert len(turns) == count_turns([CASE], settings) == 10
    assert {each.contestant for each in run.measurements} == {"plain", "flax", "fast", "floor-numpy"}
    (profile,) = run.profiles
    assert profile.contestant == "fast"
    assert min(profile.step, profile.floor) > 0
    assert set(profile.parts) == set(KINDS)
    assert profile.parts["products"] > 0
    assert [(each.contestant, each.kind) for each in run.absences] == [("cudnn", "absent")]
    for each in run.measurements:
        assert len(each.seconds) == 3
        assert bool(each.agreed) == (each.contestant != "floor-numpy")
    assert run.cases[0].flops is not None
    assert set(run.versions) >= {"jax", "flax", "numpy"}


def test_a_run_that_was_broken_off_goes_on_with_what_is_left(monkeypatch):
    settings = Settings(rounds=3, budget=1.0, threads=1, only=("cudnn", "tf-session"))
    attended = BenchCase("gradient/attended/2x3x4", "gradient", attention_spec("lstm", "luong", 4), 2, 3)
    bridge = BenchCase("bridge/nothing", "bridge")
    begun = run_suite([bridge], settings)
    assert [case.name for case in begun.cases] == ["bridge/nothing"]
    begun = msgspec.structs.replace(begun, commit=begun.commit.rstrip("+"))
    monkeypatch.setattr("bench.suite.describe_commit", lambda: begun.commit)
    left = leave_out_measured([bridge, attended], settings, begun)
    assert left == [attended]
    other_bridge = replace(bridge, name="bridge/another")
    run = run_suite([other_bridge], settings, begun=begun)
    assert [case.name for case in run.cases] == ["bridge/nothing", "bridge/another"]
    assert run.started == begun.started
    assert leave_out_measured([bridge, other_bridge], settings, run) == []
    for other in ({"rounds": 4}, {"budget": 2.0}, {"seed": 1}, {"only": ("flax",)}):
        with pytest.raises(UsageError, match=next(iter(other))):
            leave_out_measured([bridge], replace(settings, **other), begun)
    elsewhere = msgspec.structs.replace(begun, machine={**begun.machine, "processor": "another"})
    with pytest.raises(UsageError, match="processor was another"):
        leave_out_measured([bridge], settings, elsewhere)
    older = msgspec.structs.replace(begun, versions={"numpy": "0.9"})
    with pytest.raises(UsageError, match=r"numpy was 0\.9, is"):
        leave_out_measured([bridge], settings, older)
    changed = msgspec.structs.replace(begun, commit=f"{begun.commit}+")
    with pytest.raises(UsageError, match="not committed"):
        leave_out_measured([bridge], settings, changed)


@pytest.mark.tf_any
@pytest.mark.jax
@pytest.mark.slow
def test_a_case_that_cannot_be_made_costs_its_own_measurements_alone():
    broken = BenchCase("gradient/nowhere", "gradient", target="nowhere_at_all:build")
    settings = Settings(rounds=3, budget=1.0, threads=1, only=("plain", "floor-numpy"))
    run = run_suite([broken, CASE], settings)
    assert {each.case for each in run.measurements} == {CASE.name}
    reasons = [each.reason for each in run.absences if each.case == broken.name]
    assert len(reasons) == 1
    assert "nowhere_at_all" in reasons[0]


def test_every_contestant_has_a_side():
    assert {each.side for each in CONTESTANTS} == set(SIDES)
