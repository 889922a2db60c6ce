"""An optimizer that is driven by a port's own gradients, and how near it comes to the port's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.alternatives import LOOP_FORMS, Form
from oracle.optimizer import Optimizer
from oracle.tolerance import largest
from oracle.trajectory import LEAST_MOVE, Slices, Step

EXACT = 1e-10
"""What is left of the same formula with the same numbers, after many steps; see `docs/trajectory.md`."""

_JOINED = "\0joined"
"""The name of what several variables are joined to: none of theirs."""


@dataclass(frozen=True)
class Measure:
    """How near an optimizer comes to the port's tensors.

    Args:
        distance: the largest error of any parameter, as a part of how far it moved, or of any slot that both
            have, as a part of its largest element; over the steps that were done.
        same_slots: whether both have slots of the same names, or the port shows none.
        matching: how many tensors agree at all these steps.
        total: of how many.
        first_step: the first step at which one does not agree; 0 if there is none.
    """

    distance: float
    same_slots: bool
    matching: int
    total: int
    first_step: int


def find_driven(port: Sequence[Step], initial: Mapping[str, np.ndarray]) -> list[str]:
    """The variables that have a gradient at every step. TensorFlow leaves the others as they are."""
    given = [step.gradients or {} for step in port]
    return [name for name in initial if all(each.get(name) is not None for each in given)]


class Drive:
    """A port's first steps, to drive optimizers by.

    It is to be used with JAX in float64. Nothing is compiled but single operations, which all share.

    Args:
        port: the steps, with their gradients.
        initial: the float64 parameters before them.
        bound: within which a tensor agrees.
        most: how many elements of a tensor are taken where its gradient is no slices; None for all. They
            are then driven as one variable, so that an optimizer that takes a norm must not be.
    """

    def __init__(
        self,
        port: Sequence[Step],
        initial: Mapping[str, np.ndarray],
        bound: float,
        *,
        most: int | None = None,
    ) -> None:
        import jax.numpy as jnp

        from jax_models.optimizers import IndexedSlices

        names = find_driven(port, initial)
        sparse = {name for name in names for step in port if isinstance((step.gradients or {})[name], Slices)}

        def take(name: str, array: Any) -> np.ndarray:
            array = np.asarray(array, np.float64)
            if most is None or name in sparse or array.shape != initial[name].shape:
                return array
            flat = array.reshape(-1)
            return flat[np.linspace(0, flat.size - 1, min(most, flat.size)).astype(np.int64)]

        self._bound = bound
        self._initial = {name: take(name, initial[name]) for name in names}
        # Elements that go their own way may go together: one array, and one operation, for all variables.
        self._joined = [name for name in names if name not in sparse] if most is not None else []
        self._gradients: list[dict[str, Any]] = []
        self._port: list[dict[str, np.ndarray]] = []
        self._scalars: set[str] = set()
        for step in port:
            assert step.gradients is not None
            given = {}
            for name in names:
                gradient = step.gradients[name]
                if isinstance(gradient, Slices):
                    values = jnp.asarray(np.asarray(gradient.values, np.float64))
                    given[name] = IndexedSlices(values, jnp.asarray(gradient.indices))
                else:
                    given[name] = jnp.asarray(take(name, gradient))
            self._gradients.append(self._join(given))
            kept = {}
            for tensor, array in step.tensors.items():
                variable = tensor.removeprefix("parameter/")
                if tensor.startswith("slot/"):
                    variable = tensor.split("/", 2)[-1]
                if variable in names:
                    kept[tensor] = take(variable, array)
            self._port.append(kept)
        self._first = self._join({name: jnp.asarray(array) for name, array in self._initial.items()})
        self._scale = [
            {name: self._measure_scale(name, array) for name, array in kept.items()} for kept in self._port
        ]

    def find_first_move(self) -> int:
        """The first step at which a parameter of the port's moved, from 1 on; 0 if none did."""
        for number, kept in enumerate(self._port):
            if any((kept[f"parameter/{name}"] != array).any() for name, array in self._initial.items()):
                return number + 1
        return 0

    def measure(self, optimizer: Optimizer, forms: Sequence[Form] = (), *, limit: float = np.inf) -> Measure:
        """Drive an optimizer until it is further off than a limit."""
        distance, first_step, errors, same = 0.0, 0, {}, True
        for number, made in enumerate(self._run(optimizer, forms)):
            kept = self._port[number]
            slots = {name for name in kept if name.startswith("slot/")}
            same = not slots or slots == {name for name in made if name.startswith("slot/")}
            for name, array in made.items():
                if name not in kept:
                    continue
                error = self._compare(name, kept[name], array)
                errors[name] = max(errors.get(name, 0.0), error)
            distance = max(errors.values(), default=np.inf)
            if distance > self._bound and not first_step:
                first_step = number + 1
            if distance > limit or not errors:
                break
        matching = sum(error <= self._bound for error in errors.values())
        return Measure(distance, same, matching, len(errors), first_step)

    def residual(self, optimizer: Optimizer, forms: Sequence[Form] = ()) -> np.ndarray:
        """All errors of all parameters in a vector, each as a part of how far the port's moved."""
        errors = []
        for number, made in enumerate(self._run(optimizer, forms)):
            for name in (f"parameter/{variable}" for variable in self._initial):
                error = (made[name] - self._port[number][name]) / self._scale[number][name]
                errors.append(error.reshape(-1))
        return np.concatenate(errors)

    def find_factor(self, optimizer: Optimizer, forms: Sequence[Form] = ()) -> float:
        """How many times as far the port moved at its first step, by least squares; NaN of no move."""
        made = next(self._run(optimizer, forms))
        moves = [
            (made[f"parameter/{name}"] - start, self._port[0][f"parameter/{name}"] - start)
            for name, start in self._initial.items()
        ]
        size = sum(float(np.sum(np.square(move))) for move, _ in moves)
        return sum(float(np.sum(move * port)) for move, port in moves) / size if size else float("nan")

    def _run(self, optimizer: Optimizer, forms: Sequence[Form]) -> Iterator[dict[str, np.ndarray]]:
        import jax
        import jax.numpy as jnp

        from jax_models.optimizers import read_slots
        from oracle.steps.alternatives import build_alternative

        loop = {form.kind: form for form in forms if form.kind in LOOP_FORMS}
        transformation = build_alternative(optimizer, [form for form in forms if form.kind not in LOOP_FORMS])
        variables = self._first
        state = transformation.init(variables)

        def apply(gradients: Any, state: Any, variables: Any) -> tuple[Any, Any]:
            updates, state = transformation.update(gradients, state, variables)
            return state, jax.tree.map(jnp.add, variables, updates)

        def happens(kind: str, number: int) -> bool:
            return kind in loop and loop[kind].number in (0, number)

        for index in range(len(self._gradients)):
            number = index + 1
            if happens("reset", number):
                state = transformation.init(variables)
            if happens("restore", number):
                variables = self._first
            times = 0 if happens("skip", number) else 2 if happens("twice", number) else 1
            gradients = self._gradients[index]
            if "gather" in loop:
                times = int(number % int(loop["gather"].number) == 0)
                gradients = self._gather(index, loop["gather"]) if times else gradients
            for _ in range(times):
                state, variables = apply(gradients, state, variables)
            slots, _ = read_slots(state)
            made = {f"parameter/{name}": array for name, array in self._part(variables).items()}
            for slot, tree in slots.items():
                made |= {f"slot/{slot}/{name}": array for name, array in self._part(tree).items()}
            yield made

    def _join(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        import jax.numpy as jnp

        if not self._joined:
            return dict(arrays)
        rest = {name: array for name, array in arrays.items() if name not in self._joined}
        return {_JOINED: jnp.concatenate([arrays[name] for name in self._joined]), **rest}

    def _part(self, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        parted = {name: np.asarray(array) for name, array in arrays.items()}
        if self._joined:
            ends = np.cumsum([self._initial[name].size for name in self._joined])
            parted |= dict(zip(self._joined, np.split(parted.pop(_JOINED), ends[:-1]), strict=True))
        return parted

    def _gather(self, index: int, form: Form) -> dict[str, Any]:
        from jax_models.optimizers.rules import densify

        if form.word == "last":
            return self._gradients[index]
        count = int(form.number)
        gathered = {}
        for name, parameter in self._first.items():
            parts = [densify(self._gradients[index - back][name], parameter)[0] for back in range(count)]
            gathered[name] = sum(parts) / (count if form.word == "mean" else 1)
        return gathered

    def _measure_scale(self, name: str, array: np.ndarray) -> float:
        variable = name.removeprefix("parameter/")
        if variable in self._initial and array.shape == self._initial[variable].shape:
            start = self._initial[variable]
            return max(largest(array - start), LEAST_MOVE * largest(array), 1e-300)
        return max(largest(array), 1e-300)

    def _compare(self, name: str, port: np.ndarray, made: np.ndarray) -> float:
        if port.shape != made.shape or not np.isfinite(port).all() or not np.isfinite(made).all():
            return np.inf
        error = largest(port - made)
        return 0.0 if error == 0 else error / self._measure_scale(name, made)
