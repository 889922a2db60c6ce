"""The graph of objects in a TF2 checkpoint: which object holds which, and the names that variables had.

Source: `trackable_object_graph.proto`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from oracle.bridge.formats.bundle import VALUE_SUFFIX
from oracle.bridge.formats.weight_file import OPTIMIZER_SLOT
from oracle.bridge.formats.wire import as_message, as_number, as_text, read_fields


def read_full_names(graph: memoryview) -> dict[str, str]:
    """For each variable's name in the checkpoint, the name that the variable had: `dense/kernel`.

    Raises:
        DamageError: if it is no graph of objects.
    """
    names = {}
    for number, _, node in read_fields(graph):
        if number != 1:
            continue
        for field, _, attribute in read_fields(as_message(node)):
            if field != 2:
                continue
            texts = {
                inner: as_text(value)
                for inner, _, value in read_fields(as_message(attribute))
                if inner in (2, 3)
            }
            if texts.get(2) and texts.get(3):
                names[texts[3].removesuffix(VALUE_SUFFIX)] = texts[2]
    return names


_LISTS = {
    "variables",
    "trainable_variables",
    "non_trainable_variables",
    "regularization_losses",
    "keras_api",
    "signatures",
}
"""Attributes that a SavedModel of Keras adds to objects: they list what other attributes hold."""


_LONGEST = 1000
"""The characters of a path by attributes; a variable that is farther away keeps its name."""


def find_attribute_names(graph: memoryview) -> dict[str, str]:
    """For each variable of a SavedModel that is named by a list (`variables/3`), its name by attributes.

    TensorFlow names a variable by its shortest path, and those lists are shorter than
    `layer_with_weights-1/cell/kernel`, the name in a checkpoint of the model. A variable that only lists
    hold keeps its name.

    Raises:
        DamageError: if it is no graph of objects.
    """
    children: list[list[tuple[str, int]]] = []
    keys: dict[int, str] = {}
    for number, _, node in read_fields(graph):
        if number != 1:
            continue
        edges = []
        for field, _, value in read_fields(as_message(node)):
            if field not in (1, 2):
                continue
            inner = {tag: content for tag, _, content in read_fields(as_message(value))}
            if field == 1:
                edges.append((as_text(inner.get(2, memoryview(b""))), as_number(inner.get(1, 0))))
            elif 3 in inner:
                keys[len(children)] = as_text(inner[3]).removesuffix(VALUE_SUFFIX)
        children.append(edges)
    paths = {0: ""}
    queue = [0] if children else []
    # `queue` grows as it is walked: breadth first, so the first path is the shortest.
    for owner in queue:
        # An object is among `layer-3` and `layer_with_weights-2`; a checkpoint calls it by the latter.
        for name, child in sorted(children[owner], key=lambda edge: bool(re.match(r"layer-\d+$", edge[0]))):
            if child in paths or name in _LISTS or not 0 < child < len(children):
                continue
            # Paths repeat their owners' names, which could add up to far more than the file.
            if len(paths[owner]) + len(name) > _LONGEST:
                continue
            paths[child] = f"{paths[owner]}/{_escape(name)}".lstrip("/")
            queue.append(child)
    named = {key: paths[node] for node, key in keys.items() if node in paths}
    found = {key: path for key, path in named.items() if key != path and _LISTS & set(key.split("/"))}
    taken = [found.get(key, key) for key in keys.values()]
    return {key: path for key, path in found.items() if taken.count(path) == 1}


def describe_objects(names: Iterable[str], *, full_names: Mapping[str, str]) -> bytes:
    """The graph of a checkpoint that holds variables of these names: an object for each part of a path.

    `full_names` are those that variables had in the program, where they differ. A slot,
    `<variable>/.OPTIMIZER_SLOT/<optimizer>/<slot>`, belongs to the optimizer's object.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.nodes.add()
    children: dict[tuple[int, str], int] = {}

    def find(path: str) -> int:
        node = 0
        for part in path.split("/"):
            if (node, part) not in children:
                graph.nodes.add()
                children[node, part] = len(graph.nodes) - 1
                graph.nodes[node].children.add(node_id=len(graph.nodes) - 1, local_name=_unescape(part))
            node = children[node, part]
        return node

    for name in names:
        variable, is_slot, slot = name.partition(OPTIMIZER_SLOT)
        if is_slot:
            optimizer, _, slot_name = slot.rpartition("/")
            graph.nodes.add()
            node = len(graph.nodes) - 1
            graph.nodes[find(optimizer)].slot_variables.add(
                original_variable_node_id=find(variable), slot_name=slot_name, slot_variable_node_id=node
            )
        else:
            node = find(name)
        graph.nodes[node].attributes.add(
            name="VARIABLE_VALUE",
            full_name=full_names.get(name, name),
            checkpoint_key=f"{name}{VALUE_SUFFIX}",
        )
    return graph.SerializeToString(deterministic=True)


def _escape(name: str) -> str:
    return name.replace(".", "..").replace("/", ".S")


def _unescape(part: str) -> str:
    """The attribute's own name: a checkpoint's key has `.S` for a slash and two dots for one."""
    return re.sub(r"\.([.S])", lambda match: "/" if match[1] == "S" else ".", part)
