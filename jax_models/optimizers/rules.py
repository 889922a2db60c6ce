"""What the optimizers are made of: a rule for one tensor, its slots, and gradients of a few rows only.

A rule says what TensorFlow's kernel does to one variable. `by_rule` makes an `optax.GradientTransformation`
of it, whose state holds the slots under the names that TensorFlow gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

Number = int | float
"""A hyperparameter. A type checker at run time takes no int for a float."""

Rate = Number | Callable[[Any], Any]
"""A learning rate, or a schedule: a function of the number of steps that were done."""

Rows = Literal["all", "touched", "update"]
"""What happens to the rows that an `IndexedSlices` does not name: `all` are treated as if their gradient
were zero; or nothing happens but to the `touched` ones; or slots decay in all of them, and the `update` is
applied to those that are touched."""


class IndexedSlices(NamedTuple):
    """A gradient of some rows, as `tf.IndexedSlices`: a row may be named twice, and then counts twice.

    Args:
        values: [slices, ...], the gradients.
        indices: [slices], which row of the parameter each is of.
    """

    values: Array
    indices: Array


class OptimizerState(NamedTuple):
    """The state of an optimizer that is made by a rule.

    Args:
        count: how many steps were done.
        slots: by the name that TensorFlow gives them, each as the parameters.
        scalars: what TensorFlow keeps beside the slots, as `beta1_power`.
    """

    count: Array
    slots: dict[str, Any]
    scalars: dict[str, Array]


Coefficients = dict[str, Any]

Rule = Callable[[Any, Any, dict[str, Any], Coefficients], tuple[Any, dict[str, Any]]]
"""`rule(gradient, parameter, slots, coefficients)` gives what to add to the parameter, and the slots."""


def by_rule(
    rule: Rule,
    learning_rate: Rate,
    *,
    slots: Mapping[str, Number],
    scalars: Mapping[str, Any] | None = None,
    prepare: Callable[[Any, Coefficients], tuple[Coefficients, dict[str, Any]]] | None = None,
    rows: Rows = "all",
) -> optax.GradientTransformation:
    """Make an optimizer of a rule.

    Args:
        rule: what is done to each tensor.
        learning_rate: given to the rule as the coefficient `lr`, at each step anew.
        slots: the slots' names and what they are filled with at first.
        scalars: the scalars' first values.
        prepare: `prepare(step, coefficients)` gives more coefficients, and the scalars after the step. The
            step counts from 1 and is of the parameters' dtype.
        rows: what happens to rows without a gradient.
    """

    def init(params: Any) -> OptimizerState:
        filled = {
            name: jax.tree.map(lambda p, value=value: jnp.full_like(p, value), params)
            for name, value in slots.items()
        }
        kept = {name: jnp.asarray(value) for name, value in (scalars or {}).items()}
        return OptimizerState(jnp.zeros([], jnp.int32), filled, kept)

    def update(updates: Any, state: OptimizerState, params: Any = None) -> tuple[Any, OptimizerState]:
        if params is None:
            raise ValueError("params is None, expected the parameters: update(gradients, state, params)")
        leaves, structure = jax.tree.flatten(params)
        dtype = leaves[0].dtype
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        coefficients: Coefficients = {"lr": jnp.asarray(rate).astype(dtype), **state.scalars}
        kept = state.scalars
        if prepare is not None:
            more, kept = prepare((state.count + 1).astype(dtype), coefficients)
            coefficients |= more
        flat_slots = {name: structure.flatten_up_to(tree) for name, tree in state.slots.items()}
        changes, after = [], {name: [] for name in flat_slots}
        for number, (gradient, parameter) in enumerate(
            zip(structure.flatten_up_to(updates), leaves, strict=True)
        ):
            before = {name: flat[number] for name, flat in flat_slots.items()}
            dense, touched = densify(gradient, parameter)
            change, new = rule(dense, parameter, before, coefficients)
            if touched is not None and rows != "all":
                change = jnp.where(touched, change, 0)
            if touched is not None and rows == "touched":
                new = {name: jnp.where(touched, new[name], before[name]) for name in before}
            changes.append(change)
            for name, flat in after.items():
                flat.append(new[name])
        trees = {name: structure.unflatten(flat) for name, flat in after.items()}
        return structure.unflatten(changes), OptimizerState(state.count + 1, trees, kept)

    return optax.GradientTransformation(init, update)


def on_rows(inner: optax.GradientTransformation, rows: Rows) -> optax.GradientTransformation:
    """Let an optimizer of optax's take `IndexedSlices`. `rows` says what happens to the other rows."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("params is None, expected the parameters: update(gradients, state, params)")
        structure = jax.tree.structure(params)
        pairs = [
            densify(gradient, parameter)
            for gradient, parameter in zip(
                structure.flatten_up_to(updates), jax.tree.leaves(params), strict=True
            )
        ]
        dense = structure.unflatten([pair[0] for pair in pairs])
        masks = [pair[1] for pair in pairs]
        changes, after = inner.update(dense, state, params)
        if rows == "all" or all(mask is None for mask in masks):
            return changes, after

        def keep(new: Any, old: Any) -> Any:
            if jax.tree.structure(new) != structure:
                return new
            flat = zip(jax.tree.leaves(new), jax.tree.leaves(old), masks, strict=True)
            kept = [
                n if mask is None or mask.ndim != n.ndim else jnp.where(mask, n, o) for n, o, mask in flat
            ]
            return structure.unflatten(kept)

        changes = keep(changes, jax.tree.map(jnp.zeros_like, changes))
        if rows == "touched":
            after = jax.tree.map(
                keep, after, state, is_leaf=lambda node: jax.tree.structure(node) == structure
            )
        return changes, after

    return optax.GradientTransformation(inner.init, update)


def densify(gradient: Any, parameter: Any) -> tuple[Any, Any]:
    """A gradient as an array like the parameter, and which rows it names; None if it is dense already.

    Rows named twice are summed, as TensorFlow does before it applies them.
    """
    if not isinstance(gradient, IndexedSlices):
        return gradient, None
    whole = jnp.zeros_like(parameter).at[gradient.indices].add(gradient.values)
    touched = jnp.zeros(parameter.shape[:1], bool).at[gradient.indices].set(True)
    return whole, touched.reshape((-1,) + (1,) * (parameter.ndim - 1))


_OPTAX_SLOTS = {
    "TraceState": {"trace": "momentum"},
    "ScaleByRmsState": {"nu": "rms"},
    "ScaleByRStdDevState": {"nu": "rms", "mu": "mg"},
    "ScaleByRssState": {"sum_of_squares": "accumulator"},
    "ScaleByAdaDeltaState": {"e_g": "accum_grad", "e_x": "accum_var"},
    "ScaleByAdamState": {"mu": "m", "nu": "v"},
}


def read_slots(state: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The slots in the state of any optimizer of this package, and its scalars, by TensorFlow's names.

    Returns:
        Of each slot a tree as the parameters; and the scalars.
    """
    slots: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    if isinstance(state, OptimizerState):
        return dict(state.slots), dict(state.scalars)
    names = _OPTAX_SLOTS.get(type(state).__name__, {})
    slots |= {name: getattr(state, field) for field, name in names.items()}
    if isinstance(state, tuple) and not names:
        for part in state:
            more = read_slots(part)
            slots |= more[0]
            scalars |= more[1]
    return slots, scalars
