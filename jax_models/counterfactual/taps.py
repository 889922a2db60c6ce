"""Taps: names for the values between the layers, where a perturbation of zero can be added to each.

The derivative of the loss by that perturbation is the adjoint of the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

PERTURBED = ("input", "c", "h", "output", "alignments", "memory")
"""The last parts of the names that have an adjoint."""


class Taps:
    """Collects values by name, each with its perturbation added, while a function is traced.

    A loop makes its own for each step, from that step's part of `under`, and gives their values out.

    Args:
        perturbations: by name, of the values' shapes; a name that is absent is not perturbed. None if
            nothing is to be collected.
    """

    def __init__(self, perturbations: Mapping[str, Array] | None) -> None:
        self._perturbations = perturbations
        self.values: dict[str, Array] = {}

    def __call__(self, name: str, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The value, perturbed."""
        if self._perturbations is None:
            return value
        if name in self._perturbations:
            value = value + self._perturbations[name]
        self.values[name] = value
        return value

    def under(self, *prefixes: str) -> dict[str, Array] | None:
        """The perturbations of the names that begin so; None if nothing is collected."""
        if self._perturbations is None:
            return None
        return {name: value for name, value in self._perturbations.items() if name.startswith(prefixes)}

    def add(self, values: Mapping[str, Any]) -> None:
        """Take in what a loop has collected."""
        self.values.update(values)
