"""The cells of TF1 and of the oracle, made in pairs from one description, and dropout replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_models.cell_base import LSTMState, PerStep
from jax_models.cell_wrappers import (
    DeviceWrapper,
    DropoutWrapper,
    MultiRNNCell,
    ResidualWrapper,
    WrapperMasks,
)
from jax_models.cells import BasicLSTMCell, BasicRNNCell, GRUCell, LSTMCell
from oracle.bridge import cell_layouts
from oracle.bridge.layout import Layout, join
from tests.parity.tensorflow_side import tf

v1 = tf.compat.v1
TF1_CELLS = v1.nn.rnn_cell

ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (tf.tanh, jnp.tanh),
    "relu": (tf.nn.relu, jax.nn.relu),
    "sigmoid": (tf.sigmoid, jax.nn.sigmoid),
}


@dataclass
class Noise:
    """The random tensors that a TF1 graph's dropout uses, or their values.

    `steps` are the uniform numbers drawn at each step, one array [time, batch, size] for every draw in
    the order of a step; `variational` those drawn once, a mapping for every variational wrapper, the
    inner before the outer.
    """

    steps: list[Any] = field(default_factory=list)
    variational: list[Any] = field(default_factory=list)


@dataclass
class CellPair:
    """One cell on both sides. `build(noise)` makes TF1's within a graph."""

    module: Any
    build: Callable[[Noise], Any]
    parts: Mapping[tuple[str, str], Layout]

    @property
    def layout(self) -> Layout:
        return join(self.parts)


def pair_basic_rnn(features: int, units: int, *, activation: str = "tanh") -> CellPair:
    on_tf, on_jax = ACTIVATIONS[activation]
    return CellPair(
        BasicRNNCell(units, activation=on_jax),
        lambda _: TF1_CELLS.BasicRNNCell(units, activation=on_tf),
        {("", "basic_rnn_cell"): cell_layouts.tf1_basic_rnn(features, units)},
    )


def pair_basic_lstm(
    features: int, units: int, *, activation: str = "tanh", forget_bias: float = 1.0
) -> CellPair:
    on_tf, on_jax = ACTIVATIONS[activation]
    return CellPair(
        BasicLSTMCell(units, forget_bias, activation=on_jax),
        lambda _: TF1_CELLS.BasicLSTMCell(units, forget_bias=forget_bias, activation=on_tf),
        {("", "basic_lstm_cell"): cell_layouts.tf1_lstm_cell(features, units)},
    )


def pair_lstm(features: int, units: int, *, activation: str = "tanh", **options: Any) -> CellPair:
    on_tf, on_jax = ACTIVATIONS[activation]
    shape = {name: options[name] for name in ("num_proj", "use_peepholes") if name in options}
    return CellPair(
        LSTMCell(units, activation=on_jax, **options),
        lambda _: TF1_CELLS.LSTMCell(units, activation=on_tf, **options),
        {("", "lstm_cell"): cell_layouts.tf1_lstm_cell(features, units, **shape)},
    )


def pair_gru(features: int, units: int, *, activation: str = "tanh") -> CellPair:
    on_tf, on_jax = ACTIVATIONS[activation]
    return CellPair(
        GRUCell(units, activation=on_jax),
        lambda _: TF1_CELLS.GRUCell(units, activation=on_tf),
        {("", "gru_cell"): cell_layouts.tf1_gru(features, units)},
    )


CELLS = {
    "basic_rnn": pair_basic_rnn,
    "basic_lstm": pair_basic_lstm,
    "lstm": pair_lstm,
    "gru": pair_gru,
}


def pair_dropout(pair: CellPair, features: int, *, variational: bool, **keep_probs: float) -> CellPair:
    """`keep_probs` are `input_keep_prob`, `output_keep_prob` and `state_keep_prob`."""

    def build(noise: Noise) -> Any:
        once = {"variational_recurrent": True, "input_size": features} if variational else {}
        cell = TF1_CELLS.DropoutWrapper(pair.build(noise), **keep_probs, **once, dtype=tf.float64)
        if variational:
            noise.variational.append(
                {
                    "input": cell._recurrent_input_noise if keep_probs["input_keep_prob"] < 1 else [],
                    "state": tf.nest.flatten(cell._recurrent_state_noise),
                    "output": cell._recurrent_output_noise,
                }
            )
        return cell

    module = DropoutWrapper(pair.module, **keep_probs, variational_recurrent=variational)
    return CellPair(module, build, _moved("cell", "", pair.parts))


def pair_residual(pair: CellPair, *, own_function: bool = False) -> CellPair:
    def join(inputs: Any, output: Any) -> Any:
        return output * output - 2 * inputs

    function = join if own_function else None
    return CellPair(
        ResidualWrapper(pair.module, function),
        lambda noise: TF1_CELLS.ResidualWrapper(pair.build(noise), function),
        _moved("cell", "", pair.parts),
    )


def pair_device(pair: CellPair) -> CellPair:
    return CellPair(
        DeviceWrapper(pair.module, "/cpu:0"),
        lambda noise: TF1_CELLS.DeviceWrapper(pair.build(noise), "/cpu:0"),
        _moved("cell", "", pair.parts),
    )


