"""The list of models."""

from __future__ import annotations

from oracle import zoo
from oracle.spec import describe


def list_models() -> str:
    """One line for each model and each of its ports: name, what it does, modes and spec."""
    lines = []
    for model in zoo.MODELS:
        lines.append(f"{model.name}: {model.summary}")
        for variant in model.variants:
            modes = ", ".join(variant.modes)
            lines.append(
                f"  {model.name}/{variant.name}: {variant.summary}; modes {modes}; {describe(variant.spec)}"
            )
    return "\n".join(lines) + "\n"
