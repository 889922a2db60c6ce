"""A person's reference with knobs at every call of the mirror: what the oracle gives if the calls are other.

The knobs are arguments of one compiled program. A float of 0 or 1 blends two formulas exactly, since
1*x + 0*y is x for finite numbers, in the gradient too; neutral knobs change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oracle.bridge.mirror.counterfactual.calls import (
    LENGTHS,
    OUTPUT,
    is_float,
    map_arguments,
    map_arrays,
)
from oracle.bridge.mirror.counterfactual.reference import References, call_plainly, label_call
from oracle.bridge.mirror.counterfactual.sites import TURNED, CellSite, Site, find_cells, find_sites, note_in
from oracle.bridge.mirror.mirrored import Mirror, flatten
from oracle.frameworks import precise_jax
from oracle.steps.leaves import nest_leaves

Knobs = dict[str, dict[str, Any]]
"""By kind and name. `state`: how each part of a state is made of those that are meant; `passes`: what of the
gradient passes; `counts`: 1 for a mask or lengths as they are, 0 for none; `cells`: what becomes of the
weights; `reads`: what of the gradient passes to a leaf where it is read outside of the mirror's calls."""


class KnobbedReference:
    """A reference with knobs.

    Args:
        references: the reference.
        shapes: the shapes of the leaves, tied ones at every place.
        leaves: the leaves whose gradients are compared.
        ties: for each leaf that is another one in a second place, that other.
    """

    def __init__(
        self,
        references: References,
        shapes: Mapping[str, tuple[int, ...]],
        leaves: Sequence[str],
        ties: Mapping[str, str],
    ) -> None:
        self._references, self._leaves, self._ties = references, tuple(leaves), ties
        self.sites = find_sites(references)
        self.cells = tuple(find_cells(shapes))
        self._compiled: Callable[..., Any] | None = None

    def neutral(self) -> Knobs:
        """The knobs with which it computes what the reference does."""
        knobs: Knobs = {"state": {}, "passes": {}, "counts": {}, "cells": {}}
        knobs["reads"] = dict.fromkeys(self._leaves, np.float64(1))
        for site in self.sites:
            if site.states:
                knobs["state"][str(site.number)] = np.eye(len(site.states))
                knobs["passes"][f"{site.number}/state"] = np.float64(1)
            if site.inputs:
                knobs["passes"][f"{site.number}/input"] = np.float64(1)
            if site.has_outputs:
                knobs["passes"][f"{site.number}/output"] = np.float64(1)
            for name in site.counted:
                knobs["counts"][f"{site.number}/{name}"] = np.float64(1)
        for cell in self.cells:
            knobs["cells"][cell.path] = {
                "gates": np.eye(cell.gates),
                "bias": np.float64(1),
                "forget": np.float64(0),
                "transposed": np.float64(0),
            }
        return knobs

    def compute(self, knobs: Knobs) -> dict[str, np.ndarray]:
        """The outputs, the loss and the gradients under some knobs, by the names of a record."""
        with precise_jax():
            differentiate = jax.value_and_grad(self._loss, has_aux=True)
            if self._compiled is None:
                self._compiled = jax.jit(differentiate)
            given = (self._references.params, self._references.floats, knobs)
            try:
                result = self._compiled(*given)
            except jax.errors.JAXTypeError:
                # A reference that looks at values runs op by op.
                self._compiled = differentiate
                result = differentiate(*given)
            return self._name(result)

    def compute_other(self, others: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `compute`, of the reference as it is with other arrays that are no floating-point numbers."""

        def loss_of(params: Any, floats: Any) -> Any:
            return self._references.compute(params, floats, call_plainly, others=others)

        with precise_jax():
            differentiate = jax.value_and_grad(loss_of, has_aux=True)
            given = (self._references.params, self._references.floats)
            try:
                return self._name(jax.jit(differentiate)(*given))
            except jax.errors.JAXTypeError:
                return self._name(differentiate(*given))

    def _name(self, result: Any) -> dict[str, np.ndarray]:
        (loss, outputs), gradients = jax.device_get(result)
        tensors = {f"output/{name}": np.asarray(output) for name, output in outputs.items()}
        tensors["loss"] = np.asarray(loss)
        found = flatten(gradients)
        return tensors | {f"gradient/{leaf}": np.asarray(found[leaf]) for leaf in self._leaves}

    def _loss(self, params: Any, floats: Any, knobs: Knobs) -> Any:
        watch = _Turner(self.sites, knobs)

        def change(whole: Any) -> Any:
            called = flatten(self._change_weights(whole, knobs))
            passes = {leaf: knobs["reads"].get(self._ties.get(leaf, leaf)) for leaf in called}
            read = {
                leaf: array if passes[leaf] is None else let_pass(array, passes[leaf])
                for leaf, array in called.items()
            }
            # The calls are given the weights themselves again, told by identity.
            watch.weights = {id(read[leaf]): array for leaf, array in called.items()}
            watch.kept = read
            return nest_leaves(read)

        return self._references.compute(params, floats, watch, change=change)

    def _change_weights(self, whole: Any, knobs: Knobs) -> Any:
        leaves = dict(flatten(whole))
        for cell in self.cells:
            turned = _turn_cell({n: leaves.get(f"{cell.path}/{n}") for n in _LEAVES}, cell, knobs)
            leaves |= {f"{cell.path}/{name}": array for name, array in turned.items()}
        return nest_leaves(leaves)


class _Turner:
    """Makes the calls under some knobs."""

    def __init__(self, sites: Sequence[Site], knobs: Knobs) -> None:
        self._sites, self._knobs = iter(sites), knobs
        self.weights: dict[int, Any] = {}
        self.kept: Any = None

    def __call__(self, mirror: Mirror, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("params") is not None:
            given = jax.tree.map(lambda leaf: self.weights.get(id(leaf), leaf), kwargs["params"])
            kwargs = {**kwargs, "params": given}
        if method not in TURNED:
            return call_plainly(mirror, method, args, kwargs)
        site = next(self._sites)
        options = {name: value for name, value in kwargs.items() if name != "params"}
        labels = label_call(mirror, method, args, options)
        arrays: dict[str, Any] = {}
        map_arguments(labels, args, options, note_in(arrays))
        turned = self._turn(site, arrays)
        args, options = map_arguments(labels, args, options, turned.get)
        result = call_plainly(mirror, method, args, {**kwargs, **options})
        passes = self._knobs["passes"].get(f"{site.number}/output")
        if passes is None:
            return result
        return map_arrays(
            result, OUTPUT, lambda _, array: let_pass(array, passes) if is_float(array) else array
        )

    def _turn(self, site: Site, arrays: Mapping[str, Any]) -> dict[str, Any]:
        turned: dict[str, Any] = {}
        if site.states:
            passes = self._knobs["passes"][f"{site.number}/state"]
            matrix = self._knobs["state"][str(site.number)]
            meant = [let_pass(arrays[name], passes) for name in site.states]
            for row, name in enumerate(site.states):
                same = [i for i, part in enumerate(meant) if part.shape == meant[row].shape]
                turned[name] = sum(matrix[row, i] * meant[i] for i in same)
        for name in site.inputs:
            turned[name] = let_pass(arrays[name], self._knobs["passes"][f"{site.number}/input"])
        for name in site.counted:
            counts, array = self._knobs["counts"][f"{site.number}/{name}"], jnp.asarray(arrays[name])
            whole = site.shapes["input"][1] if name in LENGTHS else True
            turned[name] = jnp.where(counts > 0.5, array, jnp.asarray(whole, array.dtype))
        return turned


def let_pass(array: Any, passes: Any) -> Any:
    """An array whose gradient passes back as far as is said, between 0 and 1."""
    return passes * array + (1 - passes) * jax.lax.stop_gradient(array)


_LEAVES = ("kernel", "recurrent_kernel", "bias")


def _turn_cell(leaves: Mapping[str, Any], cell: CellSite, knobs: Knobs) -> dict[str, Any]:
    """A cell's weights under its knobs: the bias scaled, the gates mixed, the blocks transposed."""
    turned = knobs["cells"][cell.path]

    def mix(array: Any) -> Any:
        blocks = array.reshape(*array.shape[:-1], cell.gates, -1)
        return jnp.einsum("gk,...ku->...gu", turned["gates"], blocks).reshape(array.shape)

    recurrent = leaves["recurrent_kernel"]
    blocks = recurrent.reshape(recurrent.shape[0], cell.gates, -1)
    across = jnp.transpose(blocks, (2, 1, 0)).reshape(recurrent.shape)
    recurrent = turned["transposed"] * across + (1 - turned["transposed"]) * recurrent
    found = {"kernel": mix(leaves["kernel"]), "recurrent_kernel": mix(recurrent)}
    if leaves.get("bias") is not None:
        bias = mix(leaves["bias"]) * turned["bias"]
        if cell.gates == 4:
            units = recurrent.shape[0]
            forget = (np.arange(4 * units) // units == 1).astype(np.float64)
            bias = bias + turned["forget"] * forget
        found["bias"] = bias
    return found
