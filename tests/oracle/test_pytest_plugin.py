"""The pytest plugin, run by pytest on small tests of its own. Their ports are steps in NumPy, held against JAX."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.jax

SUITE = """
import numpy as np
import pytest

import oracle

KERNEL = np.random.default_rng(2).normal(size=(4, 3))
X = np.random.default_rng(0).normal(size=(5, 4))


def reference(weights, batch):
    return ((batch["x"] @ weights["kernel"]) ** 2).sum()


def step(batch, scale=1.0):
    residual = batch["x"] @ KERNEL
    return (residual**2).sum(), {"kernel": scale * 2 * batch["x"].T @ residual}


def check(step=step, **options):
    oracle.assert_gradients_match(
        step, reference=reference, weights={"kernel": KERNEL}, batch={"x": X}, **options
    )
"""

RIGHT = SUITE + "\n\ndef test_right():\n    check()\n"
WRONG = RIGHT + "\n\ndef test_wrong():\n    check(lambda batch: step(batch, scale=1.5))\n"


@pytest.fixture(scope="module", autouse=True)
def _imported_before():
    """What pytest's own runs import within this process they also drop; a framework is imported once only."""
    from oracle.frameworks import import_jax

    importlib.import_module("oracle.golden")
    import_jax()


def test_nothing_is_imported_unless_a_test_asserts(pytester):
    """Of an ordinary suite the plugin adds nothing but its options and its line."""
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            heavy = {"jax", "tensorflow", "flax", "numpy", "msgspec", "oracle.assertion"} & set(sys.modules)
            assert not heavy, heavy
        """
    )
    # A process of its own: this one has imported everything.
    result = pytester.runpytest_subprocess("-p", "no:jaxtyping", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["gradient-oracle: *, precision f64*"])
    result.stdout.no_fnmatch_line("*= gradient-oracle =*")


def test_match(pytester):
    pytester.makepyfile(RIGHT)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= gradient-oracle =*", "1 of 1 comparisons match"])


def test_mismatch_reads_like_a_diff(pytester):
    pytester.makepyfile(WRONG)
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *GradientMismatchError: *1 of 2 tensors do not match (1 mismatch), first gradient/kernel",
            "E *first divergent, in order of computation: gradient/kernel (tensor 2 of 2)",
            "E *- gradient/kernel: mismatch: at *the port has *, the oracle *",
            "E *tolerance that would have passed: 0.5 of the largest element (allowed: 1e-12)",
            "E *records: *",
            "E *repeat:  pytest *test_mismatch_reads_like_a_diff.py::test_wrong",
            "*= gradient-oracle =*",
            "*::test_wrong: *1 of 2 tensors do not match*",
            "1 of 2 comparisons match",
        ]
    )
    assert list((pytester.path / ".pytest_cache").rglob("port.safetensors"))


@pytest.mark.parametrize("workers", [0, 2])
def test_report(pytester, workers):
    """With xdist the comparisons of every worker are in the one report."""
    pytester.makepyfile(test_one=RIGHT, test_two=WRONG)
    arguments = ["--oracle-report", "report", *(["-n", str(workers)] if workers else [])]
    result = pytester.runpytest_subprocess(*arguments) if workers else pytester.runpytest(*arguments)
    result.assert_outcomes(passed=2, failed=1)
    folder = pytester.path / "report"
    report = json.loads((folder / "report.json").read_text())
    assert not report["matches"]
    assert sorted(comparison["matches"] for comparison in report["comparisons"]) == [False, True, True]
    suites = ElementTree.parse(folder / "junit.xml").getroot()
    assert sorted(suite.get("failures") for suite in suites) == ["0", "0", "1"]
    assert "2 of 3 comparisons match" in (folder / "summary.md").read_text()
    (record,) = folder.glob("records/*test_wrong*/0/port.safetensors")
    assert record.stat().st_size > 0
    result.stdout.fnmatch_lines(["2 of 3 comparisons match", "report: *"])


def test_github_actions(pytester, monkeypatch):
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    pytester.makepyfile(WRONG)
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(["::error title=gradients of *::1 of 2 tensors do not match*"])
    assert "1 of 2 comparisons match" in summary.read_text()


def test_marker(pytester):
    """What it sets holds in the test, where the assertion's own arguments are silent."""
    pytester.makepyfile(
        SUITE
        + """
@pytest.mark.gradient_oracle(seed=7)
class TestSeeds:
    def test_class(self):
        assert check_seed() == 7

    @pytest.mark.gradient_oracle(seed=8)
    def test_own(self):
        assert check_seed() == 8

def test_default():
    assert check_seed() == 0

def check_seed(**options):
    (comparison,) = oracle.assert_gradients_match(
        step, reference=reference, weights={"kernel": KERNEL}, batch={"x": X}, **options
    )
    return comparison.port.seed

@pytest.mark.gradient_oracle(seed=7)
def test_argument_goes_first():
    assert check_seed(seed=9) == 9
"""
    )
    pytester.runpytest().assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("sede=3", "has no sede; it takes precision, mode, seed"), ("3", "takes no positional arguments")],
)
def test_wrong_marker(pytester, arguments, message):
    pytester.makepyfile(
        f"import pytest\n\n@pytest.mark.gradient_oracle({arguments})\ndef test_it():\n    pass\n"
    )
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}*"])


