"""The figures of the HTML report."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import pytest

from oracle.localisation import HeatMap, Place
from oracle.report.figures import describe_heat_map, draw_heat_map, draw_trajectory
from tests.oracle.report.pages import INFINITY, NAN, trajectory

MAP = HeatMap(
    "backward",
    ("encoder/cell", "decoder/cell", "projection"),
    ((1e-3, None, None, 3e-9), (0.5, 1e-4, INFINITY, NAN), (0.0, 2.0)),
)
PLACE = Place("backward", "gradient/h", "decoder/cell", 1, 0, (), 1.0, 2.0)

MARK, NOTHING = "#e0218a", "#c62828"


def test_a_heat_map_hatches_crosses_and_frames() -> None:
    svg = draw_heat_map(MAP, name="one", first=PLACE)
    root = ElementTree.fromstring(svg)
    assert [text for text in MAP.layers if text not in svg] == []
    # Of the first layer a run of two cells, of the last one the steps that it lacks.
    assert svg.count("fill: url(#one-h") == 2
    # Two cells side by side.
    assert svg.count(f"fill: {NOTHING}") == 1
    assert svg.count(MARK) == 1
    assert root.attrib["role"] == "img"
    assert "".join(next(root.iter("desc")).itertext()) == describe_heat_map(MAP)


def test_a_place_outside_the_map_is_not_framed() -> None:
    for place in (
        Place("backward", "t", "elsewhere", 1, 0, (), 1.0, 2.0),
        Place("backward", "t", "projection", 2, 0, (), 1.0, 2.0),
        Place("backward", "t", "projection", None, 0, (), 1.0, 2.0),
        None,
    ):
        assert MARK not in draw_heat_map(MAP, name="one", first=place)


def test_a_heat_map_is_told_in_words() -> None:
    assert describe_heat_map(MAP) == (
        "3 layers by 4 time steps; the largest relative error is 2, in projection at step 1; the port has no "
        "number in 2 cells."
    )
    assert (
        describe_heat_map(HeatMap("forward", (), ())) == "0 layers by 0 time steps; no layer has a time step."
    )
    only = HeatMap("forward", ("a",), ((INFINITY,),))
    assert describe_heat_map(only) == "1 layers by 1 time steps; the port has no number in 1 cell."


@pytest.mark.parametrize("found", [HeatMap("forward", (), ()), HeatMap("forward", ("a", "b"), ((), ()))])
def test_an_empty_heat_map_is_drawn(found: HeatMap) -> None:
    ElementTree.fromstring(draw_heat_map(found, name="one"))


def test_two_layers_of_one_name_keep_their_own_rows() -> None:
    twice = HeatMap("forward", ("a", "a"), ((1e-16,), (1.0,)))
    other = HeatMap("forward", ("a", "a"), ((1.0,), (1e-16,)))
    assert draw_heat_map(twice, name="one") != draw_heat_map(other, name="one")


def test_the_same_figure_is_the_same_bytes_in_every_process() -> None:
    code = (
        "from tests.oracle.report.test_figures import *;"
        "print(draw_heat_map(MAP, name='one', first=PLACE) + draw_trajectory(trajectory(), name='t', title='t'))"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=env
        ).stdout
        for env in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "MPLBACKEND": "pdf"})
    ]
    assert made[0] == made[1]


def test_a_persons_own_style_changes_nothing() -> None:
    plain = draw_heat_map(MAP, name="one")
    with matplotlib.rc_context({"text.usetex": True, "axes.edgecolor": "red", "svg.fonttype": "path"}):
        assert draw_heat_map(MAP, name="one") == plain
        assert matplotlib.rcParams["text.usetex"] is True


def test_figures_take_the_pages_colours_and_are_small() -> None:
    for svg in (draw_heat_map(MAP, name="one"), draw_trajectory(trajectory(), name="two", title="a < b & c")):
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert "black" not in svg
        assert "<text" in svg
        assert len(svg) < 60_000
        assert "xmlns" not in svg


def test_ids_are_the_figures_own() -> None:
    for name in ("one", "two"):
        svg = draw_heat_map(MAP, name=name)
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert all(found.startswith(f"{name}-") for found in ids)
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used <= ids


def test_names_are_no_formulas_and_long_ones_are_cut() -> None:
    long = "decoder/" + "wrapped_" * 20 + "cell"
    svg = draw_heat_map(
        HeatMap("forward", ("$\\alpha$ $", long, "<&>\x00"), ((1.0,), (1.0,), (1.0,))), name="one"
    )
    root = ElementTree.fromstring(svg)
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    assert "$\\alpha$ $" in texts
    assert "<&>" in texts
    assert any("\N{HORIZONTAL ELLIPSIS}" in text and len(text) < 40 for text in texts)


def test_a_map_of_many_steps_stays_small() -> None:
    layers = tuple(f"layers_{n}" for n in range(24))
    for errors in ((1e-3,) * 500, (NAN,) * 500, (None,) * 500):
        assert len(draw_heat_map(HeatMap("forward", layers, (errors,) * 24), name="one")) < 60_000


def test_a_trajectory_of_one_step_is_drawn() -> None:
    svg = draw_trajectory(trajectory(1, None), name="one", title="one")
    ElementTree.fromstring(svg)
