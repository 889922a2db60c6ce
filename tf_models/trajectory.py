"""A port's trajectory: training in TensorFlow, from given weights, on given batches."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from oracle import zoo
from oracle.bridge.mapping import check_names, write_weights
from oracle.bridge.sites import find_sites
from oracle.case import Case, cast_case
from oracle.optimizer import Optimizer
from oracle.trajectory import Gradient, Slices, Step, gradient_norm
from tf_models.optimizers import LiveOptimizer, build_optimizer, describe_optimizer


def step_port(cases: Sequence[Case], *, model: str, optimizer: Optimizer, l2: float = 0.0) -> Iterator[Step]:
    """Train a port in float64: a step on each case's batch, from the first case's weights.

    Loss and gradients are computed in `tf.function`, which every port can run in; the optimizer's own step is
    done eagerly.

    Args:
        cases: one a step, all of the port's spec and of batches of one shape.
        model: the port, `explicit_state/full`.
        optimizer: what trains.
        l2: the rate of `tf.nn.l2_loss` of every variable that is added to the loss.

    Raises:
        UsageError: if there is no such port.
        BridgeError: if the port's variables are not those of the spec.
    """
    (choice,) = zoo.choose(model)
    module = importlib.import_module(f"tf_models.{choice.model.name}")
    port = module.build(cases[0].spec, variant=choice.variant.name, dtype=tf.float64)
    weights, batch = cast_case(cases[0], "float64")
    compute = tf.function(port.step)
    compute.get_concrete_function(_to_tensors(batch))
    variables = port.variables_by_name()
    sites = find_sites(cases[0].spec, port.convention)
    check_names(
        sites, {name: tuple(variable.shape) for name, variable in variables.items()}, where=choice.name
    )
    initial = write_weights(sites, weights)
    for name, array in initial.items():
        variables[name].assign(array)
    # In the order of the sites, so that tensors are named in the order of the model.
    live = build_optimizer(optimizer, {name: variables[name] for name in initial})
    for number, case in enumerate(cases):
        _, batch = cast_case(case, "float64")
        computed = compute(_to_tensors(batch))
        loss, gradients = computed.loss, dict(computed.variable_gradients)
        if l2:
            loss, gradients = _add_l2(loss, gradients, live.variables, l2)
        norm = gradient_norm(gradients.values())
        live.apply(gradients)
        given = {name: _to_arrays(gradients[name]) for name in live.variables}
        yield Step(number + 1, float(loss), norm, _read_tensors(live), given)


def step_optimizer(
    optimizer: Optimizer | Any,
    initial: Mapping[str, np.ndarray],
    gradients: Sequence[Mapping[str, Gradient]],
) -> Iterator[Step]:
    """Drive an optimizer alone, by given gradients, from given parameters.

    Args:
        optimizer: what it is, or a live object of TensorFlow's that has done no step.
        initial: the float64 parameters, by name.
        gradients: one mapping a step: an array, or `Slices`, for each parameter.
    """
    variables = {
        name: tf.Variable(array, dtype=tf.float64, name=name.replace("/", "_"))
        for name, array in initial.items()
    }
    if isinstance(optimizer, Optimizer):
        live = build_optimizer(optimizer, variables)
    else:
        live = LiveOptimizer(optimizer, variables, describe_optimizer(optimizer))
    for number, each in enumerate(gradients):
        given = {name: _to_gradient(gradient, variables[name]) for name, gradient in each.items()}
        live.apply(given)
        yield Step(number + 1, None, gradient_norm(each.values()), _read_tensors(live), each)


def _to_gradient(gradient: Gradient, variable: tf.Variable) -> Any:
    if isinstance(gradient, Slices):
        return tf.IndexedSlices(
            tf.constant(gradient.values), tf.constant(gradient.indices), tf.constant(list(variable.shape))
        )
    return tf.constant(gradient)


def _to_arrays(gradient: Any) -> Gradient | None:
    if isinstance(gradient, tf.IndexedSlices):
        return Slices(np.array(gradient.values), np.array(gradient.indices))
    return None if gradient is None else np.array(gradient)


def _add_l2(
    loss: tf.Tensor, gradients: Mapping[str, Any], variables: Mapping[str, tf.Variable], rate: float
) -> tuple[tf.Tensor, dict[str, Any]]:
    """The loss with `tf.nn.l2_loss` of every variable, and its gradients, by TensorFlow's own derivative."""
    with tf.GradientTape() as tape:
        added = tf.add_n([tf.constant(rate, tf.float64) * tf.nn.l2_loss(each) for each in variables.values()])
    more = tape.gradient(added, dict(variables))
    summed = {
        name: more[name] if gradients[name] is None else gradients[name] + more[name] for name in variables
    }
    return loss + added, summed


def _read_tensors(live: LiveOptimizer) -> dict[str, np.ndarray]:
    # A variable's `numpy` may be its own memory, which the next step overwrites.
    tensors = {f"slot/{name}": np.array(array) for name, array in live.read_slots().items()}
    return tensors | {f"parameter/{name}": np.array(each.numpy()) for name, each in live.variables.items()}


def _to_tensors(batch: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in batch.items()}
