"""What a record was computed on, rebuilt for the oracle: the spec, the leaves and the batch.

A record that names leaves is taken as it is. One that names TensorFlow's variables, as `oracle/recorder.py`
writes it, is carried to the leaves: by a mapping, or by the sites of its spec, which may be given, or
inferred from the variables' names and shapes. What was assumed on the way is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from oracle.bridge.mapping import check_names, leaf_variables, read_gradients, read_weights
from oracle.bridge.mapping_file import check_leaves
from oracle.bridge.mirror.spec import MirrorSpec
from oracle.bridge.sites import Convention, Site, find_sites
from oracle.bridge.spec_inference import infer_spec
from oracle.case import Case, weight_shapes
from oracle.errors import BridgeError, CaseError, RecordError
from oracle.record import Record
from oracle.spec import EncoderDecoder, Spec, describe

Arrays = Mapping[str, np.ndarray]

_CELLS = re.compile(r"(^|/)(?:basic_)?lstm_cell(?:_\d+)?(?=/)")
_LAYERS = re.compile(r"^(encoder|decoder)/(?=(?:kernel|recurrent_kernel|bias)$)")
_DENSE = re.compile(r"^(?:dense|output|output_layer|projection)(?:_\d+)?(?=/)")


@dataclass(frozen=True)
class Rebuilt:
    """What the oracle needs, and the port's record in its terms.

    Args:
        spec: the model.
        weights: the leaves, in float64.
        batch: the batch, its floating-point arrays in float64, its whole numbers in int32.
        port: the record, named by leaves.
        notes: what was assumed or left out, for people.
    """

    spec: Spec
    weights: Arrays
    batch: Arrays
    port: Record
    notes: tuple[str, ...] = ()


def check_inputs(record: Record, *, needs_batch: bool = True) -> None:
    """Raise RecordError unless the record holds the weights and the batch that it was computed on.

    Args:
        record: the record.
        needs_batch: whether there must be a batch; a person's own loss may need none.
    """
    for kind, arrays in (("weights", record.weights), ("batch", record.batch)):
        if not arrays and (needs_batch or kind == "weights"):
            raise RecordError(
                f"{record.origin.model}: the record does not hold the {kind}, so it cannot be verified; "
                "record it with oracle/recorder.py or `oracle record`, or compare it with another record"
            )


def rebuild(record: Record, *, spec: Spec | None = None, sites: Sequence[Site] | None = None) -> Rebuilt:
    """Find the spec, carry the weights and the gradients to its leaves, and check that all of it fits.

    Args:
        record: a port's record, with weights and batch.
        spec: the model; by default the record's own, or inferred.
        sites: a mapping of the record's variables; by default those of the spec.

    Raises:
        RecordError: if the record lacks weights or batch, or is of a mirrored model.
        BridgeError: if no spec can be inferred, or the variables are not those of the spec.
        CaseError: if the batch does not fit the spec.
    """
    check_inputs(record)
    spec = spec or record.spec
    if isinstance(spec, MirrorSpec):
        raise RecordError(
            f"{record.origin.model}: the record is of a mirror of live objects, which cannot be made again "
            "without them; give the same loss in JAX with --module my_flax:loss"
        )
    notes: list[str] = []
    port = record
    weights = _widen(record.weights)
    if record.naming == "variable" or sites is not None:
        if sites is None:
            spec, sites = _find_sites(record, spec, notes)
        else:
            spec = spec or _infer_from_leaves(record, sites, notes)
            check_leaves(sites, weight_shapes(spec), where="the mapping")
        port, weights = carry(record, sites)
    if spec is None:
        raise RecordError(
            f"{record.origin.model}: the record does not say which model it is of; give --spec or --module"
        )
    batch = {name: _as_batch(name, array) for name, array in record.batch.items()}
    _check_case(record, spec, weights, batch)
    return Rebuilt(spec, weights, batch, port, tuple(notes))


def carry(record: Record, sites: Sequence[Site]) -> tuple[Record, dict[str, np.ndarray]]:
    """A record of variables in terms of leaves, and the leaves in float64.

    Raises:
        BridgeError: if the variables are not those of the sites; frozen ones may be left over.
    """
    known = {name for site in sites for name in site.variables.values()}
    variables = {
        name: array
        for name, array in _widen(record.weights).items()
        if name in known or name not in record.frozen
    }
    weights = read_weights(sites, variables, where=record.origin.model)
    gradients = {name: f"gradient/{name}" for name in known}
    given = {name: record.tensors[full] for name, full in gradients.items() if full in record.tensors}
    carried = read_gradients(sites, {name: given.get(name) for name in known})
    held = leaf_variables(sites)
    of_leaves = {
        f"gradient/{leaf}": gradient
        for leaf, gradient in carried.items()
        # A leaf without a gradient for a part of it is one that the port does not give.
        if all(name in given for name in held[leaf])
    }
    carried_names = set(gradients.values())
    others = {name: tensor for name, tensor in record.tensors.items() if name not in carried_names}
    return (
        replace(
            record,
            tensors={**others, **of_leaves},
            variables={f"gradient/{leaf}": names for leaf, names in held.items()},
            naming="leaf",
            sparse={},
        ),
        weights,
    )


def _find_sites(record: Record, spec: Spec | None, notes: list[str]) -> tuple[Spec, tuple[Site, ...]]:
    """The spec and its sites, with the record's own names of variables."""
    shapes = {name: array.shape for name, array in record.weights.items() if name not in record.frozen}
    failures = []
    for renamed in _rename(shapes):
        there = {renamed[name]: shape for name, shape in shapes.items()}
        back = {new: old for old, new in renamed.items()}
        for convention in ("tf1", "keras"):
            found = _match_sites(there, convention, spec)
            if isinstance(found, str):
                failures.append(found)
                continue
            matched, sites = found
            if spec is None:
                matched = _complete(matched, record.batch, convention, notes)
                # The forget bias and what else was completed is part of the layout.
                sites = find_sites(matched, convention)
            sites = tuple(
                replace(site, variables={name: back[whole] for name, whole in site.variables.items()})
                for site in sites
            )
            return matched, sites
    # Of several ways to fail the one with least to say is the nearest.
    reason = min(failures, key=len)
    raise BridgeError(
        f"{record.origin.model}: its variables ({', '.join(shapes)}) are not those of "
        f"{'a model that a spec describes' if spec is None else describe(spec)}: {reason}; say which they "
        "are with --mapping, or give the same loss in JAX with --module my_flax:loss"
    )


