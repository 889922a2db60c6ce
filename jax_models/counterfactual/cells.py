"""One step of an LSTM and of a GRU, with knobs.

The leaves are `kernel` [features, gates*units], `recurrent_kernel` [units, gates*units] and `bias`, of a GRU
[2, gates*units]: the input's and the state's. An LSTM's gates are i, f, g, o, a GRU's z, r, h. A state is the
tuple (c, h) of an LSTM, (h,) of a GRU. The knobs are `CellKnobs` of `oracle.knobs`.

Sources: Hochreiter & Schmidhuber (1997), Gers et al. (1999), Cho et al. (2014); `BasicLSTMCell` of TF1, and
`tf.keras.layers.LSTMCell` and `GRUCell`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_models.counterfactual.blend import Knob, blend, keep_slope, mix, mix_rows, round_tensor

State = tuple[Float[Array, "batch units"], ...]


class LSTMParts(NamedTuple):
    """An LSTM's state by the names of its parts. A GRU's has one part, h."""

    c: Float[Array, "batch units"]
    h: Float[Array, "batch units"]


class CellWeights(NamedTuple):
    """What the knobs make of a cell's leaves: a block for each gate, side by side.

    `input_bias` and `state_bias` belong to the two products; an LSTM has the first alone.
    """

    kernel: Float[Array, "features columns"]
    recurrent: Float[Array, "units columns"]
    input_bias: Float[Array, " columns"]
    state_bias: Float[Array, " columns"] | None


def share_leaves(weights: Mapping[str, Array], share: Mapping[str, Knob], site: str) -> dict[str, Array]:
    """The leaves of the cell at `site`, by their last names, replaced by those of a cell that it shares.

    Args:
        weights: every leaf, by path.
        share: by `later<-earlier`, 1 for the earlier cell's leaves; a kernel of another shape stays.
        site: the path of the cell's leaves.
    """
    leaves = {name: weights[f"{site}/{name}"] for name in ("kernel", "recurrent_kernel", "bias")}
    for pair, part in share.items():
        later, _, earlier = pair.partition("<-")
        if later != site:
            continue
        for name, leaf in leaves.items():
            other = weights[f"{earlier}/{name}"]
            if other.shape == leaf.shape:
                leaves[name] = blend(part, leaf, other)
    return leaves


def turn_weights(leaves: Mapping[str, Array], knobs: Any) -> CellWeights:
    """Apply the knobs that act on a cell's weights: they need no place in the loop."""
    gates = knobs.gates.shape[0]

    def mix_gates(columns: Array) -> Array:
        blocks = columns.reshape(-1, gates, columns.shape[-1] // gates)
        return jnp.einsum("kg,fgu->fku", knobs.gates, blocks).reshape(columns.shape)

    recurrent = leaves["recurrent_kernel"]
    units = recurrent.shape[0]
    turned = recurrent.reshape(units, gates, units).transpose(2, 1, 0).reshape(recurrent.shape)
    recurrent = mix_gates(blend(knobs.transposed, recurrent, turned))
    kernel, bias = mix_gates(leaves["kernel"]), leaves["bias"] * knobs.bias_scale
    if bias.ndim == 2:
        return CellWeights(kernel, recurrent, mix_gates(bias[0]), mix_gates(bias[1]))
    return CellWeights(kernel, recurrent, mix_gates(bias) + jnp.repeat(knobs.forget_bias, units), None)


def project_inputs(
    weights: CellWeights, inputs: Float[Array, "*steps features"]
) -> Float[Array, "*steps columns"]:
    """The inputs' part of the pre-activations, of one step or of all."""
    return inputs @ weights.kernel + weights.input_bias


def step_cell(
    weights: CellWeights, knobs: Any, projected: Float[Array, "batch columns"], state: State
) -> State:
    """Advance one step: the next state, whose h is the output."""
    step = step_lstm if weights.state_bias is None else step_gru
    return step(weights, knobs, projected, state)


def step_lstm(
    weights: CellWeights, knobs: Any, projected: Float[Array, "batch columns"], state: State
) -> State:
    """c' = gate(f) * c + gate(i) * activate(g), h' = gate(o) * activate(c')."""
    c, h = state
    sums = projected + round_tensor(knobs.rounded, h) @ weights.recurrent
    g = activate(knobs.activation, jnp.split(sums, 4, axis=-1)[2])
    i, f, _, o = jnp.split(squash(knobs.hard_sigmoid, sums), 4, axis=-1)
    c = f * c + i * g
    return c, o * activate(knobs.activation, c)


def step_gru(
    weights: CellWeights, knobs: Any, projected: Float[Array, "batch columns"], state: State
) -> State:
    """h' = z * h + (1 - z) * activate(x_h + r * (h @ R_h + b_h)), or with (r * h) @ R_h + b_h in it."""
    (h,) = state
    assert weights.state_bias is not None
    gates = 2 * h.shape[-1]
    sums = round_tensor(knobs.rounded, h) @ weights.recurrent + weights.state_bias
    z, r = jnp.split(squash(knobs.hard_sigmoid, projected[:, :gates] + sums[:, :gates]), 2, axis=-1)
    reset_before = round_tensor(knobs.rounded, r * h) @ weights.recurrent[:, gates:]
    reset_before += weights.state_bias[gates:]
    n = activate(
        knobs.activation, projected[:, gates:] + blend(knobs.reset_after, reset_before, r * sums[:, gates:])
    )
    z = blend(knobs.update_exchanged, z, 1 - z)
    return (z * h + (1 - z) * n,)


@keep_slope
def squash(knob: Knob, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The sigmoid, or Keras 2's hard_sigmoid, which is a line cut off at 0 and 1."""
    return blend(knob, jax.nn.sigmoid(x), jnp.clip(0.2 * x + 0.5, 0, 1))


@keep_slope
def activate(knob: Float[Array, " forms"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The activation, a sum over those that `oracle.knobs.CELL_ACTIVATIONS` names."""
    forms = [jnp.tanh(x), jax.nn.relu(x), x, jax.nn.sigmoid(x), x / (1 + jnp.abs(x))]
    return mix(knob, forms)


def choose_rows(alive: Array, new: State, old: State) -> State:
    """The new state of the rows that are alive, and the old one of the others."""
    return tuple(jnp.where(alive[:, None], n, o) for n, o in zip(new, old, strict=True))


def name_parts(state: State) -> dict[str, Array]:
    """The parts of a state by name: c and h, or h alone."""
    return dict(zip(("c", "h") if len(state) == 2 else ("h",), state, strict=True))


def turn_start(knobs: Any, state: State) -> State:
    """The state that the loop starts from, of the one that was meant."""
    return tuple(mix_rows(knobs.start, state))
