"""Records heard: what of a case a witness moves, and what is made of what the two sides say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from oracle.case import Case, cast_case
from oracle.compare import Comparison
from oracle.errors import RecordError
from oracle.judgement import Hearing, Judgement, choose_directions, judge
from oracle.record import Record
from oracle.storage import write_bytes


def gather_point(
    case: Case, port: Record, oracle: Record
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None], dict[str, np.ndarray]]:
    """What a witness moves: every weight, and the batch's numbers that both sides differentiate by.

    Returns:
        By path (`encoder/cell/kernel`, `batch/source`) the values in float64, and the gradients of the port
        and of the oracle.
    """
    weights, batch = cast_case(case, "float64")
    whole = weights | {f"batch/{name}": array for name, array in batch.items()}
    truths = {}
    for name in whole:
        truth = oracle.tensors.get(f"gradient/{name}")
        if truth is not None and f"gradient/{name}" in port.tensors:
            truths[name] = truth
    point = {name: whole[name] for name in truths}
    return point, {name: port.tensors[f"gradient/{name}"] for name in truths}, truths


def split_point(
    point: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A witness' point as leaves, those that are not moved from `weights`, and as tensors of the batch."""
    leaves = {name: point.get(name, array) for name, array in weights.items()}
    moved = {name.removeprefix("batch/"): array for name, array in point.items() if name not in weights}
    return leaves, moved


def judge_records(
    case: Case,
    comparison: Comparison,
    sides: tuple[Record, Record],
    heard: tuple[Hearing, Hearing],
    *,
    seed: int,
) -> Judgement:
    """Say who is wrong, given what both sides said of the directions that their records choose.

    Args:
        case: what the records are of.
        comparison: the records held against each other.
        sides: the port's record and the oracle's, in float64.
        heard: what the port said, and what the oracle said.
        seed: of the directions.
    """
    port, oracle = sides
    _, gradients, truths = gather_point(case, port, oracle)
    names = [row.name for row in comparison.findings if row.status not in ("missing", "unexpected")]
    loss, ours = port.tensors.get("loss"), oracle.tensors.get("loss")
    return judge(
        choose_directions(gradients, truths, seed=seed),
        *heard,
        seed=seed,
        oracle_gradients=truths,
        forward_findings=[name for name in names if not name.startswith("gradient/")],
        other_findings=[row.name for row in comparison.findings if row.name.startswith("gradient/")],
        recorded_loss=None if loss is None else float(loss),
        oracle_loss=None if ours is None else float(ours),
    )


def write_hearing(hearing: Hearing, path: str | os.PathLike[str]) -> None:
    """Write what a side said to a file, whole or not at all."""
    write_bytes(Path(path), msgspec.msgpack.encode(hearing))


def read_hearing(path: str | os.PathLike[str]) -> Hearing:
    """Read what `write_hearing` wrote.

    Raises:
        RecordError: if the file is absent or damaged.
    """
    try:
        return msgspec.msgpack.decode(Path(path).read_bytes(), type=Hearing)
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"{path}: cannot be read as a hearing: {error}") from error
