"""The activations of Keras 2.15, under the names that `tf.keras.activations.get` takes.

They are here because some of them are not what `jax.nn` calls by the same name: `hard_sigmoid` is
0.2x + 0.5 cut to [0, 1] (`jax.nn.hard_sigmoid` is x/6 + 0.5), with the whole gradient at the edges of
the cut, where `jnp.clip` has half of it; and `gelu` takes the error function, where `jax.nn.gelu` takes
a tanh by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_models.checks import check_callable

Activation = Callable[[Array], Array]


def hard_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Keras' piecewise linear sigmoid: 0.2x + 0.5, cut to [0, 1]. Any shape.

    At the corners, x = -2.5 and x = 2.5, the slope is 0.2, as that of `tf.clip_by_value` is 1.
    Source: `tf.keras.activations.hard_sigmoid` of TF 2.15 (Keras 3 changed it to x/6 + 0.5).
    """
    # Compared before the product: fused with the sum under jit, it is not 0 but -3e-17 at -2.5.
    line = 0.2 * x + 0.5
    return jnp.where(x < -2.5, jnp.zeros_like(x), jnp.where(x > 2.5, jnp.ones_like(x), line))


def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x * tanh(softplus(x)), of Misra (2019). Any shape. Source: `tf.keras.activations.mish`."""
    return x * jnp.tanh(jax.nn.softplus(x))


def gelu(x: Float[Array, "*shape"], *, exact_root: bool = False) -> Float[Array, "*shape"]:
    """x * P(Z <= x) for a standard normal Z, by the error function. Any shape.

    TensorFlow divides by a square root of 2 that was rounded to float32, whatever the dtype of `x`,
    which in float64 is a relative error of 2e-8; so does this unless `exact_root`.
    Source: `tf.keras.activations.gelu`.
    """
    root = jnp.sqrt(2.0) if exact_root else jnp.float32(2.0**0.5)
    return 0.5 * x * (1 + jax.lax.erf(x / root.astype(x.dtype)))


def selu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The scaled exponential linear unit of Klambauer et al. (2017). Any shape.

    At 0 its slope is that of the line, 1.05; that of `jax.nn.selu` is that of the exponential, 1.76.
    Source: `tf.keras.activations.selu`.
    """
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    # The exponential of a large number would be an infinity that the gradient multiplies by zero.
    tail = alpha * jnp.expm1(jnp.where(x < 0, x, jnp.zeros_like(x)))
    return scale * jnp.where(x < 0, tail, x)


def linear(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The identity. Source: `tf.keras.activations.linear`, and what Keras means by None."""
    return x


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "elu": jax.nn.elu,
        "exponential": jnp.exp,
        "gelu": gelu,
        "hard_sigmoid": hard_sigmoid,
        "linear": linear,
        "mish": mish,
        "relu": jax.nn.relu,
        "selu": selu,
        "sigmoid": jax.nn.sigmoid,
        "softmax": jax.nn.softmax,
        "softplus": jax.nn.softplus,
        "softsign": jax.nn.soft_sign,
        "swish": jax.nn.silu,
        "tanh": jnp.tanh,
    }
)
"""Every name that `tf.keras.activations.get` of Keras 2.15 resolves to a function."""


def get_activation(activation: str | Activation | None) -> Activation:
    """The function that Keras means by `activation`: a name, a function, or None for the identity.

    Raises:
        TypeError: on what is neither.
        ValueError: on a name that Keras 2.15 does not have.
    """
    if activation is None:
        return linear
    if not isinstance(activation, str):
        check_callable("activation", activation)
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is {activation!r}; expected one of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[activation]
