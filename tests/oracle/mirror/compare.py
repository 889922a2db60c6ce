"""Holding a mirrored object against the live one: results and all gradients, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oracle.bridge.mirror import mirror
from oracle.bridge.mirror.mirrored import Mirror, flatten
from oracle.bridge.mirror.run_port_side import draw_weights
from oracle.frameworks import precise_jax
from oracle.tolerance import FLOAT64_BOUND, largest
from tests.parity.tensorflow_side import tf


def hold(
    live: Any,
    run_tf: Callable[[Any, Mapping[str, Any]], Any],
    run_jax: Callable[[Mirror, Any, Mapping[str, Any]], Any],
    arrays: Mapping[str, np.ndarray],
    *,
    redraw: bool = True,
) -> Mirror:
    """Assert that both sides agree, on weights drawn anew and a loss that weighs every result at random.

    `run_tf(live, tensors)` and `run_jax(mirror, params, arrays)` give the same results in any structure of
    lists, tuples and dictionaries. The floating-point arrays are differentiated, too.
    """
    tensors = {name: tf.constant(array) for name, array in arrays.items()}
    run_tf(live, tensors)
    if redraw:
        first = mirror(live)
        first.assign(draw_weights(first, 0))
    mirrored = mirror(live)
    floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
    rng = np.random.default_rng(7)
    with tf.GradientTape() as tape:
        tape.watch([tensors[name] for name in floats])
        results = [tf.convert_to_tensor(r) for r in tf.nest.flatten(run_tf(live, tensors))]
        weights = [rng.normal(size=result.shape) for result in results]
        loss = tf.add_n(
            [
                tf.reduce_sum(tf.cast(result, tf.float64) * weight)
                for result, weight in zip(results, weights, strict=True)
            ]
        )
    sources = {"variables": dict(mirrored.tensors), "arrays": {name: tensors[name] for name in floats}}
    gradients = tape.gradient(loss, sources)
    of_leaves = mirrored.gradients_to_leaves(gradients["variables"])

    def loss_of(params: Any, given: Mapping[str, Any]) -> Any:
        ours = jax.tree.leaves(run_jax(mirrored, params, {**arrays, **given}))
        assert [np.shape(r) for r in ours] == [tuple(r.shape) for r in results]
        return sum(jnp.sum(r * w) for r, w in zip(ours, weights, strict=True)), ours

    # Compiling takes longer than so few steps.
    with precise_jax(), jax.disable_jit():
        given = {name: jnp.asarray(arrays[name]) for name in floats}
        (value, ours), (of_params, of_arrays) = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(
            jax.tree.map(jnp.asarray, mirrored.params), given
        )
        for theirs, mine in zip(results, ours, strict=True):
            assert_close("a result", theirs.numpy(), mine)
        assert_close("loss", loss.numpy(), value)
        found = flatten(of_params)
        assert set(of_leaves) == set(mirrored.spec.weight_shapes())
        for leaf, gradient in of_leaves.items():
            assert_close(leaf, gradient, found[leaf])
        for name in floats:
            assert_close(name, gradients["arrays"][name], of_arrays[name])
    return mirrored


def assert_close(name: str, theirs: Any, ours: Any) -> None:
    """Within the bound of float64. A gradient that is None must be zero."""
    ours = np.asarray(ours)
    theirs = np.zeros_like(ours) if theirs is None else np.asarray(theirs)
    assert theirs.shape == ours.shape, name
    assert largest(theirs - ours) <= FLOAT64_BOUND * max(largest(ours), 1e-300), (name, theirs, ours)