def _match_sites(
    shapes: Mapping[str, tuple[int, ...]], convention: Convention, spec: Spec | None
) -> tuple[Spec, tuple[Site, ...]] | str:
    """The spec with these variables and its sites, or why there is none."""
    if spec is None:
        inference = infer_spec(shapes, convention)
        return inference.reason if inference.spec is None else (inference.spec, inference.sites)
    try:
        sites = find_sites(spec, convention)
        check_names(sites, shapes, where="its variables")
    except BridgeError as error:
        return str(error).rpartition(";")[0]
    return spec, sites


def _rename(names: Mapping[str, object]) -> list[dict[str, str]]:
    """Ways to read the names: as they are; without their common scope; with Keras' own names of cells."""
    ways = [{name: name for name in names}]
    first = {name.partition("/")[0] for name in names if "/" in name}
    if len(first) == 1 and all("/" in name for name in names):
        ways.append({name: name.partition("/")[2] for name in names})
    for way in list(ways):
        ways.append({name: name_as_port(new) for name, new in way.items()})
    return [way for way in ways if len(set(way.values())) == len(way)]


def name_as_port(name: str) -> str:
    """`encoder/lstm_cell_1/kernel` and `encoder/kernel` as `encoder/cell/kernel`."""
    return _LAYERS.sub(r"\1/cell/", _CELLS.sub(r"\1cell", _DENSE.sub("projection", name)))


def _complete(spec: Spec, batch: Arrays, convention: Convention, notes: list[str]) -> Spec:
    """What the variables do not show of a spec: what the batch shows of it, and what is assumed."""
    if not isinstance(spec, EncoderDecoder):
        return spec
    lengths = "source_length" in batch
    initial_state = "given" if "initial_state/c" in batch else "implicit"
    spec = msgspec.structs.replace(spec, lengths=lengths, initial_state=initial_state)
    assumed = "the decoder starts from the encoder's state"
    if convention == "tf1":
        assumed = f"forget_bias {spec.encoder.forget_bias:g}, and that {assumed}"
    notes.append(
        f"spec inferred from the variables' names and shapes and from the batch: {describe(spec)}; assumed: "
        f"{assumed}; if that is not so, give --spec"
    )
    return spec


def _infer_from_leaves(record: Record, sites: Sequence[Site], notes: list[str]) -> Spec:
    """The spec of a mapping's leaves: an encoder-decoder's are named as Keras' variables are."""
    shapes = {f"{site.path}/{leaf}": shape for site in sites for leaf, shape in site.layout.leaves.items()}
    inference = infer_spec(shapes, "keras")
    if inference.spec is None:
        raise BridgeError(
            f"the mapping's leaves ({', '.join(shapes)}) are not those of an encoder-decoder "
            f"({inference.reason}); give --spec, or the same loss in JAX with --module my_flax:loss"
        )
    return _complete(inference.spec, record.batch, "tf1", notes)


def _check_case(record: Record, spec: Spec, weights: Arrays, batch: Arrays) -> None:
    """Check shapes, bounds and finiteness as a case is checked, in the dtypes that a case has."""
    with np.errstate(over="ignore"):
        leaves = {path: array.astype(np.float32) for path, array in weights.items()}
        source = {
            name: array.astype(np.float32) if array.dtype.kind == "f" else array
            for name, array in batch.items()
        }
    origin = record.origin
    Case(spec, origin.seed, leaves, source, origin.weights, origin.data)


def _as_batch(name: str, array: np.ndarray) -> np.ndarray:
    """A tensor of a batch as the oracle takes it: in float64, or in int32."""
    if _is_float(array):
        return array.astype(np.float64)
    narrow = array.astype(np.int32)
    if not np.array_equal(narrow, array):
        raise CaseError(
            f"batch: {name} is {array.dtype} and has numbers beyond int32; no token or length is such"
        )
    return narrow


def _widen(arrays: Arrays) -> dict[str, np.ndarray]:
    """In float64, so that a layout that shifts a bias does not round."""
    return {name: array.astype(np.float64) if _is_float(array) else array for name, array in arrays.items()}


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
