"""The pieces under the knobs, each against the same formula in NumPy or in another module."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.frameworks import precise_jax
from oracle.knobs import CELL_ACTIVATIONS, CellKnobs

pytestmark = pytest.mark.jax

ROWS, TIME, FEATURES, UNITS = 3, 4, 2, 5


def make_knobs(gates: int, parts: int) -> CellKnobs:
    order = np.tile(np.arange(TIME, dtype=np.int32), (ROWS, 1))
    return CellKnobs(
        gates=np.eye(gates),
        forget_bias=0.5 * np.eye(gates)[1],
        bias_scale=1.0,
        transposed=0.0,
        hard_sigmoid=0.0,
        activation=np.eye(len(CELL_ACTIVATIONS))[0],
        reset_after=1.0,
        update_exchanged=0.0,
        lengths=np.full(ROWS, TIME, np.int32),
        zero_past=1.0,
        order_in=order,
        order_out=order,
        start=np.eye(parts),
        through_time=np.ones(TIME),
        keep=np.ones((ROWS, TIME, UNITS)),
        rounded=np.int32(0),
    )


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def draw_leaves(gates: int) -> dict[str, np.ndarray]:
    bias = (2, gates * UNITS) if gates == 3 else (gates * UNITS,)
    return {
        "kernel": draw(FEATURES, gates * UNITS),
        "recurrent_kernel": draw(UNITS, gates * UNITS),
        "bias": draw(*bias),
    }


def run(leaves, knobs, inputs, start):
    """The outputs and the final state of a loop, in float64."""
    import jax
    import jax.numpy as jnp

    from jax_models.counterfactual.cells import turn_weights
    from jax_models.counterfactual.loop import run_cell
    from jax_models.counterfactual.taps import Taps

    with precise_jax():
        leaves, knobs, inputs, start = jax.tree.map(jnp.asarray, (leaves, knobs, inputs, start))
        outputs, state = run_cell("cell", turn_weights(leaves, knobs), knobs, inputs, start, taps=Taps(None))
        return np.asarray(outputs), [np.asarray(part) for part in state]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


FORMS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "sigmoid": sigmoid,
    "softsign": lambda x: x / (1 + np.abs(x)),
}


@pytest.mark.parametrize("form", CELL_ACTIVATIONS)
@pytest.mark.parametrize("squash", [sigmoid, hard_sigmoid])
def test_lstm_with_every_knob_of_its_formula(form: str, squash) -> None:
    leaves, inputs = draw_leaves(4), draw(ROWS, TIME, FEATURES, seed=1)
    c, h = draw(ROWS, UNITS, seed=2), draw(ROWS, UNITS, seed=3)
    order = np.array([2, 0, 3, 1])
    lengths = np.array([4, 0, 2], np.int32)
    keep = draw(ROWS, TIME, UNITS, seed=4)
    knobs = make_knobs(4, 2)._replace(
        gates=np.eye(4)[[0, 2, 1, 3]],
        bias_scale=3.0,
        transposed=1.0,
        hard_sigmoid=float(squash is hard_sigmoid),
        activation=np.eye(5)[CELL_ACTIVATIONS.index(form)],
        lengths=lengths,
        zero_past=0.0,
        order_in=np.tile(order, (ROWS, 1)),
        order_out=np.tile(order, (ROWS, 1)),
        start=np.eye(2)[::-1],
        keep=keep,
    )
    outputs, state = run(leaves, knobs, inputs, (c, h))

    c, h = h, c
    steps = []
    blocks = [block.T for block in np.split(leaves["recurrent_kernel"], 4, axis=1)]
    for t in range(TIME):
        sums = inputs[:, order[t]] @ leaves["kernel"] + h @ np.hstack(blocks) + 3 * leaves["bias"]
        i, g, f, o = np.split(sums, 4, axis=1)
        new_c = squash(f + 0.5) * c + squash(i) * FORMS[form](g)
        new_h = squash(o) * FORMS[form](new_c)
        alive = (t < lengths)[:, None]
        # Past its length a row repeats its last output, and the row that never began gives zeros.
        steps.append(np.where(alive, new_h, np.where(lengths[:, None] > 0, h, 0)))
        c, h = np.where(alive, new_c, c), np.where(alive, new_h, h)
    wanted = np.stack(steps, axis=1)[:, order] * keep
    np.testing.assert_allclose(outputs, wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(state[0], c, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(state[1], h, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reset_after", [0.0, 1.0])
@pytest.mark.parametrize("exchanged", [0.0, 1.0])
def test_gru_in_its_forms(reset_after: float, exchanged: float) -> None:
    leaves, inputs = draw_leaves(3), draw(ROWS, TIME, FEATURES, seed=1)
    h = draw(ROWS, UNITS, seed=2)
    knobs = make_knobs(3, 1)._replace(reset_after=reset_after, update_exchanged=exchanged)
    outputs, state = run(leaves, knobs, inputs, (h,))
    recurrent = leaves["recurrent_kernel"][:, 2 * UNITS :]
    for t in range(TIME):
        x_z, x_r, x_n = np.split(inputs[:, t] @ leaves["kernel"] + leaves["bias"][0], 3, axis=1)
        s_z, s_r, s_n = np.split(h @ leaves["recurrent_kernel"] + leaves["bias"][1], 3, axis=1)
        z, r = sigmoid(x_z + s_z), sigmoid(x_r + s_r)
        within = r * s_n if reset_after else (r * h) @ recurrent + leaves["bias"][1][2 * UNITS :]
        n = np.tanh(x_n + within)
        h = (1 - z) * h + z * n if exchanged else z * h + (1 - z) * n
        np.testing.assert_allclose(outputs[:, t], h, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(state[0], h, rtol=1e-12, atol=1e-13)


def test_a_gradient_that_passes_in_part_changes_no_value() -> None:
    import jax
    import jax.numpy as jnp

    from jax_models.counterfactual.blend import pass_gradient

    with precise_jax():
        x = jnp.asarray(draw(7))
        value, pull = jax.vjp(lambda x: pass_gradient(jnp.asarray(0.3), x), x)
        assert np.array_equal(value, x)
        assert np.array_equal(pull(jnp.ones(7))[0], np.full(7, 0.3))


def test_the_walk_is_tfas_monotonic_attention_with_its_gradient() -> None:
    import jax
    import jax.numpy as jnp

    from jax_models.counterfactual.attention import walk_on
    from jax_models.monotonic import monotonic_attention

    with precise_jax():
        chosen = jnp.asarray(sigmoid(2 * draw(ROWS, 6)))
        # The ends: a place that is padding, and one at which the walk stops for certain.
        chosen = chosen.at[0, 4:].set(0).at[1, 2].set(1)
        before = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(6), ROWS))
        adjoint = jnp.asarray(draw(ROWS, 6, seed=5))
        mine, pull = jax.vjp(walk_on, chosen, before)
        truth, pull_truth = jax.vjp(lambda p, a: monotonic_attention(p, a, "parallel"), chosen, before)
        np.testing.assert_allclose(mine, truth, rtol=1e-12, atol=1e-15)
        for a, b in zip(pull(adjoint), pull_truth(adjoint), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * float(np.abs(b).max()))