def test_report_must_be_a_folder(pytester):
    (pytester.path / "file").write_text("")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--oracle-report", "file")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--oracle-report file: it is no folder*"])


GOLDEN = (
    SUITE
    + """
from oracle.step_port import record_step

SCALE = 1.0

def test_as_before(gradient_oracle):
    record = record_step(lambda batch: step(batch, SCALE), {"kernel": KERNEL}, {"x": X}, seed=0)
    gradient_oracle.assert_golden(record)
"""
)


def test_golden(pytester):
    """Absent: fails and says how to write it. Written: passes. Changed: fails, until it is written anew."""
    pytester.makepyfile(test_gold=GOLDEN)
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no golden record; pytest --oracle-update writes it*"])
    pytester.runpytest("--oracle-update").assert_outcomes(passed=1)
    golden = pytester.path / "__gradients__" / "test_gold" / "test_as_before.safetensors"
    written = golden.read_bytes()
    pytester.runpytest().assert_outcomes(passed=1)
    pytester.makepyfile(test_gold=GOLDEN.replace("SCALE = 1.0", "SCALE = 1.5"))
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*not as it was; if that is meant, pytest --oracle-update*", "*gradient/kernel*"]
    )
    assert golden.read_bytes() == written
    pytester.runpytest("--oracle-update").assert_outcomes(passed=1)
    pytester.runpytest().assert_outcomes(passed=1)


def test_golden_of_other_inputs(pytester):
    pytester.makepyfile(test_gold=GOLDEN)
    pytester.runpytest("--oracle-update").assert_outcomes(passed=1)
    pytester.makepyfile(test_gold=GOLDEN.replace("default_rng(0)", "default_rng(9)"))
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*were computed on different batch*"])


@pytest.mark.slow
def test_unittest_runs_it_without_the_plugin(tmp_path):
    """By `python -m unittest`: a failure, not an error."""
    suite = SUITE.replace("import pytest\n", "import unittest\n") + (
        "\n\nclass Port(unittest.TestCase):\n"
        "    def test_right(self):\n        check()\n\n"
        "    def test_wrong(self):\n        check(lambda batch: step(batch, 1.5))\n"
    )
    (tmp_path / "test_port.py").write_text(suite)
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "-v", "test_port"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "FAILED (failures=1)" in done.stderr
    assert "first divergent, in order of computation: gradient/kernel" in done.stderr


def test_golden_records_of_two_classes(pytester):
    """Two classes may have a test of one name, and a test two records only by two names."""
    tests = """
class TestA:
    def test_x(self, gradient_oracle):
        gradient_oracle.assert_golden(record_step(step, {"kernel": KERNEL}, {"x": X}, seed=0))

class TestB:
    def test_x(self, gradient_oracle):
        record = record_step(lambda batch: step(batch, 2.0), {"kernel": KERNEL}, {"x": X}, seed=0)
        gradient_oracle.assert_golden(record)
        gradient_oracle.assert_golden(record, name="again")

def test_twice(gradient_oracle):
    record = record_step(step, {"kernel": KERNEL}, {"x": X}, seed=0)
    gradient_oracle.assert_golden(record)
    with pytest.raises(oracle.OracleError, match="tell them apart"):
        gradient_oracle.assert_golden(record)

def test_raised(gradient_oracle):
    def broken(batch):
        raise ValueError("no data")

    with pytest.raises(AssertionError, match="the port raised ValueError: no data"):
        gradient_oracle.assert_golden(record_step(broken, {"kernel": KERNEL}, {"x": X}, seed=0))
"""
    pytester.makepyfile(test_gold=SUITE + "\nfrom oracle.step_port import record_step\n" + tests)
    pytester.runpytest("--oracle-update").assert_outcomes(passed=4)
    written = sorted(path.name for path in (pytester.path / "__gradients__" / "test_gold").iterdir())
    assert written == [
        "TestA.test_x.safetensors",
        "TestB.test_x-again.safetensors",
        "TestB.test_x.safetensors",
        "test_twice.safetensors",
    ]
    pytester.runpytest().assert_outcomes(passed=4)
