"""A record: what one side computed on one case, and where it came from.

It is the only thing that passes between the two frameworks. A record made by another process, on
another machine or by another TensorFlow is worth the same as one made a moment ago.

The tensors are named by group and path, in the order of computation:
`output/...`, `state/...`, `loss`, `gradient/<leaf>`, `gradient/batch/...`, `gradient/state/...`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np

from oracle import spec as spec_module
from oracle.case import Case, digest_case
from oracle.errors import RecordError, SpecError
from oracle.frameworks import installed_version
from oracle.spec import Spec
from oracle.storage import read_arrays, write_arrays

FORMAT = 1
"""The version of the record format that is written. Older ones are read forever."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a record came from.

    Args:
        side: whether it was computed by the port or by the oracle.
        model: which model, with its variant: `implicit_state/exchanged`.
        mode: how it was run: `eager`, `function`, `xla`, `v1`; for the oracle, `jit`.
        dtype: in which precision: `float64` or `float32`.
        framework: `tensorflow` or `jax`.
        versions: the versions of the framework and of the packages that took part.
        python: the version of Python.
        device: what it ran on.
        case: the digest of the case's weights and batch (`oracle.case.digest_case`).
        seed: the case's seed.
        weights: where the case's weights are from.
        data: where the case's batch is from.
        flags: precision and determinism settings that were in force, by name.
    """

    side: Literal["port", "oracle"]
    model: str
    mode: str
    dtype: Literal["float64", "float32"]
    framework: str
    versions: dict[str, str]
    python: str
    device: str
    case: str
    seed: int
    weights: str
    data: str
    flags: dict[str, str] = {}


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exception that a port raised instead of giving gradients."""

    type: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Record:
    """What one side computed.

    Args:
        spec: the model that was meant.
        origin: where the record came from.
        tensors: the computed tensors by name, in the order of computation. A gradient that the
            framework gave as None is None here.
        variables: for the gradient of a leaf, the TensorFlow variables that hold it.
        failure: the exception, if the port raised; then there are no tensors.
    """

    spec: Spec
    origin: Origin
    tensors: Mapping[str, np.ndarray | None]
    variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failure: Failure | None = None


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """The record's part of the file's header, for strict decoding."""

    kind: str
    format: int
    spec: dict[str, Any]
    origin: Origin
    order: list[str]
    none: list[str]
    nonfinite: list[str]
    variables: dict[str, tuple[str, ...]]
    failure: Failure | None


def record_port(case: Case, tensors: Mapping[str, Any], *, model: str, mode: str = "eager") -> Record:
    """Make a record of what a port of your own computed on a case.

    Args:
        case: what it computed on.
        tensors: TensorFlow or NumPy tensors by the names that the oracle's record has: `loss`,
            `gradient/encoder/cell/kernel`. A gradient that is None stays None; `IndexedSlices` are made
            dense, repeated rows summed.
        model: what to call the port.
        mode: how it was run, for the record.

    Raises:
        RecordError: if a tensor is no array of numbers, or they are not all float64 or all float32.
    """
    arrays = {name: _to_array(name, tensor) for name, tensor in tensors.items()}
    dtypes = {str(array.dtype) for array in arrays.values() if array is not None}
    if dtypes not in ({"float64"}, {"float32"}):
        raise RecordError(
            f"record: the tensors are {', '.join(sorted(dtypes)) or 'all None'}; compute every one of them "
            "in float64, or every one in float32"
        )
    origin = Origin(
        side="port",
        model=model,
        mode=mode,
        dtype="float64" if dtypes == {"float64"} else "float32",
        framework="tensorflow",
        versions={"tensorflow": installed_version("tensorflow") or "?"},
        python=platform.python_version(),
        device="?",
        case=digest_case(case),
        seed=case.seed,
        weights=case.weights_from,
        data=case.data_from,
    )
    return Record(case.spec, origin, arrays)


def _to_array(name: str, tensor: Any) -> np.ndarray | None:
    if tensor is None:
        return None
    if hasattr(tensor, "indices") and hasattr(tensor, "dense_shape"):
        dense = np.zeros(np.asarray(tensor.dense_shape), np.asarray(tensor.values).dtype)
        np.add.at(dense, np.asarray(tensor.indices), np.asarray(tensor.values))
        return dense
    array = np.asarray(tensor)
    if not np.issubdtype(array.dtype, np.number):
        raise RecordError(
            f"record: {name} is no array of numbers but {type(tensor).__name__}; give the value that the "
            "port computed, not a symbol of it"
        )
    return array


def write_record(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record to a safetensors file, whole or not at all.

    Raises:
        RecordError: if the place cannot be written.
    """
    arrays = {name: array for name, array in record.tensors.items() if array is not None}
    write_arrays(
        path,
        arrays,
        kind="record",
        format=FORMAT,
        header={
            "spec": spec_module.encode(record.spec),
            "origin": msgspec.to_builtins(record.origin),
            "order": list(record.tensors),
            "none": [name for name, array in record.tensors.items() if array is None],
            "nonfinite": _nonfinite(arrays),
            "variables": {name: list(variables) for name, variables in record.variables.items()},
            "failure": msgspec.to_builtins(record.failure),
        },
    )


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read a record.

    NaN and infinity are data in a record, since a port may compute them; but only in the tensors that
    the writer named as such.

    Raises:
        RecordError: if the file is absent, damaged, not a record, newer than this version reads, or
            holds other tensors than its header says.
    """
    raw, arrays = read_arrays(path, kind="record", format=FORMAT)
    try:
        header = msgspec.convert(raw, _Header)
        spec = spec_module.decode(header.spec)
    except (msgspec.ValidationError, SpecError) as error:
        raise RecordError(f"{path}: its header cannot be used: {error}; record it anew") from error
    if sorted(header.order) != sorted([*arrays, *header.none]):
        raise RecordError(f"{path}: its header names other tensors than it holds; record it anew")
    if undeclared := set(_nonfinite(arrays)) ^ set(header.nonfinite):
        raise RecordError(
            f"{path}: {sorted(undeclared)} and the header's list of tensors that are not finite disagree; "
            "the file was changed or damaged: record it anew"
        )
    tensors = {name: arrays.get(name) for name in header.order}
    return Record(spec, header.origin, tensors, header.variables, header.failure)


def _nonfinite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [
        name
        for name, array in arrays.items()
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all()
    ]