def pair_multi(pairs: list[CellPair]) -> CellPair:
    parts = {}
    for i, pair in enumerate(pairs):
        parts |= _moved(f"cells_{i}", f"multi_rnn_cell/cell_{i}", pair.parts)
    return CellPair(
        MultiRNNCell(tuple(pair.module for pair in pairs)),
        lambda noise: TF1_CELLS.MultiRNNCell([pair.build(noise) for pair in pairs]),
        parts,
    )


def _moved(path: str, scope: str, parts: Mapping[tuple[str, str], Layout]) -> dict:
    return {(_join(path, p), _join(scope, s)): layout for (p, s), layout in parts.items()}


def _join(first: str, second: str) -> str:
    return "/".join(filter(None, (first, second)))


class Recording(TF1_CELLS.RNNCell):
    """A TF1 cell whose output is the cell's and, beside it, every uniform number it draws at the step.

    They stand in the columns of one array, since TF1's bidirectional loop turns only a single array.
    """

    def __init__(self, cell: Any, sizes: list[int]) -> None:
        super().__init__()
        self._recorded, self._sizes = cell, sizes

    @property
    def state_size(self) -> Any:
        return self._recorded.state_size

    @property
    def output_size(self) -> Any:
        return self._recorded.output_size + sum(self._sizes)

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return self._recorded.zero_state(batch_size, dtype)

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        graph = v1.get_default_graph()
        before = set(graph.get_operations())
        output, state = self._recorded(inputs, state)
        new = [op for op in graph.get_operations() if op not in before and op.type == "RandomUniform"]
        assert len(new) == len(self._sizes), f"{len(new)} draws, expected {len(self._sizes)}"
        return tf.concat([output, *(op.outputs[0] for op in new)], -1), state

    def part(self, outputs: Any) -> tuple[Any, list[Any]]:
        """The cell's outputs and its draws, of one step or of a loop."""
        output, *draws = tf.split(outputs, [self._recorded.output_size, *self._sizes], -1)
        return output, draws


def step_draws(module: Any, features: int) -> list[int]:
    """The sizes of what TF1's cell draws in one step, in its order."""
    if isinstance(module, MultiRNNCell):
        sizes = []
        for cell in module.cells:
            sizes += step_draws(cell, features)
            features = cell.output_size
        return sizes
    if isinstance(module, DropoutWrapper):
        sizes = step_draws(module.cell, features)
        if module.variational_recurrent:
            return sizes
        first = [features] if module.input_keep_prob < 1 else []
        last = [module.output_size] if module.output_keep_prob < 1 else []
        state = [size for size in _dropped_sizes(module) if size] if module.state_keep_prob < 1 else []
        return [*first, *sizes, *state, *last]
    return step_draws(module.cell, features) if _drops(module) else []


def replay(module: Any, noise: Noise) -> Any:
    """The masks that `module` needs to drop what TF1 dropped with the values `noise`."""
    return _replay(module, iter(noise.steps), iter(noise.variational))


def _replay(module: Any, steps: Iterator, variational: Iterator) -> Any:
    if isinstance(module, MultiRNNCell):
        return tuple(_replay(cell, steps, variational) for cell in module.cells)
    if not isinstance(module, DropoutWrapper):
        return _replay(module.cell, steps, variational) if _drops(module) else None
    if module.variational_recurrent:
        cell = _replay(module.cell, steps, variational)
        drawn = next(variational)

        def once(uniform: Any, keep_prob: float) -> Any:
            return jnp.asarray(np.floor(np.float32(keep_prob) + uniform) > 0) if keep_prob < 1 else None

        state = [
            once(uniform, module.state_keep_prob) if size else None
            for uniform, size in zip(drawn["state"], _dropped_sizes(module), strict=True)
        ]
        return WrapperMasks(
            input=once(drawn["input"], module.input_keep_prob),
            state=_like_state(module, state) if module.state_keep_prob < 1 else None,
            output=once(drawn["output"], module.output_keep_prob),
            cell=cell,
        )

    def each(keep_prob: float) -> Any:
        return (
            PerStep(jnp.asarray(next(steps) >= 1 - float(np.float32(keep_prob)))) if keep_prob < 1 else None
        )

    first = each(module.input_keep_prob)
    cell = _replay(module.cell, steps, variational)
    state = None
    if module.state_keep_prob < 1:
        masks = [each(module.state_keep_prob) if size else None for size in _dropped_sizes(module)]
        state = _like_state(module, masks)
    return WrapperMasks(first, state, each(module.output_keep_prob), cell)


def _dropped_sizes(module: Any) -> list[int | None]:
    """For each array of the state its size, or None if TF1 does not drop it."""

    def sizes(state: Any) -> list[int | None]:
        if isinstance(state, LSTMState):
            return [None, state.h]
        return [s for item in state for s in sizes(item)] if isinstance(state, tuple) else [state]

    return sizes(module.state_size)


def _drops(module: Any) -> bool:
    return hasattr(type(module), "draw_dropout_masks")


def _like_state(module: Any, masks: list[Any]) -> Any:
    return tf.nest.pack_sequence_as(module.state_size, masks)
