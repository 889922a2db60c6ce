"""The step of an `AttentionNMT`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from oracle.case import weight_shapes
from oracle.mesh import map_shards
from oracle.spec import AttentionNMT
from oracle.steps.leaves import name_gradients
from oracle.steps.paths import DEFAULT_PATH, Path, check_path

if TYPE_CHECKING:
    import flax.linen as nn

    from jax_models.fast.remat import Rematerialisation


def differentiate(
    spec: AttentionNMT, *, path: Path = DEFAULT_PATH, limit_bytes: int | None = None, shards: int = 1
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

    from jax_models.attention_nmt import masked_loss

    check_path(path)
    translate = _translate_fast(spec, limit_bytes, shards) if path == "fast" else _translate_plain(spec)

    def compute(weights, batch):
        rows, source_time = batch["source"].shape
        dtype = jax.tree.leaves(weights)[0].dtype
        zeros = {
            "embedded_source": jnp.zeros((rows, source_time, spec.embedding), dtype),
            "embedded_target": jnp.zeros((rows, batch["target"].shape[1] - 1, spec.embedding), dtype),
        }
        for name in _states(spec):
            zeros[f"encoder_state_{name.replace('/', '_')}"] = jnp.zeros((rows, 2 * spec.units), dtype)

        def loss_of(weights, perturbations):
            translation = translate(weights, perturbations, batch)
            logits = translation.decoded.logits
            loss = masked_loss(logits, batch["target"][:, 1:], batch["target_length"], spec.loss)
            return loss, translation

        gradients = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, translation), (d_weights, d_perturbations) = gradients(weights, zeros)
        return {
            "translation": translation,
            "loss": loss,
            "d_weights": d_weights,
            "d_perturbations": d_perturbations,
        }

    return compute


def choose_segments(
    spec: AttentionNMT, batch: Mapping[str, Any], *, itemsize: int, limit_bytes: int | None = None
) -> Rematerialisation:
    """Whether the fast path computes segments again on a batch of these shapes.

    Args:
        spec: the model.
        batch: tokens, whose shapes alone count.
        itemsize: the bytes of a number.
        limit_bytes: what may be kept; by default a share of the device's memory.
    """
    from jax_models.fast.attention_nmt import estimate
    from jax_models.fast.remat import choose_rematerialisation

    (rows, src_time), tgt_time = batch["source"].shape, batch["target"].shape[1] - 1
    kept = estimate(spec.cell, spec.layers, rows, src_time, tgt_time, spec.units, itemsize=itemsize)
    return choose_rematerialisation(kept, max(src_time, tgt_time), limit_bytes=limit_bytes)


def name_tensors(spec: AttentionNMT, computed: Mapping[str, Any]) -> dict[str, np.ndarray | None]:
    """Name everything as a record does, in the order of computation: forward, then backward."""
    translation, d_weights = computed["translation"], computed["d_weights"]
    d_perturbations = computed["d_perturbations"]
    decoded = translation.decoded
    tensors = {"output/encoder": translation.encoded}
    tensors |= _name_states("encoder", translation.encoder_states)
    tensors |= {"output/logits": decoded.logits, "output/alignments": decoded.alignments}
    tensors |= _name_states("decoder", decoded.states)
    tensors["loss"] = computed["loss"]
    # Backward, the output layer comes first and the embedding last.
    leaves = list(reversed(weight_shapes(spec)))
    tensors |= name_gradients(d_weights, [leaf for leaf in leaves if leaf.startswith("decoder/")])
    tensors["gradient/embedded/target"] = d_perturbations["embedded_target"]
    for name in _states(spec):
        tensors[f"gradient/state/encoder/{name}"] = d_perturbations[f"encoder_state_{name.replace('/', '_')}"]
    tensors |= name_gradients(d_weights, [leaf for leaf in leaves if leaf.startswith("encoder/")])
    tensors["gradient/embedded/source"] = d_perturbations["embedded_source"]
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def build_module(spec: AttentionNMT) -> nn.Module:
    """The Flax model that a spec describes."""
    from jax_models.attention_nmt import AttentionNMT as Module

    return Module(
        source_vocab=spec.source_vocab,
        target_vocab=spec.target_vocab,
        embedding=spec.embedding,
        cell=spec.cell,
        units=spec.units,
        layers=spec.layers,
        mechanism=spec.attention.mechanism,
        attention_units=spec.attention.units,
        attention_scaled=spec.attention.scaled,
        attention_layer_units=spec.attention.layer_units,
    )


def _translate_plain(spec: AttentionNMT) -> Callable[..., Any]:
    """The forward pass of the Flax modules."""
    module = build_module(spec)

    def translate(weights, perturbations, batch):
        return module.apply({"params": weights, "perturbations": perturbations}, **batch)

    return translate


def _translate_fast(spec: AttentionNMT, limit_bytes: int | None, shards: int) -> Callable[..., Any]:
    """The forward pass of `jax_models.fast`."""
    import jax.numpy as jnp

    from jax_models.fast.attention_nmt import Perturbations, translate

    parts = "ch" if spec.cell == "lstm" else "h"

    def compute(weights, perturbations, batch):
        embedded = perturbations["embedded_source"], perturbations["embedded_target"]
        states = tuple(
            tuple(perturbations[f"encoder_state_{layer}_{part}"] for part in parts)
            for layer in range(spec.layers)
        )
        itemsize = embedded[0].dtype.itemsize
        options = {
            "cell": spec.cell,
            "layers": spec.layers,
            "mechanism": spec.attention.mechanism,
            # Of all rows, whichever a shard has.
            "longest": jnp.max(batch["target_length"]),
            "segment": choose_segments(spec, batch, itemsize=itemsize, limit_bytes=limit_bytes).segment,
        }

        def translate_rows(rows):
            perturbations, batch = rows
            return translate(weights, **batch, perturbations=perturbations, **options)

        return map_shards(translate_rows, (Perturbations(*embedded, states), batch), shards)

    return compute


def _states(spec: AttentionNMT) -> list[str]:
    """The parts of the states that the encoder's layers hand over: `0/h`, and of an LSTM `0/c`."""
    return [f"{layer}/{part}" for layer in range(spec.layers) for part in _parts(spec)]


def _parts(spec: AttentionNMT) -> str:
    return "hc" if spec.cell == "lstm" else "h"


def _name_states(scope: str, states: Any) -> dict[str, Any]:
    named = {}
    for layer, state in enumerate(states):
        parts = {"h": state.h, "c": state.c} if hasattr(state, "c") else {"h": state}
        named |= {f"state/{scope}/{layer}/{part}": array for part, array in parts.items()}
    return named
