"""Records in pytest-benchmark's format: written, read back, and held against one another."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from bench.records import compare_runs, decode_run, encode_run, read_run, write_run
from oracle.errors import RecordError, UsageError
from tests.bench.runs import SECONDS, make_run

pytest.importorskip("pytest_benchmark")

NAME = "gradient/lstm/32x32x256[fast]"


@pytest.fixture
def slower():
    """The same run, in which the fast path takes a fifth longer."""
    return make_run({**SECONDS, "fast": tuple(1.2 * each for each in SECONDS["fast"])})


def test_a_run_is_read_back_as_it_was(tmp_path):
    run = make_run(compilations=2)
    write_run(run, tmp_path / "bench.json")
    assert read_run(tmp_path / "bench.json") == run


def test_writing_is_deterministic(tmp_path):
    for name in ("a", "b"):
        write_run(make_run(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_statistics_are_those_of_the_rounds():
    (fast,) = (each for each in encode_run(make_run())["benchmarks"] if each["name"] == NAME)
    stats = fast["stats"]
    assert (stats["median"], stats["rounds"], stats["iterations"]) == (0.1, 3, 2)
    assert (stats["min"], stats["max"]) == (0.08, 0.12)
    assert stats["data"] == [0.08, 0.1, 0.12]


def test_pytest_benchmark_reads_what_is_written(tmp_path, slower):
    write_run(make_run(), tmp_path / "0001_before.json")
    write_run(slower, tmp_path / "0002_after.json")
    code = "from pytest_benchmark.cli import main; main()"
    files = [str(tmp_path / name) for name in ("0001_before.json", "0002_after.json")]
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "--columns=median,rounds", "--group-by=fullname", *files],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert NAME in done.stdout


def test_a_slower_run_breaks_a_rule_of_pytest_benchmark(slower):
    changes = compare_runs(slower, make_run(), fail=["median:10%"])
    broken = [change for change in changes if change.failure]
    assert [change.contestant for change in broken] == ["fast"]
    assert broken[0].ratio == pytest.approx(1.2)
    assert "PercentageRegressionCheck" in broken[0].failure


def test_a_rule_may_be_kept_by_a_slower_run(slower):
    assert not [change for change in compare_runs(slower, make_run(), fail=["median:25%"]) if change.failure]
    assert not [change for change in compare_runs(slower, make_run()) if change.failure]


def test_a_difference_is_a_rule_too(slower):
    assert [change for change in compare_runs(slower, make_run(), fail=["mean:0.01"]) if change.failure]


def test_what_is_no_rule_is_an_error(slower):
    with pytest.raises(UsageError, match="'median' is no rule"):
        compare_runs(slower, make_run(), fail=["median"])


def test_runs_with_nothing_in_common_are_an_error():
    other = make_run(case="gradient/mine.py:build")
    with pytest.raises(UsageError, match="no contestant and case in common"):
        compare_runs(other, msgspec.structs.replace(make_run(), measurements=()))


@pytest.mark.parametrize(
    "content, said",
    [
        ("{}", "no record of `oracle bench`"),
        ("[]", "no record of `oracle bench`"),
        ("{", "no JSON"),
        ('{"benchmarks": [], "oracle": {"format": 99}}', "of format 99"),
        ('{"benchmarks": [{}], "oracle": {"format": 1}}', "no record of `oracle bench`"),
    ],
)
def test_what_is_no_record_is_an_error(tmp_path, content, said):
    (tmp_path / "bench.json").write_text(content)
    with pytest.raises(RecordError, match=said):
        read_run(tmp_path / "bench.json")


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        read_run(tmp_path / "none.json")


def test_a_field_that_is_unknown_is_an_error():
    content = json.loads(json.dumps(encode_run(make_run())))
    content["oracle"]["moon"] = "full"
    with pytest.raises(RecordError, match="moon"):
        decode_run(content, where="bench.json")
