"""Runs a TF1 graph and its oracle on the same arrays: what `tf1_cells` and `tf1_loops` share.

The cells of `tf.compat.v1` work in graphs only, so each configuration is a graph and a session. The
random numbers that dropout drew in that session are fetched in the same run, and replayed as masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from oracle.bridge.layout import Layout
from tests.parity.harness import Pair
from tests.parity.tensorflow_side import tf

v1 = tf.compat.v1

Named = dict[str, Any]


def draw_arrays(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A standard normal array for each name; the same for the same seed and names."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shapes[name]) for name in sorted(shapes)}


def draw_targets(seed: int, results: Named) -> dict[str, np.ndarray]:
    """What the loss, half the squared distance from it, compares the results with.

    A sum of squares has no terms that cancel, as a weighted sum may, leaving nothing but rounding.
    """
    return draw_arrays(seed + 1, {name: tuple(array.shape) for name, array in results.items()})


@contextmanager
def tf1_control_flow() -> Iterator[None]:
    """Loops and conditions are those of TF1 within, not functions."""
    was_v2 = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        if was_v2:
            v1.enable_control_flow_v2()


def _plain_session() -> Any:
    # A graph that runs once is not worth optimising.
    config = v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return config


def run_graph(
    build: Callable[[Named], tuple[Named, Any]],
    sources: Mapping[str, np.ndarray],
    layout: Layout,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None], Any]:
    """Build a graph, fill its variables, run it and differentiate a loss of its results.

    Args:
        build: makes (the results by name, tensors to fetch beside them) of the sources' tensors.
        sources: what enters the graph and gets a gradient.
        layout: of the variables, whose names are those below the scope that all of them share.
        seed: of the variables, of the targets of the loss, and of the graph.

    Returns:
        The variables by their names in the layout; the results, the loss and the gradients (those of the
        variables under the names of the leaves); and the values of the other tensors.
    """
    with tf1_control_flow(), tf.Graph().as_default():
        v1.set_random_seed(seed)
        tensors = {name: tf.constant(values) for name, values in sources.items()}
        results, others = build(tensors)
        targets = draw_targets(seed, results)
        loss = tf.add_n([tf.nn.l2_loss(results[name] - targets[name]) for name in sorted(results)])
        variables = {local_name(v.op.name, layout.variables): v for v in v1.trainable_variables()}
        values = {
            name: array / np.sqrt(array.shape[0])
            for name, array in draw_arrays(seed + 2, layout.variables).items()
        }
        wanted = {f"variable/{name}": variable for name, variable in variables.items()} | {
            f"gradient/{name}": tensor for name, tensor in tensors.items()
        }
        found = dict(zip(wanted, v1.gradients(loss, list(wanted.values())), strict=True))
        with v1.Session(config=_plain_session()) as session:
            starts = {name: variable.initializer for name, variable in variables.items()}
            feeds = {start.inputs[1]: values[name] for name, start in starts.items()}
            session.run(list(starts.values()), feeds)
            fetched = {name: gradient for name, gradient in found.items() if gradient is not None}
            results, loss, fetched, others = session.run((results, loss, fetched, others))
    gradients = {name: fetched.get(name) for name in found}
    of_variables = {name: gradients.pop(f"variable/{name}") for name in variables}
    of_leaves = layout.gradients_to_leaves(of_variables)
    gradients |= {f"gradient/{name}": gradient for name, gradient in of_leaves.items()}
    return values, {**results, "loss": loss, **gradients}, others


def run_oracle(
    module: nn.Module,
    forward: Callable[[Any, Named], Named],
    leaves: Mapping[str, np.ndarray],
    sources: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, np.ndarray]:
    """The oracle's results, loss and gradients. `forward(module, sources)` runs the bound module."""

    def measure(leaves: Named, sources: Named) -> tuple[Any, Named]:
        variables = {"params": unflatten_dict(leaves, sep="/")}
        results = nn.apply(forward, module)(variables, sources)
        targets = draw_targets(seed, results)
        return sum(jnp.sum((results[k] - targets[k]) ** 2) / 2 for k in sorted(results)), results

    arrays = (
        {k: jnp.asarray(v) for k, v in leaves.items()},
        {k: jnp.asarray(v) for k, v in sources.items()},
    )
    # One operation at a time: a drawn configuration is run once, so compiling it would not pay.
    with jax.disable_jit():
        (loss, results), gradients = jax.value_and_grad(measure, argnums=(0, 1), has_aux=True)(*arrays)
    named = {f"gradient/{name}": value for part in gradients for name, value in part.items()}
    return {name: np.asarray(value) for name, value in {**results, "loss": loss, **named}.items()}


def compare(
    build: Callable[[Named], tuple[Named, Any]],
    sources: Mapping[str, np.ndarray],
    layout: Layout,
    seed: int,
    module: nn.Module,
    forward: Callable[[Any, Named, Any], Named],
) -> Pair:
    """Both sides of one configuration. `forward` gets the values of the other tensors of `build`."""
    values, tf_side, others = run_graph(build, sources, layout, seed)

    def run(module: Any, sources: Named) -> Named:
        return forward(module, sources, others)

    return Pair(tf=tf_side, jax=run_oracle(module, run, layout.to_leaves(values), sources, seed))


def flatten_named(prefix: str, tree: Any) -> Named:
    """The leaves of a JAX or TensorFlow structure of tuples, named by their order."""
    return {f"{prefix}/{i}": leaf for i, leaf in enumerate(tf.nest.flatten(tree))}


def draw_state(cell: Any, prefix: str, batch: int, seed: int) -> dict[str, np.ndarray]:
    """A random initial state of an oracle's cell, as named arrays."""
    zeros = flatten_named(prefix, cell.zero_state(batch, jnp.float64))
    return draw_arrays(seed, {name: np.shape(array) for name, array in zeros.items()})


def pick_state(like: Any, prefix: str, sources: Named) -> Any:
    """The state `prefix` of the sources, structured like the state `like` of either side."""
    leaves = [sources[f"{prefix}/{i}"] for i in range(len(tf.nest.flatten(like)))]
    return tf.nest.pack_sequence_as(like, leaves)


def local_name(name: str, known: Mapping[str, tuple[int, ...]]) -> str:
    """The longest name that the layout knows at the end of a variable's name."""
    fitting = [k for k in known if name == k or name.endswith(f"/{k}")]
    assert fitting, f"{name} is none of {sorted(known)}"
    return max(fitting, key=len)
