"""A live port's loss as a function of the batch. Imports neither JAX nor Flax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oracle.errors import UsageError
from oracle.frameworks import import_tensorflow
from oracle.live_port import LivePort


def make_loss(port: LivePort, *, needs_reference: bool = True) -> Callable[[Mapping[str, Any]], Any]:
    """The port's loss as a function of the batch.

    Args:
        port: with the loss.
        needs_reference: whether it is to be compared, for which a function as the loss needs a reference.

    Raises:
        UsageError: if there is no reference for it, and none can be made.
    """
    tensorflow = import_tensorflow()
    if not isinstance(port.loss, tensorflow.keras.losses.Loss):
        if port.reference is None and needs_reference:
            raise UsageError(
                f"{port.name}: its loss is a function of its own, so it needs a reference: reference(mirror, "
                "params, batch), which composes the same loss of the mirror's pieces"
            )
        return port.loss
    (model,) = port.models.values() if len(port.models) == 1 else (None,)
    if port.reference is None and (model is None or "y" not in port.batch):
        raise UsageError(
            f"{port.name}: a loss of Keras needs one model and batch['y']; or give a function as the loss, "
            "and a reference"
        )
    if model is None:
        raise UsageError(f"{port.name}: a loss of Keras needs one model; give a function of the batch")
    inputs = input_names(model, port.batch)

    def loss(batch: Mapping[str, Any]) -> Any:
        given = [batch[name] for name in inputs]
        outputs = model(given if len(given) > 1 else given[0])
        return port.loss(batch["y"], outputs, batch.get("sample_weight"))

    return loss


def input_names(model: Any, batch: Mapping[str, Any]) -> list[str]:
    """The names of what of the batch a model is called on: its own inputs', or `x`.

    Raises:
        UsageError: if the batch has neither.
    """
    own = list(getattr(model, "input_names", None) or [])
    if own and all(name in batch for name in own):
        return own
    if "x" in batch:
        return ["x"]
    raise UsageError(
        f"the batch has {', '.join(batch)}; name the model's inputs 'x', or {', '.join(own) or 'x'}"
    )
