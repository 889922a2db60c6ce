"""A case: a spec with weights and a batch. All randomness of a comparison lives here, in NumPy.

The weights are the oracle's leaves (`encoder/cell/kernel`); the batch is batch-major. Both are float32,
and each side computes on these very numbers in float64 or in float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from oracle import spec as spec_module
from oracle.errors import CaseError, RecordError, SpecError
from oracle.series import Series, cut_windows
from oracle.spec import Spec
from oracle.storage import digest_arrays, read_arrays, write_arrays

FORMAT = 1

SOURCE_TIME, TARGET_TIME = 22, 10
"""The default window: two solar cycles of about eleven years are read, and ten years predicted. No size of
the default batch equals another, so that no exchange of axes can hide."""


@dataclass(frozen=True)
class Case:
    """What both sides compute on.

    Args:
        spec: the model.
        seed: the seed of every random choice in the case.
        weights: float32 leaves, shaped as `weight_shapes(spec)`.
        batch: `source` [batch, src_time, source_features] and `target` [batch, 1 + tgt_time,
            target_features]; with lengths, `source_length` and `target_length` int32 [batch]; with a
            given initial state, `initial_state/c` and `initial_state/h` [batch, units].
        weights_from: where the weights are from, for people.
        data_from: where the batch is from, for people.

    Raises:
        CaseError: if a tensor is missing, extra, misshapen or not finite, or the batch is empty.
    """

    spec: Spec
    seed: int
    weights: Mapping[str, np.ndarray]
    batch: Mapping[str, np.ndarray]
    weights_from: str
    data_from: str

    def __post_init__(self) -> None:
        _check_tensors("weight", self.weights, weight_shapes(self.spec), self.weights_from)
        source, target = self.batch.get("source"), self.batch.get("target")
        if source is None or target is None or source.ndim != 3 or target.ndim != 3:
            raise CaseError("case: the batch needs `source` and `target`, each [batch, time, features]")
        if 0 in source.shape or target.shape[1] < 2:
            raise CaseError(
                f"case: nothing to compute on: source {list(source.shape)}, target {list(target.shape)}; "
                "give at least one row, one source step and two target steps"
            )
        shapes = batch_shapes(self.spec, len(source), source.shape[1], target.shape[1] - 1)
        _check_tensors("batch tensor", self.batch, shapes, self.data_from)
        for name, time in (("source_length", source.shape[1]), ("target_length", target.shape[1] - 1)):
            lengths = self.batch.get(name)
            if lengths is not None and not ((lengths >= 0) & (lengths <= time)).all():
                raise CaseError(f"case: {name} is {lengths.tolist()}; each must be from 0 to {time}")


def weight_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The shapes of the oracle's leaves, by path."""
    shapes: dict[str, tuple[int, ...]] = {}
    for scope, features, cell in (
        ("encoder", spec.source_features, spec.encoder),
        ("decoder", spec.target_features, spec.decoder),
    ):
        shapes[f"{scope}/cell/kernel"] = (features, 4 * cell.units)
        shapes[f"{scope}/cell/recurrent_kernel"] = (cell.units, 4 * cell.units)
        shapes[f"{scope}/cell/bias"] = (4 * cell.units,)
    if spec.projection:
        shapes["projection/kernel"] = (spec.decoder.units, spec.target_features)
        shapes["projection/bias"] = (spec.target_features,)
    return shapes


def batch_shapes(spec: Spec, batch: int, source_time: int, target_time: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the batch's tensors, by name."""
    shapes: dict[str, tuple[int, ...]] = {
        "source": (batch, source_time, spec.source_features),
        "target": (batch, 1 + target_time, spec.target_features),
    }
    if spec.lengths:
        shapes |= {"source_length": (batch,), "target_length": (batch,)}
    if spec.initial_state == "given":
        state = (batch, spec.encoder.units)
        shapes |= {"initial_state/c": state, "initial_state/h": state}
    return shapes


def digest_case(case: Case) -> str:
    """What tells one case's weights and batch from another's: 32 hexadecimal digits."""
    return digest_arrays({}, _flatten(case))


def random_weights(spec: Spec, seed: int) -> dict[str, np.ndarray]:
    """Draw weights: kernels normal with variance 1/rows, biases normal with deviation 0.1."""
    generator = np.random.default_rng([seed, 0])
    return {
        path: (generator.standard_normal(shape) * (0.1 if len(shape) == 1 else shape[0] ** -0.5)).astype(
            np.float32
        )
        for path, shape in weight_shapes(spec).items()
    }


def random_case(
    spec: Spec, *, seed: int = 0, batch_size: int = 3, source_time: int = 5, target_time: int = 4
) -> Case:
    """Draw a whole case: weights and a batch of standard normal numbers."""
    generator = np.random.default_rng([seed, 1])
    shapes = batch_shapes(spec, batch_size, source_time, target_time)
    batch = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
        if not name.endswith("_length")
    }
    if spec.lengths:
        batch |= _draw_lengths(generator, batch_size, source_time, target_time)
    return Case(spec, seed, random_weights(spec, seed), batch, f"random, seed {seed}", f"random, seed {seed}")


def jitter_case(case: Case, number: int) -> Case:
    """The case with every weight and every number of the batch moved to a neighbouring float32 number.

    Up or down is drawn from the case's seed and `number`; number 0 is the case itself. Lengths stay.
    It shows what the roundings of float32 alone do to the results.
    """
    if number == 0:
        return case
    generator = np.random.default_rng([case.seed, 2, number])

    def jitter(array: np.ndarray) -> np.ndarray:
        if not np.issubdtype(array.dtype, np.floating):
            return array
        towards = np.where(generator.random(array.shape) < 0.5, -np.inf, np.inf)
        return np.where(array == 0, array, np.nextafter(array, towards.astype(np.float32)))

    return replace(
        case,
        weights={path: jitter(array) for path, array in sorted(case.weights.items())},
        batch={name: jitter(array) for name, array in sorted(case.batch.items())},
    )


