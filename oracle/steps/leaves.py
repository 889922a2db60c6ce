"""Leaves by path, and nested as Flax takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def name_gradients(d_weights: Any, leaves: Sequence[str]) -> dict[str, Any]:
    """The gradients of the leaves, `gradient/<leaf>`, from the nested ones."""
    gradients = {}
    for leaf in leaves:
        node = d_weights
        for part in leaf.split("/"):
            node = node[part]
        gradients[f"gradient/{leaf}"] = node
    return gradients


def flatten_leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Turn nested dictionaries into leaves by path: the inverse of `nest_leaves`."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        nested = isinstance(value, Mapping)
        leaves |= flatten_leaves(value, f"{path}{name}/") if nested else {f"{path}{name}": value}
    return leaves


def nest_leaves(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Turn leaves by path into the nested dictionary that Flax takes."""
    tree: dict[str, Any] = {}
    for path, array in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[name] = array
    return tree
