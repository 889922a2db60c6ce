"""The graph of objects in a TF2 checkpoint: which object holds which, and the names that variables had.

Source: `trackable_object_graph.proto`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from oracle.bridge.formats.bundle import VALUE_SUFFIX
from oracle.bridge.formats.weight_file import OPTIMIZER_SLOT
from oracle.bridge.formats.wire import as_message, as_text, read_fields


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


def _unescape(part: str) -> str:
    """The attribute's own name: a checkpoint's key has `.S` for a slash and two dots for one."""
    return re.sub(r"\.([.S])", lambda match: "/" if match[1] == "S" else ".", part)