def series_batch(
    spec: Spec,
    series: Series,
    *,
    seed: int,
    batch_size: int,
    source_time: int = SOURCE_TIME,
    target_time: int = TARGET_TIME,
) -> dict[str, np.ndarray]:
    """Cut a batch from a series: the encoder reads the past, the decoder predicts what follows.

    With lengths, a row keeps the last `source_length` steps of its past and the first `target_length`
    steps of its future, moved to the front and padded with zeros. A given initial state is drawn with
    deviation 0.1, since zeros would hide an exchange of c and h.

    Raises:
        CaseError: if the series does not fit the spec or the sizes.
    """
    if series.values.shape[1] != spec.source_features:
        raise CaseError(
            f"{series.name}: {series.values.shape[1]} columns of numbers, but the model reads "
            f"{spec.source_features}; give a table with {spec.source_features} columns after the label"
        )
    generator = np.random.default_rng([seed, 1])
    windows = cut_windows(
        series,
        source_time=source_time,
        target_time=target_time,
        target_features=spec.target_features,
        batch_size=batch_size,
        generator=generator,
    )
    source, target = windows.source, windows.target
    batch: dict[str, np.ndarray] = {}
    if spec.lengths:
        batch = _draw_lengths(generator, batch_size, source_time, target_time)
        source, target = np.zeros_like(source), np.zeros_like(target)
        for row in range(batch_size):
            past, future = batch["source_length"][row], batch["target_length"][row]
            source[row, :past] = windows.source[row, source_time - past :]
            target[row, : 1 + future] = windows.target[row, : 1 + future]
    batch |= {"source": source.astype(np.float32), "target": target.astype(np.float32)}
    if spec.initial_state == "given":
        for name in ("initial_state/c", "initial_state/h"):
            state = 0.1 * generator.standard_normal((batch_size, spec.encoder.units))
            batch[name] = state.astype(np.float32)
    return batch


def write_case(case: Case, path: str | os.PathLike[str]) -> None:
    """Write a case to a safetensors file, whole or not at all.

    Raises:
        RecordError: if the place cannot be written.
    """
    header = {
        "spec": spec_module.encode(case.spec),
        "seed": case.seed,
        "weights_from": case.weights_from,
        "data_from": case.data_from,
    }
    write_arrays(path, _flatten(case), kind="case", format=FORMAT, header=header)


def _flatten(case: Case) -> dict[str, np.ndarray]:
    weights = {f"weight/{name}": array for name, array in case.weights.items()}
    return weights | {f"batch/{name}": array for name, array in case.batch.items()}


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """The case's part of the file's header, for strict decoding."""

    kind: str
    format: int
    spec: dict[str, Any]
    seed: int
    weights_from: str
    data_from: str


def read_case(path: str | os.PathLike[str]) -> Case:
    """Read a case.

    Raises:
        RecordError: if the file is absent, damaged, not a case, or newer than this version reads.
        CaseError: if its tensors do not fit its spec, or are not finite.
    """
    raw, arrays = read_arrays(path, kind="case", format=FORMAT)
    try:
        header = msgspec.convert(raw, _Header)
        spec = spec_module.decode(header.spec)
    except (msgspec.ValidationError, SpecError) as error:
        raise RecordError(f"{path}: its header cannot be used: {error}; write it anew") from error
    groups: dict[str, dict[str, np.ndarray]] = {"weight": {}, "batch": {}}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        if group not in groups or not rest:
            raise RecordError(f"{path}: a case holds no tensor {name!r}; write it anew")
        groups[group][rest] = array
    return Case(spec, header.seed, groups["weight"], groups["batch"], header.weights_from, header.data_from)


def _draw_lengths(
    generator: np.random.Generator, batch_size: int, source_time: int, target_time: int
) -> dict[str, np.ndarray]:
    """Lengths from 0 to the full time; the first row is full and the last one, if another, empty."""
    lengths = {
        "source_length": generator.integers(0, source_time, batch_size, endpoint=True, dtype=np.int32),
        "target_length": generator.integers(0, target_time, batch_size, endpoint=True, dtype=np.int32),
    }
    for row_lengths in lengths.values():
        row_lengths[-1] = 0
    lengths["source_length"][0], lengths["target_length"][0] = source_time, target_time
    return lengths


def _check_tensors(
    kind: str,
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    origin: str,
) -> None:
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise CaseError(f"case: {kind} {', '.join(missing)} is missing; given: {', '.join(tensors)}")
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise CaseError(f"case: the spec has no {kind} {', '.join(extra)}; it has {', '.join(shapes)}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        dtype = np.int32 if name.endswith("_length") else np.float32
        if tensor.shape != shape or tensor.dtype != dtype:
            raise CaseError(
                f"case: {kind} {name} is {tensor.dtype} {list(tensor.shape)}; the spec wants "
                f"{np.dtype(dtype)} {list(shape)}"
            )
        if not np.isfinite(tensor).all():
            where = np.argwhere(~np.isfinite(tensor))[0].tolist()
            raise CaseError(
                f"case: {kind} {name} is not finite at {where} ({tensor[tuple(where)]}); gradients of it "
                f"mean nothing; it comes from {origin}"
            )
