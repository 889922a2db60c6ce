"""The oracle's trajectory: training in JAX, from given weights, on given batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from oracle.bridge.layout import Layout
from oracle.bridge.mapping import read_weights, write_weights
from oracle.bridge.sites import Convention, Site, find_sites
from oracle.case import Case, cast_case
from oracle.frameworks import import_jax, precise_jax
from oracle.optimizer import Optimizer
from oracle.spec import AttentionNMT
from oracle.steps import attention_nmt, encoder_decoder
from oracle.steps.leaves import nest_leaves
from oracle.steps.optimizers import build_optimizer
from oracle.trajectory import Gradient, Slices, Step, gradient_norm


def step_oracle(
    cases: Sequence[Case], *, optimizer: Optimizer, convention: Convention, l2: float = 0.0
) -> Iterator[Step]:
    """Train the spec's Flax model in float64: a step on each case's batch, from the first case's weights.

    What the optimizer trains are the port's variables, not the leaves: norms are taken of a variable, and a
    decay takes from what the variable holds, as a forget bias that is baked in.

    Args:
        cases: one a step, all of one spec and of batches of one shape.
        optimizer: what trains.
        convention: how the port's variables are named and laid out.
        l2: the rate of `tf.nn.l2_loss` of every variable that is added to the loss.
    """
    jax = import_jax()
    spec = cases[0].spec
    module = attention_nmt if isinstance(spec, AttentionNMT) else encoder_decoder
    sites = find_sites(spec, convention)
    variables = write_weights(sites, cast_case(cases[0], "float64")[0])
    with precise_jax():
        compute = jax.jit(_differentiate(module.differentiate(spec)))
    training = _Training(optimizer, variables)
    for number, case in enumerate(cases):
        _, batch = cast_case(case, "float64")
        variables = training.variables
        leaves = read_weights(sites, variables, where="the oracle's variables")
        # JAX's precision is a setting of the thread: it is left before the next step is asked for.
        with precise_jax():
            loss, d_weights = jax.device_get(compute(nest_leaves(leaves), batch))
        gradients = _carry_back(sites, d_weights)
        loss = float(loss)
        if l2:
            loss += l2 * sum(float(np.sum(np.square(array))) / 2 for array in variables.values())
            gradients = {name: gradient + l2 * variables[name] for name, gradient in gradients.items()}
        yield training.step(number + 1, loss, gradients)


def step_optimizer(
    optimizer: Optimizer, initial: Mapping[str, np.ndarray], gradients: Sequence[Mapping[str, Gradient]]
) -> Iterator[Step]:
    """Drive an optimizer's counterpart alone, by given gradients, from given float64 parameters."""
    training = _Training(optimizer, initial)
    for number, each in enumerate(gradients):
        yield training.step(number + 1, None, each)


class _Training:
    """The parameters and the optimizer's state, from step to step."""

    def __init__(self, optimizer: Optimizer, initial: Mapping[str, np.ndarray]) -> None:
        jax = import_jax()
        self.variables = {name: np.asarray(array, np.float64) for name, array in initial.items()}
        with precise_jax():
            transformation = build_optimizer(optimizer)
            self._state = transformation.init(self.variables)
            self._update = jax.jit(transformation.update)

    def step(self, number: int, loss: float | None, gradients: Mapping[str, Gradient]) -> Step:
        """Do one step, and say what is so after it."""
        import optax

        from jax_models.optimizers import IndexedSlices, read_slots

        jax = import_jax()
        given = {
            name: IndexedSlices(*gradient) if isinstance(gradient, Slices) else gradient
            for name, gradient in gradients.items()
        }
        with precise_jax():
            updates, self._state = self._update(given, self._state, self.variables)
            updated = optax.apply_updates(self.variables, updates)
            self.variables = {name: np.asarray(array) for name, array in jax.device_get(updated).items()}
            slots, scalars = jax.device_get(read_slots(self._state))
        tensors = {
            f"slot/{slot}/{name}": np.asarray(array)
            for slot, tree in slots.items()
            for name, array in tree.items()
        }
        tensors |= {f"slot/{name}": np.asarray(scalar) for name, scalar in scalars.items()}
        tensors |= {f"parameter/{name}": array for name, array in self.variables.items()}
        return Step(number, loss, gradient_norm(gradients.values()), tensors)


def _differentiate(step: Any) -> Any:
    """The loss and the gradients of the leaves alone."""

    def compute(weights: Any, batch: Any) -> tuple[Any, Any]:
        computed = step(weights, batch)
        return computed["loss"], computed["d_weights"]

    return compute


def _carry_back(sites: Sequence[Site], d_weights: Any) -> dict[str, np.ndarray]:
    """The gradients of the variables from those of the leaves: blocks are copies, shifts have no part."""
    named: dict[str, np.ndarray] = {}
    unshifted = []
    for site in sites:
        node = d_weights
        for part in site.path.split("/"):
            node = node[part]
        for leaf in site.layout.leaves:
            array = node
            for part in leaf.split("/"):
                array = array[part]
            named[f"{site.path}/{leaf}"] = np.asarray(array)
        blocks = tuple(replace(block, shift=0.0) for block in site.layout.blocks)
        unshifted.append(replace(site, layout=Layout(site.layout.leaves, site.layout.variables, blocks)))
    return write_weights(unshifted, named)
