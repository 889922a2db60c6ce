"""The oracle's side: a case in, a record out. The only module of `oracle` that computes with JAX."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oracle.case import Case, digest_case, weight_shapes
from oracle.errors import UsageError
from oracle.frameworks import import_jax, installed_version, precise_jax
from oracle.record import Origin, Record
from oracle.spec import Spec

if TYPE_CHECKING:
    import flax.linen as nn

MODES = ("jit", "plain")
"""How JAX can run the oracle: compiled, or op by op."""


def run_oracle(
    case: Case,
    *,
    model: str,
    mode: str | None = None,
    dtype: Literal["float64", "float32"] = "float64",
) -> Record:
    """Compute the outputs, the loss and every gradient of the spec's model with Flax.

    Args:
        case: the spec, the weights and the batch.
        model: the port that is to be checked, `explicit_state/full`, for the record. What is computed
            depends on the spec alone.
        mode: one of `MODES`; by default `jit`.
        dtype: the precision of every computation.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
        UsageError: if there is no such mode.
    """
    if mode is None:
        mode = "jit"
    if mode not in MODES:
        raise UsageError(f"the oracle cannot run in mode {mode!r}; it can in {', '.join(MODES)}")
    jax = import_jax()
    with precise_jax():
        differentiate = _compile(case.spec) if mode == "jit" else _differentiate(case.spec)
        batch = {
            name: array if name.endswith("_length") else array.astype(dtype)
            for name, array in case.batch.items()
        }
        weights = _nest({path: array.astype(dtype) for path, array in case.weights.items()})
        tensors = _name_tensors(case.spec, jax.device_get(differentiate(weights, batch)))
        device = jax.devices()[0]
    origin = Origin(
        side="oracle",
        model=model,
        mode=mode,
        dtype=dtype,
        framework="jax",
        versions={name: installed_version(name) or "?" for name in ("jax", "jaxlib", "flax", "numpy")},
        python=platform.python_version(),
        device=device.device_kind,
        case=digest_case(case),
        seed=case.seed,
        weights=case.weights_from,
        data=case.data_from,
        flags={"matmul_precision": "highest"},
    )
    return Record(case.spec, origin, tensors)


def _build_module(spec: Spec) -> nn.Module:
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


@functools.cache
def _compile(spec: Spec) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """One program for each spec, which JAX compiles for each shape and dtype it meets."""
    import jax

    return jax.jit(_differentiate(spec))


def _differentiate(spec: Spec) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    """A pure function of weights and batch that gives everything a record holds."""
    import jax
    import jax.numpy as jnp

    from jax_models.cells import LSTMState
    from jax_models.losses import mean_squared_error

    module = _build_module(spec)

    def differentiate(weights, batch):
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

    return differentiate


def _name_tensors(spec: Spec, computed: Mapping[str, Any]) -> dict[str, np.ndarray | None]:
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
        tensors |= _name_gradients(d_weights, [leaf for leaf in leaves if leaf.startswith(f"{scope}/")])
    tensors["gradient/batch/target"] = d_batch["target"]
    tensors["gradient/state/encoder/c"] = computed["d_handoff"]["handoff_c"]
    tensors["gradient/state/encoder/h"] = computed["d_handoff"]["handoff_h"]
    tensors |= _name_gradients(d_weights, [leaf for leaf in leaves if leaf.startswith("encoder/")])
    for name in ("source", "initial_state/c", "initial_state/h"):
        if name in d_batch:
            tensors[f"gradient/batch/{name}"] = d_batch[name]
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _name_gradients(d_weights: Any, leaves: list[str]) -> dict[str, np.ndarray]:
    gradients = {}
    for leaf in leaves:
        node = d_weights
        for part in leaf.split("/"):
            node = node[part]
        gradients[f"gradient/{leaf}"] = node
    return gradients


def _nest(leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Turn leaves by path into the nested dictionary that Flax takes."""
    tree: dict[str, Any] = {}
    for path, array in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[name] = array
    return tree
