"""The page and the report, which follow from a record alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest

from bench.machine import CPUS, LOAD
from bench.page import render_page, render_report, write_page
from bench.results import CaseFacts, Measurement, Profile
from bench.summary import explain_unmet, show_seconds
from bench.targets import check_targets
from tests.bench.runs import SECONDS, make_run

CASE = "gradient/lstm/32x32x256"


def test_the_same_run_gives_the_same_page_and_figures(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_page(make_run(), tmp_path / name / "benchmarks.md")
    written = (path for path in (tmp_path / "one").rglob("*") if path.is_file())
    files = {path.relative_to(tmp_path / "one") for path in written}
    assert {str(path) for path in files} == {
        "benchmarks.md",
        "benchmarks/gradient-lstm-32x32x256.svg",
        "benchmarks/sweep-T-lstm.svg",
    }
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_figures_of_an_older_run_go(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    old = tmp_path / "benchmarks" / "older.svg"
    old.write_text("<svg/>")
    write_page(make_run(), tmp_path / "benchmarks.md")
    assert not old.exists()


def test_the_page_says_what_was_measured_and_what_was_not():
    page = render_page(make_run(), "benchmarks")
    assert "| fast | 100 ms | 90 ms to 110 ms | 1.25 | 3 s | 1 s | 1.5 s | 1 MiB |" in page
    assert "- tf-session: no speed, it disagrees: gradient/projection/bias: zero" in page
    assert "| sweep-T/lstm | T from 64 to 4,096 | fast | 1.50 |" in page
    assert "met" in page
    assert "not measured" in page


def test_a_target_that_is_not_met_is_explained_by_the_floor():
    parts = {"products": 0.2, "elements": 0.1, "sums": 0.0, "copies": 0.06, "between": 0.04}
    slow = make_run({**SECONDS, "fast": (0.14, 0.15, 0.16)})
    run = msgspec.structs.replace(slow, profiles=(Profile(CASE, "fast", 0.3, 0.16, parts),))
    page = render_page(run, "benchmarks")
    assert f"| {CASE} | fast | 300 ms | 160 ms | 1.88 | 50% | 25% | 0% | 15% | 10% |" in page
    # Half of the 200 ms of `tf.function` is 1.25 times the 80 ms of the floor.
    assert "is 0.75, 0.5 was asked for: 1.25 times the floor's time, where the step takes 1.88." in page
    assert "its products alone 0.94 (products 50%" in page
    assert "makes the step 2.00 times as fast, the floor 2.00 times." in page
    assert "was asked for" in render_report(run, command="oracle bench")


def test_an_exponent_that_is_too_large_is_explained():
    page = render_page(make_run(), "benchmarks")
    assert (
        "4,096 is 1.50, 1.05 was asked for: the step takes - times the floor's time at the shortest" in page
    )
    assert "On one CPU its parts are" not in page
    parts = {"products": 0.06, "elements": 0.03, "sums": 0.0, "copies": 0.01, "between": 0.0}
    looked_into = tuple(
        Profile(f"sweep-T/lstm/{time}", "fast", step, 0.1, parts) for time, step in ((64, 0.15), (4096, 0.3))
    )
    run = msgspec.structs.replace(make_run(), profiles=looked_into)
    assert (
        "On one CPU its parts are products 0.90, elements 0.45, sums 0.00, copies 0.15, between 0.00 of the floor's "
        "time, then products 1.80, elements 0.90"
    ) in render_page(run, "benchmarks")


def test_a_command_that_takes_too_long_is_shown_with_its_spread():
    run = make_run()
    case = "latency/verify"
    measured = (
        Measurement(case, "oracle verify", (2.0, 2.2, 2.5)),
        Measurement(case, "import jax, flax.linen", (1.0, 1.0, 1.0)),
    )
    run = msgspec.structs.replace(
        run,
        cases=(*run.cases, CaseFacts(case, "command", "whole commands")),
        measurements=(*run.measurements, *measured),
    )
    (line,) = [each for each in explain_unmet(run, check_targets(run)) if each.startswith(case)]
    assert "is 2.20, 2 was asked for: 2.2 s and 1 s" in line
    assert line.endswith("The rounds' ratios are 2.00 to 2.50.")


def test_programs_that_are_compiled_are_not_explained_by_times():
    case = "latency/compare"
    run = make_run(compilations=3)
    measured = (
        Measurement(case, "oracle compare", (1.0, 1.0)),
        Measurement(case, "import tensorflow_addons", (1.0, 1.0)),
    )
    run = msgspec.structs.replace(
        run,
        cases=(*run.cases, CaseFacts(case, "command", "whole commands")),
        measurements=(*run.measurements, *measured),
    )
    assert any(each.where == case and each.state == "not met" for each in check_targets(run))
    assert not [each for each in explain_unmet(run, check_targets(run)) if each.startswith(case)]


def test_what_is_met_needs_no_explanation():
    parts = dict.fromkeys(("products", "elements", "sums", "copies", "between"), 0.02)
    run = msgspec.structs.replace(make_run(), profiles=(Profile(CASE, "fast", 0.1, 0.05, parts),))
    assert f"- {CASE}: " not in render_page(run, "benchmarks")


def test_a_table_of_the_page_is_a_table():
    for block in re.findall(r"(?:^\|.*\n)+", render_page(make_run(), "benchmarks"), re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1, block


def test_every_figure_of_the_page_is_written_and_is_svg(tmp_path):
    write_page(make_run(), tmp_path / "benchmarks.md")
    shown = re.findall(r"\]\((benchmarks/[^)]+)\)", (tmp_path / "benchmarks.md").read_text())
    assert len(shown) == 2
    for place in shown:
        root = ElementTree.fromstring((tmp_path / place).read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_floor_is_in_the_figure_of_its_case(tmp_path):
    write_page(make_run(), tmp_path / "benchmarks.md")
    figure = (tmp_path / "benchmarks" / "gradient-lstm-32x32x256.svg").read_text()
    assert "floor 80 ms" in figure
    assert "tf-eager" in figure


class Tags(HTMLParser):
    """The tags that are open, and every attribute that could load something."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "path", "use"})

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href") and value[:1] != "#"]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_report_is_whole_and_loads_nothing():
    report = render_report(make_run(), command="oracle bench --quick <x>")
    tags = Tags()
    tags.feed(report)
    assert not tags.open
    assert not tags.loads
    assert "InvalidArgumentError: &lt;no&gt; | kernel" in report
    assert "oracle bench --quick &lt;x&gt;" in report
    assert report == render_report(make_run(), command="oracle bench --quick <x>")


@pytest.mark.parametrize("load, busy", [("0.40, 9.0, 9.0", False), ("1.40, 0.0, 0.0", True)])
def test_a_machine_that_did_other_work_is_said_to_have(load, busy):
    run = make_run()
    machine = {**run.machine, LOAD: load, CPUS: "2"}
    run = msgspec.structs.replace(run, machine=machine)
    assert ("Other work ran" in render_page(run, "benchmarks")) == busy
    assert ("Other work ran" in render_report(run, command="oracle bench")) == busy


def test_seconds_are_shown_in_the_unit_that_suits():
    assert [show_seconds(each) for each in (None, 12.345, 0.0123, 4.5e-5, 1234.0)] == [
        "-",
        "12.3 s",
        "12.3 ms",
        "45 µs",
        "1234 s",
    ]
