"""The list of models."""

from __future__ import annotations

from jax_models.quirks import QUIRKS
from oracle import zoo
from oracle.spec import describe


def list_models() -> str:
    """One line for each model, each of its ports, and each quirk of TensorFlow's that the oracle knows."""
    lines = []
    for model in zoo.MODELS:
        lines.append(f"{model.name}: {model.summary}")
        for variant in model.variants:
            modes = ", ".join(variant.modes)
            lines.append(
                f"  {model.name}/{variant.name}: {variant.summary}; modes {modes}; {describe(variant.spec)}"
            )
    lines.append("quirks of TensorFlow's in jax_models, each the default of a switch:")
    for quirk in QUIRKS:
        lines.append(
            f"  {quirk.where}({quirk.switch}={quirk.default!r}, or {quirk.corrected!r}): {quirk.what}"
        )
    return "\n".join(lines) + "\n"
