"""Optimizers with TensorFlow's exact formulas, as `optax.GradientTransformation`s.

By TensorFlow's namespaces, each function named after the class:

- `keras`: `tf.keras.optimizers` of Keras 2.11 and later
- `legacy`: `tf.keras.optimizers.legacy`
- `tf1`: `tf.compat.v1.train`
- `tfa`: `tfa.optimizers`
- `schedules`: `tf.keras.optimizers.schedules`

Where optax's own formula is the same, it is used, and the function's docstring says so. A gradient may be
`IndexedSlices`, as an embedding's is in TensorFlow. `read_slots` gives the slots of a state by TensorFlow's
names. As everywhere in optax, `update` gives what `optax.apply_updates` is to add.
"""

from jax_models.optimizers import keras, legacy, schedules, tf1, tfa
from jax_models.optimizers.rules import IndexedSlices, OptimizerState, read_slots
from jax_models.optimizers.wrappers import (
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    coupled_l2,
    decoupled_weight_decay,
    keep_average,
)

__all__ = [
    "IndexedSlices",
    "OptimizerState",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "coupled_l2",
    "decoupled_weight_decay",
    "keep_average",
    "keras",
    "legacy",
    "read_slots",
    "schedules",
    "tf1",
    "tfa",
]
