"""The heat map of a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from oracle.localisation import HeatMap
from oracle.report.heat import draw_heat, print_heat

HEAT = HeatMap(
    "forward",
    ("encoder/cell", "decoder/cell"),
    (
        (0.0, 9e-13, 1.0e-11, 3e-7, 0.02, 5.0, None),
        (float("inf"), 0.1, 0.011, 1e-12, 2e-12, 0.5, float("nan")),
    ),
)


def draw(heat: HeatMap, *, width: int) -> list[str]:
    return [line.plain for line in draw_heat(heat, width=width)]


def test_a_character_is_a_decade() -> None:
    assert draw(HEAT, width=80) == [
        "              0    5",
        "encoder/cell  ..b610",
        "decoder/cell  !11.b0!",
    ]


def test_many_steps_are_folded_to_the_width_and_a_long_name_loses_its_beginning() -> None:
    wide = HeatMap("backward", ("encoder/layers_0/backward/cell",), ((1e-3,) * 23 + (1e-6,) * 7,))
    lines = draw(wide, width=28)
    assert max(map(len, lines)) <= 28
    assert "".join(line.split()[-1] for line in lines if "cell" in line) == "3" * 23 + "6" * 7
    numbers = [line.split() for line in lines if line and "cell" not in line]
    assert sum(numbers, []) == ["0", "5", "10", "15", "20", "25"]


def test_colours_say_the_same_where_there_are_any() -> None:
    def say(**options: object) -> str:
        file = io.StringIO()
        console = Console(file=file, width=60, highlight=False, **options)  # pyright: ignore[reportArgumentType]
        print_heat(HEAT, console)
        return file.getvalue()

    plain, coloured = say(), say(force_terminal=True, color_system="truecolor")
    assert "\x1b[" not in plain
    assert "\x1b[" in coloured
    assert plain.isascii()
    assert plain.splitlines()[0] == "forward: errors by layer and step"
    assert "..b610" in plain


def test_an_empty_map_has_no_lines() -> None:
    assert draw(HeatMap("forward", (), ()), width=40) == []
