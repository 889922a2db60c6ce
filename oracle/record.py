"""A record: what one side computed on one case, and where it came from.

It is the only thing that passes between the two frameworks. A record made by another process, on
another machine or by another TensorFlow is worth the same as one made a moment ago.

The tensors are named by group and path, in the order of computation:
`output/...`, `state/...`, `loss`, `gradient/<leaf>`, `gradient/batch/...`, `gradient/state/...`.
A record that `oracle/recorder.py` wrote has the names of TensorFlow's variables where others have leaves,
and holds the weights and the batch, from which it can be verified anywhere. The file is described in
`docs/record-format.md`.
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
from oracle.slices import Slices, join_slices
from oracle.spec import Spec
from oracle.storage import digest_arrays, read_arrays, write_arrays

FORMAT = 2
"""The version of the record format that is written. Older ones are read forever."""

STEPS = ("step/", "gradient/step/")
"""How the names begin of what each layer read and gave at each step, and of its adjoints: not compared tensor
by tensor, but looked into (`oracle.localise`)."""

Naming = Literal["leaf", "variable"]
"""How the weights and their gradients are named: by the oracle's leaves, or by TensorFlow's variables."""

RecordDtype = Literal["float64", "float32", "float16", "bfloat16", "mixed"]
"""In which precision a record was computed; `mixed` where the loss and the gradients are of several, or the
port has a mixed policy."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a record came from.

    Args:
        side: whether it was computed by the port or by the oracle.
        model: which model, with its variant: `implicit_state/exchanged`.
        mode: how it was run: `eager`, `function`, `xla`, `v1`; for the oracle, `jit`.
        dtype: in which precision.
        framework: `tensorflow` or `jax`.
        versions: the versions of the framework and of the packages that took part.
        python: the version of Python.
        device: what it ran on.
        case: the digest of the weights and the batch (`oracle.case.digest_case`); of those that the record
            holds, if it holds any.
        seed: the case's seed.
        weights: where the case's weights are from.
        data: where the case's batch is from.
        flags: precision and determinism settings that were in force, by name.
    """

    side: Literal["port", "oracle"]
    model: str
    mode: str
    dtype: RecordDtype
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
        spec: the model that was meant; None if the record does not say.
        origin: where the record came from.
        tensors: the computed tensors by name, in the order of computation. A gradient that the
            framework gave as None is None here, and `IndexedSlices` are dense.
        variables: for the gradient of a leaf, the TensorFlow variables that hold it.
        failure: the exception, if the port raised; then there are no tensors.
        weights: what the weights were, by the names that `naming` says; empty if not recorded.
        batch: what the batch was; empty if not recorded.
        naming: whether the weights and their gradients have the names of leaves or of variables.
        sparse: the gradients that were `IndexedSlices`, by the names of their tensors.
        frozen: the weights that the port does not train.
    """

    spec: Spec | None
    origin: Origin
    tensors: Mapping[str, np.ndarray | None]
    variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failure: Failure | None = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    batch: Mapping[str, np.ndarray] = field(default_factory=dict)
    naming: Naming = "leaf"
    sparse: Mapping[str, Slices] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """The record's part of the file's header, for strict decoding. The defaults are those of format 1."""

    kind: str
    format: int
    spec: dict[str, Any] | None
    origin: Origin
    order: list[str]
    none: list[str]
    nonfinite: list[str]
    variables: dict[str, tuple[str, ...]]
    failure: Failure | None
    naming: Naming = "leaf"
    sparse: dict[str, tuple[int, ...]] = {}
    frozen: tuple[str, ...] = ()


