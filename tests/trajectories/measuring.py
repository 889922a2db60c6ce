"""How a wrong counterpart is put in a right one's place."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from oracle.trajectory import Step


@contextlib.contextmanager
def use_counterpart(build: Callable[[], Any]) -> Iterator[None]:
    """Let the oracle train by what `build` gives. optax's own are shown rows without a gradient as zeros."""
    from jax_models.optimizers.rules import on_rows
    from oracle.steps import trajectory

    def replacement(optimizer: Any) -> Any:
        del optimizer
        transformation = build()
        own = transformation.update.__module__.startswith("jax_models")
        return transformation if own else on_rows(transformation, "all")

    before = trajectory.build_optimizer
    trajectory.build_optimizer = replacement
    try:
        yield
    finally:
        trajectory.build_optimizer = before


def keep_parameters(steps: Iterable[Step]) -> list[Step]:
    """Leave the slots out: those of optax's own go by other names, and the parameters must show the fault."""
    return [
        dataclasses.replace(
            step,
            tensors={name: array for name, array in step.tensors.items() if name.startswith("parameter/")},
        )
        for step in steps
    ]
