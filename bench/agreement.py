"""Whether a contestant computed what the oracle computes, before it is given a speed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.prepared import LEARNING_RATE
from bench.worker import FORMAT, KIND
from oracle.case import Case, digest_case
from oracle.compare import Comparison, Row, compare_records
from oracle.decoding import DecodeOptions, make_decoding
from oracle.record import Origin, Record, read_record
from oracle.spec import Spec
from oracle.storage import read_arrays
from oracle.tolerance import FLOAT32_FACTOR

Tensors = Mapping[str, np.ndarray | None]

MOVE_TOLERANCE = 1e-3
"""What a parameter's first move by Adam may err, in parts of the learning rate, which is what it moves by."""


class DisagreementError(Exception):
    """A contestant that computed something else, and what."""


def read_result(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray | None], dict[str, np.ndarray]]:
    """What a worker wrote of a contestant: what it computed, and the leaves after a step of Adam.

    Raises:
        RecordError: if the file is absent or damaged.
    """
    header, arrays = read_arrays(path, kind=KIND, format=FORMAT)
    moved = {name.removeprefix("moved/"): a for name, a in arrays.items() if name.startswith("moved/")}
    computed: dict[str, np.ndarray | None] = dict.fromkeys(header["none"])
    computed |= {name: array for name, array in arrays.items() if not name.startswith("moved/")}
    return computed, moved


def check_gradients(case: Case, contestant: str, computed: Tensors, truths: Sequence[Tensors]) -> str:
    """Hold float32 gradients against the oracle's in float64, by its own float32 error.

    Args:
        case: what was computed on.
        contestant: its name.
        computed: `loss` and `gradient/<leaf>`.
        truths: the same by the oracle: in float64, then its runs in float32.

    Returns:
        What was compared, for people.

    Raises:
        DisagreementError: if one is wrong, missing, or more than there is.
    """
    origin = _describe(contestant, digest_case(case), case)
    records = [
        Record(case.spec, msgspec.structs.replace(origin, side="oracle", dtype=dtype), tensors)
        for tensors, dtype in zip(truths, ["float64", *["float32"] * (len(truths) - 1)], strict=True)
    ]
    return _judge(compare_records(Record(case.spec, origin, computed), records[0], yardstick=records[1:]))


def check_live(contestant: str, computed: Tensors, run: Path, truths: Sequence[Path]) -> str:
    """As `check_gradients`, of a live port.

    Args:
        contestant: its name.
        computed: `loss` and `gradient/<leaf>`.
        run: the record that the contestant's process made of the port, for what it was computed on.
        truths: the oracle's records, in float64 and then in float32.

    Raises:
        DisagreementError: if one is wrong, missing, or more than there is.
        RecordError: if the two processes made different weights or batches of the port.
    """
    made, (truth, *yardstick) = read_record(run), map(read_record, truths)
    names = [name for name in computed if name == "loss" or name.startswith("gradient/")]
    origin = msgspec.structs.replace(made.origin, model=contestant)
    record = Record(made.spec, origin, {name: computed[name] for name in names}, made.variables)
    return _judge(compare_records(record, truth, yardstick=yardstick, only=["loss"]))


def check_beams(computed: Tensors, truth: Tensors, steps: int) -> str:
    """Hold the tokens of a beam search against the oracle's in float64: all must be the same.

    Raises:
        DisagreementError: if one is not.
    """
    options = DecodeOptions(maximum_iterations=steps)
    # Of two searches, no greedy one is at hand: its place is taken by the first beam.
    beams, expected = (
        make_decoding(np.asarray(each["ids"])[:, :, 0], each["ids"], options).beams
        for each in (computed, truth)
    )
    if beams.shape != expected.shape:
        raise DisagreementError(f"its tokens are {list(beams.shape)}, the oracle's {list(expected.shape)}")
    wrong = int((beams != expected).any(axis=1).sum())
    if wrong:
        raise DisagreementError(
            f"{wrong} of {beams.shape[0] * beams.shape[2]} sequences differ from the oracle's"
        )
    return f"{beams.shape[0] * beams.shape[2]} sequences, all the same"


def check_move(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    gradients: Tensors,
    *,
    epsilon: float,
    clip: float | None,
) -> None:
    """Hold the first step of Adam against its formula on the contestant's own gradients.

    At the first step m is (1 - beta_1) g and v is (1 - beta_2) g^2, so that a parameter moves by
    -lr g / (|g| + epsilon / sqrt(1 - beta_2)). Source: `tf.keras.optimizers.Adam`.

    Raises:
        DisagreementError: if a leaf moved otherwise.
    """
    arrays = {name: np.asarray(gradients[f"gradient/{name}"], np.float64) for name in before}
    norm = float(np.sqrt(sum(float(np.sum(np.square(array))) for array in arrays.values())))
    scale = 1.0 if clip is None else min(1.0, clip / norm)
    for name, array in arrays.items():
        gradient = array * scale
        move = -LEARNING_RATE * gradient / (np.abs(gradient) + epsilon / np.sqrt(1 - 0.999))
        error = np.abs(after[name].astype(np.float64) - before[name] - move)
        # What is stored is rounded, and of some layouts so is what the bridge adds to it.
        rounding = 4 * np.finfo(np.float32).eps * (1 + np.abs(before[name]))
        if not (error <= MOVE_TOLERANCE * LEARNING_RATE + rounding).all():
            raise DisagreementError(
                f"its step of Adam moves {name} by another amount than the formula: {error.max():.2g} too far"
            )


def _judge(comparison: Comparison) -> str:
    if comparison.matches:
        needed = comparison.needed
        most = (
            ""
            if needed is None
            else f", at most {needed:.2g} of {FLOAT32_FACTOR:g} times the oracle's own error"
        )
        return f"{len(comparison.rows)} tensors in float32{most}"
    shown = "; ".join(_describe_row(row) for row in comparison.findings[:3])
    more = len(comparison.findings) - 3
    raise DisagreementError(shown + (f"; and {more} more" if more > 0 else ""))


def _describe_row(row: Row) -> str:
    if row.status == "mismatch" and row.needed is not None:
        errs = f"{row.needed:.3g} times the oracle's own float32 error away"
        return f"{row.name} is {errs}, and may be {FLOAT32_FACTOR:g}"
    return f"{row.name}: {row.status}{', ' + row.note if row.note else ''}"


def _describe(contestant: str, digest: str, case: Case) -> Origin:
    return Origin(
        side="port",
        model=contestant,
        mode="benchmark",
        dtype="float32",
        framework="",
        versions={},
        python=platform.python_version(),
        device="",
        case=digest,
        seed=case.seed,
        weights=case.weights_from,
        data=case.data_from,
    )


def describe_spec(spec: Spec | None) -> str:
    """The model in a line; empty without a spec."""
    from oracle.spec import describe

    return "" if spec is None else describe(spec)
