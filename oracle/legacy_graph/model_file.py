"""Files that hold a TF1 graph: SavedModels, frozen GraphDefs, MetaGraphs. Read without TensorFlow.

Sources: `saved_model.proto`, `meta_graph.proto`, `variable.proto`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from oracle.bridge.formats.damage import DamageError
from oracle.bridge.formats.wire import BYTES, as_message, as_number, as_text, read_fields, unpack_varints
from oracle.legacy_graph.errors import GraphError

MAXIMUM_SIZE = 2**31
"""Protocol buffers hold no more, so a larger file is no graph."""

FLOATING = {1: "float32", 2: "float64", 14: "bfloat16", 19: "float16"}
"""The numbers of the dtypes that have gradients."""


@dataclass(frozen=True)
class Port:
    """An input or output of a signature.

    Args:
        tensor: the tensor's name, as `source:0`.
        dtype: the number of its dtype in `types.proto`; 0 if it is not said.
        shape: its shape, an unknown size being None; None if even the rank is unknown.
    """

    tensor: str
    dtype: int = 0
    shape: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Signature:
    """What goes in and comes out, by key."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]


@dataclass(frozen=True)
class SavedVariable:
    """What a MetaGraph says of a variable: its node, whether it is trained, and its name in checkpoints."""

    name: str
    is_trainable: bool
    checkpoint_name: str
    offset: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class MetaGraph:
    """A graph and what was saved with it.

    Args:
        tags: the tags of a SavedModel's MetaGraph.
        graph: the GraphDef's bytes.
        signatures: by name.
        variables: by the name of the variable's node.
        loops: how many loops and conds the collections describe; 0 in a frozen graph.
        is_tf2: whether TensorFlow 2 saved it, with its objects.
        data: the MetaGraphDef's bytes; None of a frozen graph, which has none.
    """

    tags: tuple[str, ...] = ()
    graph: memoryview = field(default_factory=lambda: memoryview(b""))
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    variables: Mapping[str, SavedVariable] = field(default_factory=dict)
    loops: int = 0
    is_tf2: bool = False
    data: memoryview | None = None


