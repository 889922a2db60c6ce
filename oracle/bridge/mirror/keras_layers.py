"""The layers of Keras without a loop: `Dense`, `Embedding`, `Masking`, and those without weights."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

import jax_models.keras_layers as ours
from jax_models.keras_activations import get_activation
from jax_models.layer_norm_cells import LayerNorm
from oracle.bridge import keras_layouts
from oracle.bridge.layout import Layout, whole
from oracle.bridge.mirror.activations import read_activation
from oracle.bridge.mirror.containers import compose
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.keras_models import takes_training
from oracle.bridge.mirror.pieces import Call, Piece
from oracle.bridge.mirror.refusals import MirrorError, refuse_options
from oracle.bridge.mirror.registry import known


class SizedDense(ours.Dense):
    """A `Dense` that says its width as `nn.Dense` does, which an `AttentionWrapper` asks for."""

    @property
    def features(self) -> int:
        """The width of what it returns."""
        return self.units


@known("keras.layers.Dense", "compat.v1.layers.Dense")
def mirror_dense(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Dense`, and TF1's."""
    use_bias = bool(layer.use_bias)
    options = {
        "units": int(layer.units),
        "activation": read_activation(layer.activation, context.path),
        "use_bias": use_bias,
    }
    variables = context.variables(layer, ("kernel", "bias") if use_bias else ("kernel",))
    layout = keras_layouts.keras_dense(int(variables["kernel"].shape[0]), layer.units, use_bias=use_bias)
    call = _call_plainly
    return Piece(SizedDense(**options), variables, layout, options=options, call=call, mask=pass_mask)


