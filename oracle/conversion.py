"""Weights of one format written in another, under their own names or through a mapping."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.formats.weight_file import GROUPS, WeightFile
from oracle.bridge.formats.writing import choose_format, write_weight_file
from oracle.bridge.mapping import read_weights, write_weights
from oracle.bridge.mapping_file import check_leaves, read_mapping
from oracle.bridge.sites import Site
from oracle.errors import BridgeError

Direction = Literal["leaves", "variables"]


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Args:
        source: what was read, after the mapping.
        path: where it was written.
        format: in which format.
        left_out: what was left out, a line each.
    """

    source: WeightFile
    path: Path
    format: str
    left_out: tuple[str, ...]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: str | None = None,
    mapping: str | os.PathLike[str] | None = None,
    to: Direction | None = None,
    weights_only: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Read weights of any format and write them in another.

    Args:
        source: as `read_weight_file` takes it.
        target: a file, or a checkpoint's prefix.
        format: the target's format; by default what its name says.
        mapping: a TOML file that says which variables are which of the oracle's leaves. Variables become
            leaves, or leaves variables. Without one, names are kept.
        to: which of the two; needed only where the names are the same on both sides.
        weights_only: write the variables alone, without slots, averages, counters and what is no numbers.
        overwrite: replace what is there.

    Raises:
        BridgeError: if the source cannot be read, the mapping does not fit, or the target cannot represent
            something. Nothing is written then.
    """
    weights = read_weight_file(source)
    dropped: tuple[str, ...] = ()
    if mapping is not None:
        weights, dropped = _leave_extras(weights, weights_only=weights_only)
        weights = map_weights(weights, read_mapping(mapping), to=to)
    elif to is not None:
        raise BridgeError(f"{source}: there are no leaves to go to without a mapping; give --mapping")
    path = Path(target)
    chosen = choose_format(path, weights.convention, format)
    left_out = write_weight_file(weights, path, format=chosen, weights_only=weights_only, overwrite=overwrite)
    return Conversion(weights, path, chosen, (*dropped, *left_out))


def map_weights(weights: WeightFile, sites: Sequence[Site], *, to: Direction | None = None) -> WeightFile:
    """Carry variables to the oracle's leaves, or leaves to variables, whichever the names are.

    Raises:
        BridgeError: if names are missing, left over or misshapen, or are the same on both sides and `to`
            is not given.
    """
    direction = to or _find_direction(weights, sites)
    if direction == "leaves":
        leaves = read_weights(sites, weights.variables, where=weights.path)
        return replace(weights, convention="leaves", variables=leaves, full_names={}, layers={})
    check_leaves(sites, {name: array.shape for name, array in weights.variables.items()}, where=weights.path)
    variables = write_weights(sites, weights.variables)
    return replace(weights, convention=_find_naming(variables), variables=variables, full_names={}, layers={})


def _find_direction(weights: WeightFile, sites: Sequence[Site]) -> Direction:
    names = set(weights.variables)
    variables = {name for site in sites for name in site.variables.values()}
    leaves = {f"{site.path}/{leaf}" for site in sites for leaf in site.layout.leaves}
    if variables == leaves == names:
        raise BridgeError(
            f"{weights.path}: the mapping has the same names on both sides; say with --to leaves or --to "
            "variables which way to go"
        )
    return "variables" if len(names & leaves) > len(names & variables) else "leaves"


def _find_naming(names: Sequence[str] | dict[str, object]) -> Literal["tf1", "keras", "places"]:
    """How a mapping's variables are named, as far as it matters to what is written."""
    listed = list(names)
    if all("/vars/" in f"/{name}" for name in listed):
        return "places"
    tf1 = any(
        part.endswith("_cell") or part in ("rnn", "kernel:0") for name in listed for part in name.split("/")
    )
    return "tf1" if tf1 else "keras"


def _leave_extras(weights: WeightFile, *, weights_only: bool) -> tuple[WeightFile, tuple[str, ...]]:
    """The variables alone: a mapping says nothing of what training added."""
    extras = {group: getattr(weights, group) for group in GROUPS[1:] if getattr(weights, group)}
    if not extras:
        return weights, ()
    said = [f"{len(arrays)} {group}, such as {next(iter(arrays))!r}" for group, arrays in extras.items()]
    if not weights_only:
        raise BridgeError(
            f"{weights.path}: a mapping carries the model's variables only, and it holds {'; '.join(said)}; "
            "leave them out with --weights-only, or convert without a mapping"
        )
    return replace(weights, slots={}, averages={}, counters={}), tuple(said)