@dataclass(frozen=True)
class ModelFile:
    """A file or folder that holds graphs.

    Args:
        path: where it is.
        kind: what it is.
        meta_graphs: the graphs in it.
        checkpoint: the prefix of the variables' values, or None if there are none.
    """

    path: str
    kind: str
    meta_graphs: tuple[MetaGraph, ...]
    checkpoint: str | None


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Read a SavedModel's folder, a GraphDef `.pb`, or a MetaGraph `.meta`. Nothing in it is run.

    Raises:
        GraphError: G301 if it is none of them, or is damaged.
    """
    path = Path(path)
    file = path
    if path.is_dir():
        file = path / "saved_model.pb"
        if not file.is_file():
            text = " (text format: save it again in binary)" if (path / "saved_model.pbtxt").is_file() else ""
            raise GraphError("G301", f"{path}: a folder without saved_model.pb{text}; give a SavedModel")
    data = _read(file)
    try:
        if path.is_dir():
            graphs = tuple(_read_saved_model(data))
            if not graphs:
                raise DamageError("it holds no MetaGraph")
            prefix = path / "variables" / "variables"
            has_values = prefix.with_name("variables.index").is_file()
            return ModelFile(str(path), "SavedModel", graphs, str(prefix) if has_values else None)
        if path.suffix == ".meta":
            prefix = path.with_suffix("")
            has_values = prefix.with_name(f"{prefix.name}.index").is_file() or prefix.is_file()
            return ModelFile(
                str(path), "MetaGraph", (_read_meta_graph(data),), str(prefix) if has_values else None
            )
        if path.name == "saved_model.pb":
            return read_model_file(path.parent)
        return ModelFile(str(path), "GraphDef", (MetaGraph(graph=data),), None)
    except DamageError as error:
        raise GraphError("G301", f"{file}: not a {_expected(path)} ({error}); copy it again") from error


def _expected(path: Path) -> str:
    return "SavedModel" if path.is_dir() else "MetaGraph" if path.suffix == ".meta" else "GraphDef"


def _read(file: Path) -> memoryview:
    try:
        size = file.stat().st_size
        if not file.is_file() or size > MAXIMUM_SIZE:
            what = f"{size} bytes, more than any graph's {MAXIMUM_SIZE}" if file.is_file() else "no file"
            raise GraphError("G301", f"{file}: {what}; give a SavedModel's folder, a .pb or a .meta")
        return memoryview(file.read_bytes())
    except FileNotFoundError as error:
        raise GraphError(
            "G301", f"{file}: no such file; give a SavedModel's folder, a GraphDef .pb or a MetaGraph .meta"
        ) from error
    except OSError as error:
        raise GraphError("G301", f"{file}: cannot be read: {error.strerror or error}") from error


def _read_saved_model(data: memoryview) -> list[MetaGraph]:
    return [
        _read_meta_graph(as_message(value))
        for number, kind, value in read_fields(data)
        if number == 2 and kind == BYTES
    ]


def _read_meta_graph(data: memoryview) -> MetaGraph:
    tags: list[str] = []
    graph, signatures, is_tf2 = memoryview(b""), {}, False
    collections: dict[str, list[memoryview]] = {}
    for number, _, value in read_fields(data):
        if number == 1:
            tags += [as_text(text) for inner, _, text in read_fields(as_message(value)) if inner == 4]
        elif number == 2:
            graph = as_message(value)
        elif number == 4:
            key, message = _entry(value)
            collections[key] = [
                as_message(item)
                for kind, _, values in read_fields(message)
                if kind == 2
                for inner, _, item in read_fields(as_message(values))
                if inner == 1
            ]
        elif number == 5:
            key, message = _entry(value)
            # TF2 stores the operation that initialises a model as a signature without inputs or outputs.
            if not key.startswith("__saved_model_"):
                signatures[key] = _read_signature(message)
        elif number == 7:
            is_tf2 = True
    if not len(graph):
        raise DamageError("it holds no graph")
    trained = {_read_variable(item, None).name for item in collections.get("trainable_variables", ())}
    variables = {}
    for name in ("variables", "trainable_variables", "local_variables"):
        for item in collections.get(name, ()):
            variable = _read_variable(item, trained)
            variables.setdefault(variable.name, variable)
    loops = len(collections.get("while_context", ())) + len(collections.get("cond_context", ()))
    return MetaGraph(tuple(tags), graph, signatures, variables, loops, is_tf2, data)


def _entry(value: int | memoryview) -> tuple[str, memoryview]:
    key, message = "", memoryview(b"")
    for number, _, inner in read_fields(as_message(value)):
        if number == 1:
            key = as_text(inner)
        elif number == 2:
            message = as_message(inner)
    return key, message


def _read_signature(data: memoryview) -> Signature:
    ports: tuple[dict[str, Port], dict[str, Port]] = ({}, {})
    for number, _, value in read_fields(data):
        if number in (1, 2):
            key, message = _entry(value)
            ports[number - 1][key] = _read_port(message)
    return Signature(*ports)


def _read_port(data: memoryview) -> Port:
    tensor, dtype, shape = "", 0, None
    for number, _, value in read_fields(data):
        if number == 1:
            tensor = as_text(value)
        elif number == 2:
            dtype = as_number(value)
        elif number == 3:
            shape = read_shape(as_message(value))
    return Port(tensor, dtype, shape)


def read_shape(data: memoryview) -> tuple[int | None, ...] | None:
    """A TensorShapeProto.

    Raises:
        DamageError: if it is none.
    """
    sizes: list[int | None] = []
    for number, _, value in read_fields(data):
        if number == 3 and value:
            return None
        if number == 2:
            size = 0
            for inner, _, part in read_fields(as_message(value)):
                if inner == 1:
                    size = as_number(part)
            sizes.append(None if size < 0 else size)
    return tuple(sizes)


def _read_variable(data: memoryview, trained: set[str] | None) -> SavedVariable:
    name, full, offset, shape = "", "", None, None
    for number, _, value in read_fields(data):
        if number == 1:
            name = as_text(value).partition(":")[0]
        elif number == 4:
            for inner, kind, part in read_fields(as_message(value)):
                if inner == 1:
                    full = as_text(part)
                elif inner in (3, 4):
                    numbers = _numbers(kind, part)
                    if inner == 3:
                        offset = (offset or ()) + numbers
                    else:
                        shape = (shape or ()) + numbers
    return SavedVariable(name, trained is None or name in trained, full or name, offset, shape)


def _numbers(kind: int, value: int | memoryview) -> tuple[int, ...]:
    """Repeated int64, packed or not."""
    if kind != BYTES:
        return (as_number(value),)
    return tuple(int(number) for number in unpack_varints(as_message(value)))