@known("keras.layers.Embedding")
def mirror_embedding(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Embedding`. Its mask, with `mask_zero`, is what `compute_mask(ids)` gives."""
    # Older versions of Keras have no such option, and 2.15 has it under a private name.
    one_hot = any(getattr(layer, name, False) for name in ("use_one_hot_matmul", "_use_one_hot_matmul"))
    instead = "leave it out; the results of ids within the range are the same"
    refuse_options(context.path, "Embedding", {"use_one_hot_matmul": (one_hot, False, instead)})
    options = {
        "input_dim": int(layer.input_dim),
        "output_dim": int(layer.output_dim),
        "mask_zero": bool(layer.mask_zero),
    }
    variables = context.variables(layer, ("embeddings",))
    layout = keras_layouts.keras_embedding(layer.input_dim, layer.output_dim)
    return Piece(
        ours.Embedding(**options),
        variables,
        layout,
        options=options,
        call=lambda bound, ids: bound(jnp.asarray(ids)),
        methods={"compute_mask": lambda bound, ids, mask=None: bound.compute_mask(jnp.asarray(ids))},
        mask=lambda bound, ids, mask: bound.compute_mask(jnp.asarray(ids)),
    )


@known("keras.layers.Masking")
def mirror_masking(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Masking`."""
    del context
    options = {"mask_value": float(layer.mask_value)}
    return Piece(
        ours.Masking(**options),
        options=options,
        call=_call_plainly,
        methods={"compute_mask": lambda bound, inputs, mask=None: bound.compute_mask(inputs)},
        mask=lambda bound, inputs, mask: bound.compute_mask(inputs),
    )


@known("keras.layers.Activation")
def mirror_activation(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Activation`."""
    name = read_activation(layer.activation, context.path)
    return weightless({"activation": name}, get_activation(name), mask=pass_mask)


@known("keras.layers.Softmax")
def mirror_softmax(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Softmax` of one axis, which lowers what a mask leaves out by 1e9."""
    wanted = (layer.axis, layer.axis if isinstance(layer.axis, int) else -1, "give it one axis")
    refuse_options(context.path, "Softmax", {"axis": wanted})

    def call(bound: Any, inputs: Any, mask: Any = None) -> Any:
        del bound
        inputs = inputs if mask is None else inputs + (1.0 - jnp.asarray(mask, inputs.dtype)) * -1e9
        return nn.softmax(inputs, axis=layer.axis)

    return Piece(Weightless(), options={"axis": layer.axis}, call=call, takes_mask=True, mask=pass_mask)


@known(
    "keras.layers.Dropout",
    "keras.layers.SpatialDropout1D",
    "keras.layers.GaussianNoise",
    "keras.layers.GaussianDropout",
)
def mirror_dropout(layer: Any, context: Context) -> Piece:
    """Layers that are random in training and nothing otherwise: only the latter can be mirrored."""
    kind = type(layer).__name__
    rate = float(getattr(layer, "rate", getattr(layer, "stddev", 0.0)))

    def call(bound: Any, inputs: Any, training: bool | None = None) -> Any:
        del bound
        if training and rate:
            raise MirrorError(
                f"mirror: {context.path}: {kind} in training draws numbers that only TensorFlow knows; run "
                "the port with training=False, or multiply by a mask that you draw yourself"
            )
        return inputs

    return Piece(Weightless(), options={"rate": rate}, call=call, mask=pass_mask)


@known("keras.layers.Flatten")
def mirror_flatten(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Flatten`, channels last."""
    refuse_options(
        context.path, "Flatten", {"data_format": (layer.data_format, "channels_last", "transpose the inputs")}
    )
    return weightless({}, lambda inputs: inputs.reshape(inputs.shape[0], -1))


@known("keras.layers.Reshape")
def mirror_reshape(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Reshape`."""
    del context
    shape = tuple(int(size) for size in layer.target_shape)
    return weightless({"target_shape": list(shape)}, lambda inputs: inputs.reshape(inputs.shape[0], *shape))


@known("keras.layers.Permute")
def mirror_permute(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.Permute`."""
    del context
    dims = tuple(int(axis) for axis in layer.dims)
    return weightless({"dims": list(dims)}, lambda inputs: jnp.transpose(inputs, (0, *dims)))


@known("keras.layers.RepeatVector")
def mirror_repeat_vector(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.RepeatVector`: a vector for each of n steps."""
    del context
    return weightless({"n": int(layer.n)}, lambda inputs: jnp.repeat(inputs[:, None], int(layer.n), axis=1))


@known("keras.layers.TimeDistributed")
def mirror_time_distributed(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.TimeDistributed`, around a layer that treats the rows of a batch alike."""
    child = context.child(layer.layer, "layer")
    inner = child.piece
    refusal = inner.refusal
    if not refusal and not isinstance(inner.module, SizedDense | Weightless):
        refusal = (
            f"TimeDistributed around a {type(layer.layer).__name__} cannot be mirrored; around Dense and "
            "layers without weights it can"
        )

    def call(bound: Any, inputs: Any, training: bool | None = None) -> Any:
        assert inner.call is not None
        options = {"training": training} if training and takes_training(inner.call) else {}
        rows = inputs.reshape(-1, *inputs.shape[2:])
        outputs = inner.call(child.bind_from(bound), rows, **options)
        return outputs.reshape(*inputs.shape[:2], *outputs.shape[1:])

    return Piece(
        compose((child,), {}),
        children=(child,),
        call=None if refusal else call,
        refusal=refusal,
        mask=pass_mask,
    )


@known("keras.layers.LayerNormalization")
def mirror_layer_normalization(layer: Any, context: Context) -> Piece:
    """`tf.keras.layers.LayerNormalization` of the last axis."""
    axis = list(layer.axis) if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    wanted = {
        "number of axes": (len(axis), 1, "normalise the last axis alone"),
        "scale": (bool(layer.scale), True, "give it a scale, and freeze that at one"),
    }
    refuse_options(context.path, "LayerNormalization", wanted)
    variables = context.variables(layer, {"gamma": "gamma"} | ({"beta": "beta"} if layer.center else {}))
    shape = tuple(int(size) for size in variables["gamma"].shape)
    names = {"scale": "gamma"} | ({"bias": "beta"} if layer.center else {})
    layout = Layout(
        dict.fromkeys(names, shape),
        dict.fromkeys(names.values(), shape),
        tuple(whole(leaf, name, shape) for leaf, name in names.items()),
    )
    options = {"axis": axis[0], "epsilon": float(layer.epsilon), "center": bool(layer.center)}

    def call(bound: Any, inputs: Any) -> Any:
        if axis[0] not in (-1, inputs.ndim - 1):
            raise MirrorError(
                f"mirror: {context.path}: LayerNormalization of axis {axis[0]} of {inputs.shape}"
            )
        return bound(inputs)

    module = LayerNorm(float(layer.epsilon), use_bias=bool(layer.center))
    return Piece(module, variables, layout, options=options, call=call, mask=pass_mask)


class Weightless(nn.Module):
    """The module of a layer without weights: what it computes is the piece's call."""

    def __call__(self, inputs: Any) -> Any:
        """The inputs."""
        return inputs


def weightless(options: dict[str, Any], function: Any, *, mask: Call | None = None) -> Piece:
    """The piece of a layer that is one function of its inputs."""

    def call(bound: Any, inputs: Any, training: bool | None = None) -> Any:
        del bound, training
        return function(jnp.asarray(inputs))

    return Piece(Weightless(), options=options, call=call, mask=mask)


def pass_mask(bound: Any, inputs: Any, mask: Any) -> Any:
    """The mask as it is: what a layer with `supports_masking` hands on."""
    del bound, inputs
    return mask


def _call_plainly(bound: Any, inputs: Any) -> Any:
    return bound(jnp.asarray(inputs))
