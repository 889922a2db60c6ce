"""The loop over a cell that reads a whole sequence: an encoder's, or a decoder's without attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jax_models.counterfactual.blend import pass_gradient, reorder, swap_time
from jax_models.counterfactual.cells import (
    CellWeights,
    State,
    choose_rows,
    name_parts,
    project_inputs,
    step_cell,
    turn_start,
)
from jax_models.counterfactual.taps import Taps


class Run(NamedTuple):
    """What a loop gives: the outputs, in the order of the inputs, and the state after the last step."""

    outputs: Float[Array, "batch time units"]
    state: State


def run_cell(
    site: str,
    weights: CellWeights,
    knobs: Any,
    inputs: Float[Array, "batch time features"],
    start: State,
    *,
    taps: Taps,
    limit: Int[Array, ""] | None = None,
) -> Run:
    """Step a cell over the inputs.

    Args:
        site: the path of the cell's leaves, for the names of what is tapped.
        weights: of the cell, as `turn_weights` gives them.
        knobs: `CellKnobs` of `oracle.knobs`.
        inputs: in their own order, of which `knobs.order_in` makes that of the steps.
        start: the state that is meant to be the first.
        taps: what collects each step's values.
        limit: the number of steps that run at all; those beyond give zeros. None for all.
    """
    inputs = taps(f"step/{site}/input", reorder(inputs, knobs.order_in))
    time = inputs.shape[1]
    perturbations = taps.under(*(f"step/{site}/{part}" for part in "ch"))

    def step(state: State, now: Any) -> tuple[State, tuple[Array, dict[str, Array]]]:
        t, projected, through, perturbations_t = now
        own = Taps(perturbations_t)
        state = enter_step(site, state, through, own)
        new = tap_state(site, step_cell(weights, knobs, projected, state), own)
        alive = t < knobs.lengths
        past = hold_output(knobs, state)
        if limit is not None:
            alive, past = alive & (t < limit), jnp.where(t < limit, past, 0)
        output = jnp.where(alive[:, None], new[-1], past)
        return choose_rows(alive, new, state), (output, own.values)

    each_step = (
        jnp.arange(time),
        swap_time(project_inputs(weights, inputs)),
        knobs.through_time,
        None if perturbations is None else {name: swap_time(p) for name, p in perturbations.items()},
    )
    state, (outputs, values) = jax.lax.scan(step, turn_start(knobs, start), each_step)
    taps.add({name: swap_time(value) for name, value in values.items()})
    return Run(reorder(swap_time(outputs), knobs.order_out) * knobs.keep, state)


def enter_step(site: str, state: State, through: Array, taps: Taps) -> State:
    """The state that enters a step, of whose gradient a part passes."""
    parts = {
        part: taps(f"step/{site}/state_{part}", pass_gradient(through, value))
        for part, value in name_parts(state).items()
    }
    return tuple(parts.values())


def tap_state(site: str, state: State, taps: Taps) -> State:
    """What a cell gives, tapped: c and h each by itself."""
    return tuple(taps(f"step/{site}/{part}", value) for part, value in name_parts(state).items())


def hold_output(knobs: Any, state: State) -> Float[Array, "batch units"]:
    """The output past a row's length: zero, or the last one, which is the h that is carried on."""
    last = jnp.where(knobs.lengths[:, None] > 0, state[-1], 0)
    return (1 - knobs.zero_past) * last
