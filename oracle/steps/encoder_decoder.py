"""The step of an `EncoderDecoder`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from oracle.case import weight_shapes
from oracle.spec import EncoderDecoder
from oracle.steps.leaves import name_gradients

if TYPE_CHECKING:
    import flax.linen as nn


def differentiate(spec: EncoderDecoder) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """A pure function of weights and batch that gives everything a record holds."""
    import jax
    import jax.numpy as jnp

    from jax_models.cells import LSTMState
    from jax_models.losses import mean_squared_error

    module = _build_module(spec)

    def compute(weights, batch):
        lengths = {name: array for name, array in batch.items() if name.endswith("_length")}
        floats = {name: array for name, array in batch.items() if name not in lengths}
        zeros = jnp.zeros((len(batch["source"]), spec.encoder.units), batch["source"].dtype)

        def loss_of(weights, floats, handoff):
            state = {}
            if spec.initial_state == "given":
                state["initial_state"] = LSTMState(floats["initial_state/c"], floats["initial_state/h"])
            forward = module.apply(
                {"params": weights, "perturbations": handoff},
                floats["source"],
                floats["target"],
                **lengths,
                **state,
            )
            return mean_squared_error(forward.prediction, floats["target"][:, 1:]), forward

        gradients = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
        (loss, forward), (d_weights, d_batch, d_handoff) = gradients(
            weights, floats, {"handoff_c": zeros, "handoff_h": zeros}
        )
        return {
            "forward": forward,
            "loss": loss,
            "d_weights": d_weights,
            "d_batch": d_batch,
            "d_handoff": d_handoff,
        }

    return compute


def name_tensors(spec: EncoderDecoder, computed: Mapping[str, Any]) -> dict[str, np.ndarray | None]:
    """Name everything as a record does, in the order of computation: forward, then backward."""
    forward, d_batch, d_weights = computed["forward"], computed["d_batch"], computed["d_weights"]
    tensors = {
        "output/encoder": forward.encoded,
        "state/encoder/c": forward.encoder_state.c,
        "state/encoder/h": forward.encoder_state.h,
        "output/decoder": forward.decoded,
        "state/decoder/c": forward.decoder_state.c,
        "state/decoder/h": forward.decoder_state.h,
        "output/prediction": forward.prediction,
        "loss": computed["loss"],
    }
    leaves = list(weight_shapes(spec))
    for scope in ("projection", "decoder"):
        tensors |= name_gradients(d_weights, [leaf for leaf in leaves if leaf.startswith(f"{scope}/")])
    tensors["gradient/batch/target"] = d_batch["target"]
    tensors["gradient/state/encoder/c"] = computed["d_handoff"]["handoff_c"]
    tensors["gradient/state/encoder/h"] = computed["d_handoff"]["handoff_h"]
    tensors |= name_gradients(d_weights, [leaf for leaf in leaves if leaf.startswith("encoder/")])
    for name in ("source", "initial_state/c", "initial_state/h"):
        if name in d_batch:
            tensors[f"gradient/batch/{name}"] = d_batch[name]
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _build_module(spec: EncoderDecoder) -> nn.Module:
    """The Flax model that a spec describes."""
    from jax_models.dynamic_rnn import DynamicRNN
    from jax_models.explicit_state import ExplicitState, pass_state
    from jax_models.implicit_state import drop_state, exchange_state, stop_state

    handoffs = {
        "state": pass_state,
        "stopped": stop_state,
        "zeros": drop_state,
        "exchanged": exchange_state,
    }
    sizes: dict[str, Any] = {
        "units": spec.encoder.units,
        "target_features": spec.target_features if spec.projection else None,
        "encoder_forget_bias": spec.encoder.forget_bias,
        "decoder_forget_bias": spec.decoder.forget_bias,
    }
    if spec.initial_state == "implicit" and spec.handoff == "state":
        return DynamicRNN(**sizes)
    return ExplicitState(**sizes, handoff=handoffs[spec.handoff])
