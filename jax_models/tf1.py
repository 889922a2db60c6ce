"""The recurrent cells and loops of TensorFlow 1, under their names."""

from __future__ import annotations

from jax_models.cell_base import LSTMState
from jax_models.cell_wrappers import DeviceWrapper, DropoutWrapper, MultiRNNCell, ResidualWrapper
from jax_models.cells import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell
from jax_models.layer_norm_cells import LayerNormBasicLSTMCell
from jax_models.rnn import bidirectional_dynamic_rnn, dynamic_rnn, static_rnn

__all__ = [
    "BasicLSTMCell",
    "BasicRNNCell",
    "DeviceWrapper",
    "DropoutWrapper",
    "GRUCell",
    "LSTMCell",
    "LSTMState",
    "LayerNormBasicLSTMCell",
    "MultiRNNCell",
    "ResidualWrapper",
    "bidirectional_dynamic_rnn",
    "dynamic_rnn",
    "static_rnn",
]
