"""A case: a spec with weights and a batch. All randomness of a comparison lives here, in NumPy.

The weights are the oracle's leaves (`encoder/cell/kernel`); the batch is batch-major. Both are float32,
and each side computes on these very numbers in float64 or in float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np

from oracle import spec as spec_module
from oracle.batch import BatchTensor, batch_tensors, random_batch
from oracle.bridge.mirror.spec import MirrorSpec
from oracle.bridge.sites import find_sites
from oracle.errors import CaseError, RecordError, SpecError, UsageError
from oracle.spec import Spec
from oracle.storage import digest_arrays, read_arrays, write_arrays

FORMAT = 1


Dtype = Literal["float64", "float32"]

_DTYPES: dict[str, tuple[Dtype, ...]] = {
    "f64": ("float64",),
    "f32": ("float32",),
    "both": ("float64", "float32"),
}


@dataclass(frozen=True)
class Case:
    """What both sides compute on.

    Args:
        spec: the model.
        seed: the seed of every random choice in the case.
        weights: float32 leaves, shaped as `weight_shapes(spec)`.
        batch: what `oracle.batch.batch_tensors` says.
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
        leaves = {path: BatchTensor(shape) for path, shape in weight_shapes(self.spec).items()}
        _check_tensors("weight", self.weights, leaves, self.weights_from)
        source, target = self.batch.get("source"), self.batch.get("target")
        rank = len(batch_tensors(self.spec, 1, 1, 1)["source"].shape)
        if source is None or target is None or source.ndim != rank or target.ndim != rank:
            axes = "[batch, time, features]" if rank == 3 else "[batch, time] of tokens"
            raise CaseError(f"case: the batch needs `source` and `target`, each {axes}")
        if 0 in source.shape or target.shape[1] < 2:
            raise CaseError(
                f"case: nothing to compute on: source {list(source.shape)}, target {list(target.shape)}; "
                "give at least one row, one source step and two target steps"
            )
        tensors = batch_tensors(self.spec, len(source), source.shape[1], target.shape[1] - 1)
        _check_tensors("batch tensor", self.batch, tensors, self.data_from)


def weight_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The shapes of the oracle's leaves, by path."""
    if isinstance(spec, MirrorSpec):
        return spec.weight_shapes()
    return {
        f"{site.path}/{leaf}": shape
        for site in find_sites(spec, "keras")
        for leaf, shape in site.layout.leaves.items()
    }


def digest_case(case: Case) -> str:
    """What tells one case's weights and batch from another's: 32 hexadecimal digits."""
    return digest_arrays({}, _flatten(case))


def choose_dtypes(precision: str) -> tuple[Dtype, ...]:
    """The dtypes of a precision by name: `f64`, `f32`, or `both`.

    Raises:
        UsageError: if there is none of that name.
    """
    if precision not in _DTYPES:
        raise UsageError(f"no precision {precision!r}; choose from {', '.join(_DTYPES)}")
    return _DTYPES[precision]


def cast_case(case: Case, dtype: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The weights and the batch in the precision that a side computes in. Lengths and tokens stay int32."""
    weights = {path: array.astype(dtype) for path, array in case.weights.items()}
    batch = {
        name: array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in case.batch.items()
    }
    return weights, batch


def check_seed(seed: int) -> None:
    """Raise UsageError unless NumPy can be seeded with it."""
    if seed < 0:
        raise UsageError(f"seed {seed}: give a number from 0 on")


def random_weights(spec: Spec, seed: int) -> dict[str, np.ndarray]:
    """Draw weights: matrices normal with variance 1/rows, vectors with deviation 0.1, scalars with 1."""
    generator = np.random.default_rng([seed, 0])
    weights = {}
    for path, shape in weight_shapes(spec).items():
        deviation = {0: 1.0, 1: 0.1}.get(len(shape)) or shape[0] ** -0.5
        weights[path] = (generator.standard_normal(shape) * deviation).astype(np.float32)
    return weights


def random_case(
    spec: Spec, *, seed: int = 0, batch_size: int = 3, source_time: int = 5, target_time: int = 4
) -> Case:
    """Draw a whole case: weights, and a batch of standard normal numbers or of tokens."""
    batch = random_batch(
        spec, seed=seed, batch_size=batch_size, source_time=source_time, target_time=target_time
    )
    return Case(spec, seed, random_weights(spec, seed), batch, f"random, seed {seed}", f"random, seed {seed}")


def jitter_case(case: Case, number: int) -> Case:
    """The case with every weight and every number of the batch moved to a neighbouring float32 number.

    Up or down is drawn from the case's seed and `number`; number 0 is the case itself. Lengths stay.
    It shows what the roundings of float32 alone do to the results.
    """
    if number == 0:
        return case
    weights, batch = jitter_arrays(case.weights, case.batch, seed=[case.seed, 2, number])
    return replace(case, weights=weights, batch=batch)


def jitter_arrays(
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    *,
    seed: Sequence[int],
    dtype: Dtype = "float32",
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights and batch in a dtype, every number moved to a neighbour, up or down as drawn. Zeros stay."""
    generator = np.random.default_rng(seed)

    def move(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        near = array.astype(dtype)
        towards = np.where(generator.random(array.shape) < 0.5, -np.inf, np.inf).astype(dtype)
        return np.where(near == 0, near, np.nextafter(near, towards))

    return (
        {path: move(array) for path, array in sorted(weights.items())},
        {name: move(array) for name, array in sorted(batch.items())},
    )


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


def _check_tensors(
    kind: str,
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, BatchTensor],
    origin: str,
) -> None:
    if missing := sorted(expected.keys() - tensors.keys()):
        raise CaseError(f"case: {kind} {', '.join(missing)} is missing; given: {', '.join(tensors)}")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise CaseError(f"case: the spec has no {kind} {', '.join(extra)}; it has {', '.join(expected)}")
    for name, wanted in expected.items():
        tensor = tensors[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise CaseError(
                f"case: {kind} {name} is {tensor.dtype} {list(tensor.shape)}; the spec wants "
                f"{wanted.dtype} {list(wanted.shape)}"
            )
        if wanted.bounds is not None:
            least, greatest = wanted.bounds
            if not ((tensor >= least) & (tensor <= greatest)).all():
                where = np.argwhere((tensor < least) | (tensor > greatest))[0].tolist()
                raise CaseError(
                    f"case: {name} is {tensor[tuple(where)]} at {where}; expected from {least} to {greatest}"
                )
        elif not np.isfinite(tensor).all():
            where = np.argwhere(~np.isfinite(tensor))[0].tolist()
            raise CaseError(
                f"case: {kind} {name} is not finite at {where} ({tensor[tuple(where)]}); gradients of it "
                f"mean nothing; it comes from {origin}"
            )
