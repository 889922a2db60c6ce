"""The wrong conversions, as what they are in a functional setting: handoffs that lose the state.

`tf_models/implicit_state.py` has the TensorFlow ports. Each of them computes exactly what
`ExplicitState` does with one of these handoffs in place of `pass_state`, which is how we know that the
explanation of its gradients is right.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_models.cells import LSTMState


def stop_state(state: LSTMState) -> LSTMState:
    """The value is passed on and the gradient is not: the encoder ran outside the tape."""
    return jax.lax.stop_gradient(state)


def drop_state(state: LSTMState) -> LSTMState:
    """Zeros instead of the state: it was not returned, or not passed."""
    return jax.tree.map(jnp.zeros_like, state)


def exchange_state(state: LSTMState) -> LSTMState:
    """h where c belongs and c where h belongs."""
    return LSTMState(c=state.h, h=state.c)