def digest_inputs(weights: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> str:
    """What tells one set of weights and batch from another: as `oracle.case.digest_case` of a case."""
    arrays = {f"weight/{name}": array for name, array in weights.items()}
    return digest_arrays({}, arrays | {f"batch/{name}": array for name, array in batch.items()})


def record_port(case: Case, tensors: Mapping[str, Any], *, model: str, mode: str = "eager") -> Record:
    """Make a record of what a port of your own computed on a case.

    Args:
        case: what it computed on.
        tensors: TensorFlow or NumPy tensors by the names that the oracle's record has: `loss`,
            `gradient/encoder/cell/kernel`. A gradient that is None stays None; of `IndexedSlices` the dense
            gradient is compared, repeated rows summed.
        model: what to call the port.
        mode: how it was run, for the record.

    Raises:
        RecordError: if a tensor is no array of numbers, or they are not all float64 or all float32.
    """
    sparse = {name: _to_slices(tensor) for name, tensor in tensors.items() if hasattr(tensor, "dense_shape")}
    arrays = {
        name: sparse[name].densify() if name in sparse else _to_array(name, tensor)
        for name, tensor in tensors.items()
    }
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
    return Record(case.spec, origin, arrays, weights=case.weights, batch=case.batch, sparse=sparse)


def _to_slices(tensor: Any) -> Slices:
    shape = tuple(int(size) for size in np.asarray(tensor.dense_shape))
    return Slices(np.asarray(tensor.values), np.asarray(tensor.indices), shape)


def _to_array(name: str, tensor: Any) -> np.ndarray | None:
    if tensor is None:
        return None
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
        RecordError: if the place cannot be written, or the weights and the batch are not those of the origin.
    """
    _check_inputs(record.weights, record.batch, record.origin, where=str(path))
    dense = {name: array for name, array in record.tensors.items() if name not in record.sparse}
    arrays = {f"tensor/{name}": array for name, array in dense.items() if array is not None}
    for name, slices in record.sparse.items():
        arrays |= {f"sparse/{name}/values": slices.values, f"sparse/{name}/indices": slices.indices}
    arrays |= {f"weight/{name}": array for name, array in record.weights.items()}
    arrays |= {f"batch/{name}": array for name, array in record.batch.items()}
    write_arrays(
        path,
        arrays,
        kind="record",
        format=FORMAT,
        header={
            "spec": None if record.spec is None else spec_module.encode(record.spec),
            "origin": msgspec.to_builtins(record.origin),
            "order": list(record.tensors),
            "none": [name for name, array in record.tensors.items() if array is None],
            "nonfinite": _nonfinite(arrays),
            "variables": {name: list(variables) for name, variables in record.variables.items()},
            "failure": msgspec.to_builtins(record.failure),
            "naming": record.naming,
            "sparse": {name: list(slices.shape) for name, slices in record.sparse.items()},
            "frozen": list(record.frozen),
        },
    )


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read a record, of this format or of an older one.

    NaN and infinity are data in a record, since a port may compute them; but only in the arrays that
    the writer named as such.

    Raises:
        RecordError: if the file is absent, damaged, not a record, newer than this version reads, holds
            other tensors than its header says, or other weights or another batch than its origin says.
    """
    raw, arrays = read_arrays(path, kind="record", format=FORMAT)
    try:
        header = msgspec.convert(raw, _Header)
        spec = None if header.spec is None else spec_module.decode(header.spec)
    except (msgspec.ValidationError, SpecError) as error:
        raise RecordError(f"{path}: its header cannot be used: {error}; record it anew") from error
    if undeclared := set(_nonfinite(arrays)) ^ set(header.nonfinite):
        raise RecordError(
            f"{path}: {sorted(undeclared)} and the header's list of tensors that are not finite disagree; "
            "the file was changed or damaged: record it anew"
        )
    groups = {"tensor": arrays} if header.format == 1 else _sort_arrays(arrays, where=str(path))
    weights, batch = groups.get("weight", {}), groups.get("batch", {})
    sparse = join_slices(groups.get("sparse", {}), header.sparse, where=str(path))
    tensors = groups.get("tensor", {}) | {name: slices.densify() for name, slices in sparse.items()}
    if sorted(header.order) != sorted([*tensors, *header.none]):
        raise RecordError(f"{path}: its header names other tensors than it holds; record it anew")
    if header.format > 1:
        _check_inputs(weights, batch, header.origin, where=str(path))
    return Record(
        spec,
        header.origin,
        {name: tensors.get(name) for name in header.order},
        header.variables,
        header.failure,
        weights,
        batch,
        header.naming,
        sparse,
        header.frozen,
    )


def _sort_arrays(arrays: Mapping[str, np.ndarray], *, where: str) -> dict[str, dict[str, np.ndarray]]:
    groups: dict[str, dict[str, np.ndarray]] = {"tensor": {}, "sparse": {}, "weight": {}, "batch": {}}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        if group not in groups or not rest:
            raise RecordError(f"{where}: a record holds no array {name!r}; record it anew")
        groups[group][rest] = array
    return groups


def _check_inputs(
    weights: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray], origin: Origin, *, where: str
) -> None:
    if (weights or batch) and digest_inputs(weights, batch) != origin.case:
        raise RecordError(
            f"{where}: the weights and the batch in it are not those that its origin names (the digest of "
            "the case differs): it was put together from several; record it anew"
        )


def _nonfinite(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, array in arrays.items() if _is_float(array) and not np.isfinite(array).all()]


def _is_float(array: np.ndarray) -> bool:
    # NumPy does not count ml_dtypes' bfloat16 among its floating-point types.
    return np.issubdtype(array.dtype, np.inexact) or array.dtype.name == "bfloat16"
