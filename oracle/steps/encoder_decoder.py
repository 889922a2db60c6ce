"""The step of an `EncoderDecoder`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from oracle.case import weight_shapes
from oracle.mesh import map_shards
from oracle.spec import EncoderDecoder
from oracle.steps.leaves import name_gradients
from oracle.steps.paths import DEFAULT_PATH, Path, check_path

if TYPE_CHECKING:
    import flax.linen as nn

    from jax_models.fast.remat import Rematerialisation


def differentiate(
    spec: EncoderDecoder, *, path: Path = DEFAULT_PATH, limit_bytes: int | None = None, shards: int = 1
) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """A pure function of weights and batch that gives everything a record holds.

    Args:
        spec: the model.
        path: how it is computed.
        limit_bytes: what the fast path may keep for its derivative, beyond which it computes again; by
            default a share of the device's memory.
        shards: over how many devices the batch's rows are spread. See `oracle.mesh`.

    Raises:
        UsageError: if there is no such path.
    """
    import jax
    import jax.numpy as jnp

    from jax_models.cells import LSTMState
    from jax_models.losses import mean_squared_error

    check_path(path)
    predict = _predict_fast(spec, limit_bytes, shards) if path == "fast" else _predict_plain(spec)

    def compute(weights, batch):
        lengths = {name: array for name, array in batch.items() if name.endswith("_length")}
        floats = {name: array for name, array in batch.items() if name not in lengths}
        zeros = jnp.zeros((len(batch["source"]), spec.encoder.units), batch["source"].dtype)

        def loss_of(weights, floats, handoff):
            state = None
            if spec.initial_state == "given":
                state = LSTMState(floats["initial_state/c"], floats["initial_state/h"])
            forward = predict(weights, floats["source"], floats["target"], lengths, handoff, state)
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


def choose_segments(
    spec: EncoderDecoder, batch: Mapping[str, Any], *, itemsize: int, limit_bytes: int | None = None
) -> Rematerialisation:
    """Whether the fast path computes segments again on a batch of these shapes.

    Args:
        spec: the model.
        batch: arrays, whose shapes alone count.
        itemsize: the bytes of a number.
        limit_bytes: what may be kept; by default a share of the device's memory.
    """
    from jax_models.fast.encoder_decoder import estimate
    from jax_models.fast.remat import choose_rematerialisation

    (rows, src_time, _), tgt_time = batch["source"].shape, batch["target"].shape[1] - 1
    kept = estimate(rows, src_time, tgt_time, spec.encoder.units, itemsize=itemsize)
    return choose_rematerialisation(kept, max(src_time, tgt_time), limit_bytes=limit_bytes)


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


def _predict_plain(spec: EncoderDecoder) -> Callable[..., Any]:
    """The forward pass of the Flax modules."""
    from jax_models.dynamic_rnn import DynamicRNN
    from jax_models.explicit_state import ExplicitState

    sizes: dict[str, Any] = {
        "units": spec.encoder.units,
        "target_features": spec.target_features if spec.projection else None,
        "encoder_forget_bias": spec.encoder.forget_bias,
        "decoder_forget_bias": spec.decoder.forget_bias,
    }
    module: nn.Module
    if spec.initial_state == "implicit" and spec.handoff == "state":
        module = DynamicRNN(**sizes)
    else:
        module = ExplicitState(**sizes, handoff=_find_handoff(spec))

    def predict(weights, source, target, lengths, handoff, initial_state):
        state = {} if initial_state is None else {"initial_state": initial_state}
        variables = {"params": weights, "perturbations": handoff}
        return module.apply(variables, source, target, **lengths, **state)

    return predict


def _predict_fast(spec: EncoderDecoder, limit_bytes: int | None, shards: int) -> Callable[..., Any]:
    """The forward pass of `jax_models.fast`."""
    from jax_models.cells import LSTMState
    from jax_models.fast.encoder_decoder import Lengths, predict

    def compute(weights, source, target, lengths, handoff, initial_state):
        batch = {"source": source, "target": target}
        itemsize = source.dtype.itemsize
        options = {
            "forget_biases": (spec.encoder.forget_bias, spec.decoder.forget_bias),
            "handoff": _find_handoff(spec),
            "segment": choose_segments(spec, batch, itemsize=itemsize, limit_bytes=limit_bytes).segment,
        }
        rows = {
            "perturbation": LSTMState(handoff["handoff_c"], handoff["handoff_h"]),
            "initial_state": initial_state,
            "lengths": Lengths(lengths.get("source_length"), lengths.get("target_length")),
        }
        return map_shards(lambda rows: predict(weights, **rows, **options), batch | rows, shards)

    return compute


def _find_handoff(spec: EncoderDecoder) -> Callable[[Any], Any]:
    """What becomes of the encoder's state on its way."""
    from jax_models.explicit_state import pass_state
    from jax_models.implicit_state import drop_state, exchange_state, stop_state

    handoffs = {
        "state": pass_state,
        "stopped": stop_state,
        "zeros": drop_state,
        "exchanged": exchange_state,
    }
    return handoffs[spec.handoff]
