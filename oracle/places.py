"""Steps and rows: which of them mean something, and how to say which ones are wrong. NumPy only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from oracle.bridge.sites import Site
from oracle.spec import AttentionNMT, Spec
from oracle.tolerance import FLOAT32_ROUNDING, FLOAT64_BOUND, FLOAT64_ROUNDING

FLOAT32_STEP_FACTOR = 512.0
"""In float32, where there is no yardstick: how many roundings of its largest element a tensor may err. Of 60
small right ports none erred more than 20 at any step, and no layer by itself more than 12."""

FLOAT32_WEIGHT_FACTOR = 16384.0
"""The same of a weight's gradient, a sum over the steps of terms that may cancel: 910 in those ports."""


def bound_of(tensors: Mapping[str, np.ndarray | None]) -> float:
    """What a port's tensors may err where no yardstick was computed, as a part of the largest element."""
    return FLOAT64_BOUND if _is_double(tensors) else FLOAT32_ROUNDING * FLOAT32_STEP_FACTOR


def rounding_of(tensors: Mapping[str, np.ndarray | None]) -> float:
    """One rounding in a port's precision, as a part of the number that is rounded."""
    return FLOAT64_ROUNDING if _is_double(tensors) else FLOAT32_ROUNDING


def _is_double(tensors: Mapping[str, np.ndarray | None]) -> bool:
    dtypes = {array.dtype.name for array in tensors.values() if array is not None and array.dtype.kind == "f"}
    return dtypes <= {"float64"}


def find_lengths(spec: Spec | None, batch: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """The lengths [batch] of the rows in a tensor's time axis, if they have any.

    Args:
        spec: the model.
        batch: the case's.
        name: of a record's tensor.
    """
    local = name.removeprefix("gradient/").removeprefix("step/")
    of_source = local.startswith(("encoder/", "output/encoder", "batch/source", "embedded/source"))
    if of_source or local.endswith("/memory"):
        return batch.get("source_length")
    of_target = ("decoder/", "projection/", "output/", "batch/target", "embedded/target")
    return batch.get("target_length") if local.startswith(of_target) else None


def name_steps(
    tensors: Mapping[str, np.ndarray | None], sites: Sequence[Site]
) -> dict[str, np.ndarray | None]:
    """A record's tensors with its steps named by the paths of leaves, where they had names of variables.

    Args:
        tensors: of a record of variables (`oracle.recorder.Recorder.taps`): `step/encoder/lstm_cell_1/h`.
        sites: which variables are which leaves.
    """
    paths = {}
    for site in sites:
        parts = [whole.partition("#")[0].split("/")[:-1] for whole in site.variables.values()]
        numbers = {whole.partition("#")[2] for whole in site.variables.values()}
        same = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
        shared = "/".join(level[0] for level in same)
        paths[shared + (f"#{numbers.pop()}" if len(numbers) == 1 and numbers != {""} else "")] = site.path

    def rename(name: str) -> str:
        start = next((one for one in ("step/", "gradient/step/") if name.startswith(one)), None)
        if start is None:
            return name
        layer, _, part = name[len(start) :].rpartition("/")
        return f"{start}{paths.get(layer, layer)}/{part}"

    return {rename(name): tensor for name, tensor in tensors.items()}


def count_real(
    spec: Spec | None, batch: Mapping[str, np.ndarray], name: str, shape: Sequence[int]
) -> np.ndarray:
    """Whether an element means something, so shaped that it can be broadcast to a tensor of `shape`.

    A cell of Keras is called on padding too, and the loop drops what it gives: a port may begin a backward
    layer there, or end with it.
    """
    everything = np.ones((1,) * len(shape), bool)
    if name.startswith("gradient/") or not name.startswith("step/"):
        return everything
    site, _, part = name.removeprefix("step/").rpartition("/")
    is_loop = part in ("c", "h", "state_c", "state_h", "input") and site.rpartition("/")[2].startswith("cell")
    goes_on = isinstance(spec, AttentionNMT) and site.startswith("decoder/")
    lengths = find_lengths(spec, batch, name)
    if not is_loop or goes_on or lengths is None or len(shape) < 2:
        return everything
    real = np.arange(shape[1]) < np.asarray(lengths)[:, None]
    return real.reshape(real.shape + (1,) * (len(shape) - 2))


def describe_places(wrong: np.ndarray, *, lengths: np.ndarray | None = None) -> str:
    """Say which steps of which rows are wrong: `steps >= 5 of rows 2 and 3`.

    Args:
        wrong: [batch, time].
        lengths: of the rows, if they have any.
    """
    rows = np.flatnonzero(wrong.any(axis=1))
    if rows.size == 0:
        return ""
    time = wrong.shape[1]
    said = _describe_rows(rows, len(wrong))
    if lengths is not None and not wrong[np.arange(time) < np.asarray(lengths)[:, None]].any():
        return f"steps >= length, {said}"
    steps = np.flatnonzero(wrong.any(axis=0))
    if (wrong[rows][:, steps]).all():
        return f"{_describe_steps(steps, time)} of {said}"
    return f"some of {_describe_steps(steps, time)} of {said}"


def join_words(words: Iterable[object]) -> str:
    """`a, b and c`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def _describe_steps(steps: np.ndarray, time: int) -> str:
    first, last = int(steps[0]), int(steps[-1])
    if len(steps) == 1:
        return f"step {first}"
    if len(steps) == time:
        return "every step"
    if len(steps) == last - first + 1:
        return f"steps >= {first}" if last == time - 1 else f"steps {first} to {last}"
    shown = steps[:_SHOWN]
    return f"steps {join_words(shown)}" if len(steps) <= _SHOWN else f"{len(steps)} steps from {first} on"


def _describe_rows(rows: np.ndarray, count: int) -> str:
    if len(rows) == count:
        return "all rows" if count > 1 else "row 0"
    if len(rows) == 1:
        return f"row {rows[0]}"
    if len(rows) <= _SHOWN:
        return f"rows {join_words(rows)}"
    return f"rows {', '.join(map(str, rows[:_SHOWN]))} and so on ({len(rows)} of {count})"


_SHOWN = 6
"""How many rows or steps are listed."""
