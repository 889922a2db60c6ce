"""A heat map for terminals: how far each layer is off at each step, by decades."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from oracle.localisation import HeatMap

LEAST = 12
"""Errors below 10 to the minus this are none."""

_STYLES = ("white on red3", "white on red3", "black on orange3", "black on yellow3", "black on khaki3")
_FAINT = "black on grey78"


def print_heat(heat: HeatMap, console: Console) -> None:
    """Print a heat map: a line for each layer, a column for each step, folded where they are too many.

    A digit d is an error of up to 10 to the minus d of the layer's largest element, `a` and `b` are 10 and
    11, and 0 is also more than that. Colours say the same where the console has them.
    """
    console.print(f"{heat.direction}: errors by layer and step", style="bold")
    for line in draw_heat(heat, width=console.width):
        console.print(line, soft_wrap=True)
    console.print(
        "d: up to 10^-d of the layer's largest element (a: 10, b: 11; 0: or more); .: none; !: no number",
        style="dim",
        markup=False,
        highlight=False,
    )


def draw_heat(heat: HeatMap, *, width: int) -> Iterator[Text]:
    """The lines of a heat map, without its title and its key.

    Args:
        heat: the map.
        width: of the console. A name that is too long for it loses its beginning.
    """
    steps = max((len(row) for row in heat.errors), default=0)
    names = min(max((len(layer) for layer in heat.layers), default=0), max(width // 2, 8))
    block = max(width - names - 2, 10)
    for first in range(0, steps, block):
        last = min(first + block, steps)
        if first:
            yield Text("")
        yield Text(" " * (names + 2) + _number_steps(first, last), style="dim")
        for layer, row in zip(heat.layers, heat.errors, strict=True):
            shown = layer if len(layer) <= names else "..." + layer[3 - names :]
            line = Text(f"{shown:<{names}}  ")
            for error in (*row, *[None] * (steps - len(row)))[first:last]:
                character, style = _draw_error(error)
                line.append(character, style=style)
            line.rstrip()
            yield line


def _draw_error(error: float | None) -> tuple[str, str]:
    """The character of an error, and its style."""
    if error is None:
        return " ", ""
    if not math.isfinite(error):
        return "!", "bold white on magenta"
    decade = LEAST if error == 0 else max(0, math.floor(-math.log10(error) + 1e-9))
    if decade >= LEAST:
        return ".", "dim"
    character = "0123456789ab"[decade]
    return character, _STYLES[decade] if decade < len(_STYLES) else _FAINT


def _number_steps(first: int, last: int) -> str:
    """The numbers of every fifth step, each beginning above its column."""
    line = [" "] * (last - first)
    for step in range(-(-first // _EVERY) * _EVERY, last, _EVERY):
        number = str(step)
        if step - first + len(number) <= len(line):
            line[step - first : step - first + len(number)] = number
    return "".join(line).rstrip()


_EVERY = 5
"""How many steps lie between two that are numbered."""
