"""Variables to leaves and back, by name: every variable used once, every leaf filled, or an error."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from oracle.bridge.sites import Site
from oracle.errors import BridgeError


def read_weights(
    sites: Sequence[Site], variables: Mapping[str, np.ndarray], *, where: str
) -> dict[str, np.ndarray]:
    """Carry the variables' values to the oracle's leaves. `where` names their origin in messages.

    Raises:
        BridgeError: if a variable is missing, left over or misshapen; the message names both sides and
            the likely mate.
    """
    check_names(sites, {name: array.shape for name, array in variables.items()}, where=where)
    weights = {}
    for site in sites:
        local = {name: variables[whole] for name, whole in site.variables.items()}
        leaves = site.layout.to_leaves(local)
        weights |= {f"{site.path}/{leaf}": array for leaf, array in leaves.items()}
    return weights


def write_weights(sites: Sequence[Site], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Carry the oracle's leaves to variables: the inverse of `read_weights`."""
    variables = {}
    for site in sites:
        leaves = {leaf: weights[f"{site.path}/{leaf}"] for leaf in site.layout.leaves}
        local = site.layout.to_variables(leaves)
        variables |= {site.variables[name]: array for name, array in local.items()}
    return variables


def read_gradients(
    sites: Sequence[Site], gradients: Mapping[str, np.ndarray | None]
) -> dict[str, np.ndarray | None]:
    """Carry the gradients of the variables to the leaves; None stays None."""
    leaves = {}
    for site in sites:
        local = {name: gradients[whole] for name, whole in site.variables.items()}
        carried = site.layout.gradients_to_leaves(local)
        leaves |= {f"{site.path}/{leaf}": array for leaf, array in carried.items()}
    return leaves


def leaf_variables(sites: Sequence[Site]) -> dict[str, tuple[str, ...]]:
    """For each leaf, the whole names of the variables that hold it."""
    return {
        f"{site.path}/{leaf}": tuple(
            dict.fromkeys(
                site.variables[block.variable] for block in site.layout.blocks if block.leaf == leaf
            )
        )
        for site in sites
        for leaf in site.layout.leaves
    }


def check_names(sites: Sequence[Site], shapes: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """Check that `shapes` names every variable of the sites, with its shape, and no other.

    Raises:
        BridgeError: otherwise; every problem in one message.
    """
    wanted = {
        whole: tuple(site.layout.variables[name]) for site in sites for name, whole in site.variables.items()
    }
    leftover = {name: tuple(shape) for name, shape in shapes.items() if name not in wanted}
    problems = []
    for name, shape in wanted.items():
        if name not in shapes:
            mate = _likely_mate(name, shape, leftover)
            problems.append(f"no variable {name!r} {list(shape)}{mate}")
        elif tuple(shapes[name]) != shape:
            problems.append(f"{name!r} is {list(shapes[name])}, the spec wants {list(shape)}")
    problems += [f"{name!r} {list(shape)} has no place in the spec" for name, shape in leftover.items()]
    if problems:
        raise BridgeError(
            f"{where}: {'; '.join(problems)}; give weights of this model, or its own spec or mapping"
        )


def _likely_mate(name: str, shape: tuple[int, ...], leftover: Mapping[str, tuple[int, ...]]) -> str:
    same_shape = [other for other, other_shape in leftover.items() if other_shape == shape]
    near = difflib.get_close_matches(name, same_shape or list(leftover), n=1, cutoff=0.0)
    if not near:
        return ""
    return f" (maybe {near[0]!r} {list(leftover[near[0]])}, which is left over, is meant)"
