"""Records of runs in pytest-benchmark's JSON format, read back whole, and held against one another.

`pytest-benchmark compare a.json b.json` reads them too. What its format has no place for is under `oracle` at
the top, and in each benchmark's `extra_info`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.results import Run
from oracle.errors import MissingPackageError, RecordError, UsageError
from oracle.frameworks import installed_version
from oracle.storage import write_bytes

FORMAT = 1
"""Of what is under `oracle`."""

MODULE = "oracle-bench"
"""What stands for the test's file in a benchmark's full name."""


def encode_run(run: Run) -> dict[str, Any]:
    """A run as pytest-benchmark has it.

    Raises:
        MissingPackageError: if pytest-benchmark is not installed, which computes the statistics.
    """
    whole = msgspec.to_builtins(run)
    measurements = whole.pop("measurements")
    jobs = {case.name: case for case in run.cases}
    commit = run.commit.rstrip("+")
    return {
        "machine_info": {
            "node": run.machine.get("processor", ""),
            "python_version": run.machine.get("python", ""),
            **run.machine,
            "versions": run.versions,
        },
        "commit_info": {"id": commit, "dirty": run.commit.endswith("+"), "project": "gradient-oracle"},
        "benchmarks": [
            {
                "group": each["case"],
                "name": f"{each['case']}[{each['contestant']}]",
                "fullname": f"{MODULE}::{each['case']}[{each['contestant']}]",
                "params": {"contestant": each["contestant"]},
                "param": each["contestant"],
                "extra_info": {
                    **{name: value for name, value in each.items() if name != "seconds"},
                    "job": jobs[each["case"]].job,
                },
                "options": {
                    "disable_gc": True,
                    "timer": "perf_counter",
                    "min_rounds": 1,
                    "max_time": 0.0,
                    "min_time": 0.0,
                    "warmup": True,
                },
                "stats": _count_stats(each["seconds"], each["iterations"]),
            }
            for each in measurements
        ],
        "datetime": run.started,
        "version": installed_version("pytest-benchmark") or "",
        "oracle": {"format": FORMAT, **whole},
    }


def decode_run(content: dict[str, Any], *, where: str) -> Run:
    """A run from what `encode_run` gave.

    Raises:
        RecordError: if it is something else.
    """
    try:
        whole = dict(content["oracle"])
        if (made := whole.pop("format")) != FORMAT:
            raise RecordError(f"{where}: of format {made}, and this version reads {FORMAT}; measure anew")
        measurements = []
        for benchmark in content["benchmarks"]:
            info = {name: value for name, value in benchmark["extra_info"].items() if name != "job"}
            measurements.append({**info, "seconds": benchmark["stats"]["data"]})
        return msgspec.convert({**whole, "measurements": measurements}, Run)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise RecordError(
            f"{where}: no record of `oracle bench` ({error}); give a file that its --output wrote"
        ) from error


def write_run(run: Run, path: str | os.PathLike[str]) -> None:
    """Write a run, whole or not at all.

    Raises:
        RecordError: if the place cannot be written.
        MissingPackageError: if pytest-benchmark is not installed.
    """
    write_bytes(path, (json.dumps(encode_run(run), indent=1, ensure_ascii=False) + "\n").encode())


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run.

    Raises:
        RecordError: if the file is absent or no record of a run.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path}: no JSON ({error}); give a file that --output wrote") from error
    return decode_run(content, where=str(path))


class Change(msgspec.Struct, frozen=True):
    """One contestant in one case, then and now.

    Args:
        case, contestant: which.
        before, after: the medians, in seconds.
        failure: by what rule it is too slow now; empty if it is not.
    """

    case: str
    contestant: str
    before: float
    after: float
    failure: str = ""

    @property
    def ratio(self) -> float:
        """Now by then."""
        return self.after / self.before


def compare_runs(run: Run, saved: Run, *, fail: Sequence[str] = ()) -> list[Change]:
    """Hold a run against a saved one, by what both measured.

    Args:
        run: the run.
        saved: the saved one.
        fail: pytest-benchmark's `--benchmark-compare-fail`: `median:10%`, `mean:0.001` and so on.

    Raises:
        UsageError: if a rule is none, or the runs have nothing in common.
        MissingPackageError: if there are rules and pytest-benchmark is not installed.
    """
    rules = [_parse_rule(each) for each in fail]
    changes = []
    for now in run.measurements:
        then = saved.find(now.case, now.contestant)
        if then is None:
            continue
        stats = [_count_stats(each.seconds, each.iterations) for each in (now, then)]
        failures = [said for rule in rules if (said := rule.fails(*stats))]
        medians = stats[1]["median"], stats[0]["median"]
        changes.append(Change(now.case, now.contestant, *medians, "; ".join(failures)))
    if not changes:
        raise UsageError("the saved run has no contestant and case in common with this one; give another")
    return changes


def _count_stats(seconds: Sequence[float], iterations: int) -> dict[str, Any]:
    """pytest-benchmark's statistics, and the numbers themselves."""
    stats = _import("stats").Stats()
    for each in seconds:
        stats.update(each)
    counted = {name: _plain(value) for name, value in stats.as_dict().items()}
    return {**counted, "data": list(seconds), "iterations": iterations}


def _plain(value: Any) -> Any:
    # JSON has no infinity, which a quotient of no spread can be.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse_rule(text: str) -> Any:
    try:
        return _import("utils").parse_compare_fail(text)
    except MissingPackageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{text!r} is no rule of pytest-benchmark's; give median:10% or the like: {error}"
        ) from error


def _import(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"pytest_benchmark.{module}")
    except ImportError as error:
        raise MissingPackageError(
            "pytest-benchmark is not installed; install it with `pip install pytest-benchmark`"
        ) from error
