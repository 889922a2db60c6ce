"""`oracle bench` from start to end, in a process of its own, on sizes that say nothing about speed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from oracle.cli import run
from tests.bench.runs import make_run


def bench(*arguments, timeout=900):
    command = [sys.executable, "-m", "oracle", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture
def saved(tmp_path):
    pytest.importorskip("pytest_benchmark")
    from bench.records import write_run

    write_run(make_run(), tmp_path / "saved.json")
    return tmp_path / "saved.json"


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.jax
def test_a_right_port_has_a_speed_and_a_wrong_one_has_none(tmp_path):
    pytest.importorskip("pytest_benchmark")
    places = {name: tmp_path / f"bench.{name}" for name in ("json", "html", "md")}
    targets = [f"tests.bench.ports:{name}" for name in ("right", "wrong")]
    options = ["--rounds", 3, "--budget", 1, "--threads", 1]
    done = bench(*targets, *options, "-o", places["json"], "--report", places["html"], "--page", places["md"])
    # Something disagrees, which is a finding.
    assert done.returncode == 1, done.stderr
    content = json.loads(places["json"].read_text())
    speeds = {(each["group"], each["param"]) for each in content["benchmarks"]}
    right, wrong = (f"gradient/{target}" for target in targets)
    assert {name for case, name in speeds if case == right} == {
        "tf-eager",
        "tf-function",
        "tf-xla",
        "plain",
    }
    assert {name for case, name in speeds if case == wrong} == {"plain"}
    disagree = [each for each in content["oracle"]["absences"] if each["kind"] == "disagrees"]
    assert {each["contestant"] for each in disagree} == {"tf-eager", "tf-function", "tf-xla"}
    assert all("kernel" in each["reason"] for each in disagree)
    for benchmark in content["benchmarks"]:
        assert len(benchmark["stats"]["data"]) == 3
        assert min(benchmark["stats"]["data"]) > 0
    assert "no speed, it disagrees" in done.stdout
    assert "no speed, it disagrees" in places["md"].read_text()
    assert "<svg" in places["html"].read_text()


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.jax
def test_quick_measures_the_chosen_contestants(tmp_path):
    pytest.importorskip("pytest_benchmark")
    place = tmp_path / "bench.json"
    chosen = ["--contestant", "plain", "--contestant", "fast", "--contestant", "floor-numpy"]
    done = bench(
        "--case", "sweep-B/lstm/8", *chosen, "--rounds", 3, "--budget", 1, "--memory", "--output", place
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(place.read_text())
    assert {each["param"] for each in content["benchmarks"]} == {"plain", "fast", "floor-numpy"}
    assert content["oracle"]["cases"][0]["flops"] > 1e6


def test_a_record_is_read_and_its_page_written(saved, tmp_path, capsys):
    page = tmp_path / "benchmarks.md"
    # A contestant of it disagrees, which is a finding in a record too.
    assert run(["bench", "--read", str(saved), "--page", str(page)]) == 1
    assert "gradient/lstm/32x32x256" in capsys.readouterr().out
    assert "| fast | 100 ms |" in page.read_text()


def test_a_target_that_is_not_met_is_a_finding_on_request(tmp_path):
    pytest.importorskip("pytest_benchmark")
    from bench.records import write_run

    write_run(make_run(absences=False), tmp_path / "now.json")
    read = ["bench", "--quiet", "--read", str(tmp_path / "now.json")]
    assert run(read) == 0
    assert run([*read, "--check-targets"]) == 1


def test_a_rule_that_is_broken_is_a_finding(tmp_path):
    pytest.importorskip("pytest_benchmark")
    from bench.records import write_run
    from tests.bench.runs import SECONDS

    slower = {**SECONDS, "fast": tuple(1.3 * each for each in SECONDS["fast"])}
    write_run(make_run(absences=False), tmp_path / "saved.json")
    write_run(make_run(slower, absences=False), tmp_path / "now.json")
    compare = [
        "bench",
        "--quiet",
        "--read",
        str(tmp_path / "now.json"),
        "--compare",
        str(tmp_path / "saved.json"),
    ]
    assert run(compare) == 0
    assert run([*compare, "--compare-fail", "median:20%"]) == 1
    assert run([*compare, "--compare-fail", "median:40%"]) == 0


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--case", "gradient/none/*"], "no case 'gradient/none/*'"),
        (["--quick", "--full"], "give one of"),
        (["--quick", "--contestant", "fsat"], "did you mean 'fast'"),
        (["--quick", "--threads", "100000"], "--threads 100000"),
        (["--quick", "--rounds", "0"], "--rounds 0"),
        (["--quick", "--budget", "-1"], "--budget -1"),
        (["--quick", "--compare-fail", "median:10%"], "--compare"),
        (["--quick", "--seed", "-1"], "seed -1"),
        (["--quick", "--resume"], "give --output"),
        (["--read", "none.json", "--resume", "--output", "none.json"], "not --read"),
        (["--quick", "--compare", "none.json"], "none.json: cannot be read"),
        (["--quick", "--report", "nowhere/report.html"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(arguments, said, capsys):
    assert run(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err
