"""The pytest plugin: options, a fixture and a marker for gradient assertions, and a summary of them.

It is loaded in every run of pytest where the package is installed, so it imports neither JAX nor TensorFlow,
and nothing else of the package until a test asserts something.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from oracle.assertion_context import AssertionContext
    from oracle.compare import Comparison

MARKER = "gradient_oracle"
SETTINGS = ("precision", "mode", "seed")
"""What the marker may set."""

_ATTRIBUTE = "gradient_oracle_comparisons"
_CONTEXT: pytest.StashKey[AssertionContext] = pytest.StashKey()
_FAILED: pytest.StashKey[set[str]] = pytest.StashKey()
_COLLECTED: pytest.StashKey[list[tuple[str, dict[str, Any]]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradient-oracle")
    group.addoption(
        "--oracle-report",
        metavar="DIR",
        type=Path,
        default=None,
        help="write report.json, junit.xml, summary.md and the records of mismatches to this folder",
    )
    group.addoption(
        "--oracle-precision",
        choices=("f64", "f32", "both"),
        default="f64",
        help="what ports that are built for an assertion compute in (default: f64)",
    )
    group.addoption(
        "--oracle-update",
        action="store_true",
        help="write the golden records that tests compare with, instead of comparing",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(precision='f64', mode='eager', seed=0): how oracle.assert_gradients_match runs in a test",
    )
    config.stash[_COLLECTED] = []
    config.stash[_FAILED] = set()
    report = config.getoption("--oracle-report")
    if report is not None and report.exists() and not report.is_dir():
        raise pytest.UsageError(f"--oracle-report {report}: it is no folder; give one, or a new path")


def pytest_report_header(config: pytest.Config) -> str:
    version = importlib.metadata.version("gradient-oracle")
    report = config.getoption("--oracle-report")
    to = "" if report is None else f", report in {report}"
    return f"gradient-oracle: {version}, precision {config.getoption('--oracle-precision')}{to}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers(MARKER):
            if marker.args or (unknown := sorted(set(marker.kwargs) - set(SETTINGS))):
                wrong = "takes no positional arguments" if marker.args else f"has no {', '.join(unknown)}"
                raise pytest.UsageError(
                    f"{item.nodeid}: the marker {MARKER} {wrong}; it takes {', '.join(SETTINGS)} by name"
                )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    from oracle.assertion_context import AssertionContext, use_context

    settings: dict[str, Any] = {"precision": item.config.getoption("--oracle-precision")}
    for marker in reversed(list(item.iter_markers(MARKER))):
        settings |= marker.kwargs
    context = AssertionContext(**settings, folder=_record_folder(item), test=item.nodeid)
    item.stash[_CONTEXT] = context
    with use_context(context):
        return (yield)


def _record_folder(item: pytest.Item) -> Path | None:
    """Where the records of a test's mismatches go: the report's folder, or pytest's cache."""
    name = re.sub(r"[^\w.=-]+", "-", item.nodeid).strip("-")[-120:]
    report = item.config.getoption("--oracle-report")
    if report is not None:
        return report.resolve() / "records" / name
    if not hasattr(item.config, "cache"):
        return None
    return item.config.rootpath / item.config.getini("cache_dir") / "d" / "gradient-oracle" / name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    context = item.stash.get(_CONTEXT, None)
    if context is not None and context.comparisons and call.when == "teardown":
        import msgspec

        # Plain values, since with xdist the report travels to another process.
        plain = [msgspec.to_builtins(comparison) for comparison in context.comparisons]
        setattr(report, _ATTRIBUTE, plain)
    return report


class _Collector:
    """What gathers the comparisons of all tests in the process that reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._config.stash[_FAILED].add(report.nodeid)
        for plain in getattr(report, _ATTRIBUTE, ()):
            self._config.stash[_COLLECTED].append((report.nodeid, plain))


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Collector(session.config), "gradient-oracle-collector")


def _comparisons(config: pytest.Config) -> list[tuple[str, Comparison]]:
    if not config.stash[_COLLECTED]:
        return []
    import msgspec

    from oracle.compare import Comparison

    return [(test, msgspec.convert(plain, Comparison)) for test, plain in config.stash[_COLLECTED]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    folder = config.getoption("--oracle-report")
    if hasattr(config, "workerinput") or folder is None:
        return
    from oracle.report import RENDERERS
    from oracle.report.github import render_summary
    from oracle.storage import write_bytes

    comparisons = [comparison for _, comparison in _comparisons(config)]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "report.json", RENDERERS["json"](comparisons).encode())
    write_bytes(folder / "junit.xml", RENDERERS["junit"](comparisons).encode())
    write_bytes(folder / "summary.md", render_summary(comparisons).encode())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = _comparisons(config)
    if not found:
        return
    from oracle.report.github import render_annotations, render_summary
    from oracle.report.verdict import name_port, state_verdict, summarise

    comparisons = [comparison for _, comparison in found]
    # A test that expects a mismatch and passes needs no attention.
    wrong = [(test, one) for test, one in found if test in config.stash[_FAILED] and not one.matches]
    terminalreporter.section("gradient-oracle")
    for test, comparison in wrong:
        terminalreporter.line(f"{test}: {name_port(comparison)}: {state_verdict(comparison)}")
    terminalreporter.line(summarise(comparisons))
    if (folder := config.getoption("--oracle-report")) is not None:
        terminalreporter.line(f"report: {folder.resolve()}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        terminalreporter.write(render_annotations([comparison for _, comparison in wrong]))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render_summary(comparisons))


@pytest.fixture
def gradient_oracle(request: pytest.FixtureRequest) -> Any:
    """Gradient assertions with golden records: an `oracle.golden.GradientOracle`."""
    from oracle.golden import GradientOracle

    folder = request.path.parent / "__gradients__" / request.path.stem
    # With its class, for two may have a test of one name.
    test = request.node.nodeid.partition("::")[2].replace("::", ".")
    name = re.sub(r"[^\w.=-]+", "-", test)
    return GradientOracle(folder, name, update=request.config.getoption("--oracle-update"))
