"""What commonly used checks say of a seeded fault, each as it comes or as its documentation has it.

Norms are held against the oracle's, as people hold a port's against the original's. The others know the port
alone: its gradient against differences of its own loss.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from oracle import zoo
from oracle.case import cast_case, weight_shapes
from oracle.frameworks import import_jax, import_tensorflow, precise_jax
from oracle.record import Record
from oracle.selftest.fault import Fault
from oracle.selftest.results import Baseline
from oracle.selftest.seeding import seed_fault
from oracle.selftest.trial import Prepared

NORMS = "`np.allclose(rtol=1e-3)` of gradient norms, against the oracle's"
TENSORFLOW = "`tf.test.compute_gradient`, error < 1e-3"
JAX = "`jax.test_util.check_grads`"
CHEX = "`chex.assert_numerical_grads`"
CHECKS = (NORMS, TENSORFLOW, JAX, CHEX)
"""The checks, in the order in which they are shown."""

ELEMENTWISE_LIMIT = 2000
"""tf.test.compute_gradient moves each element twice, so that it is not asked about more."""

Arrays = Sequence[np.ndarray]


def ask_baselines(fault: Fault, prepared: Prepared, port: Record) -> Iterator[Baseline]:
    """What each check says.

    Args:
        fault: the fault.
        prepared: in what it is seeded.
        port: the record of the port with the fault, in float64.

    Yields:
        An answer a check. One that cannot be asked says why.
    """
    yield Baseline(NORMS, *compare_norms(port, prepared.truth))
    with seed_fault(fault):
        try:
            live = LivePort(prepared)
        except Exception as error:  # Whatever the edited port raises when it is traced.
            for check in CHECKS[1:]:
                yield Baseline(check, None, _describe(error))
            return
        for check, ask in ((TENSORFLOW, ask_tensorflow), (JAX, ask_jax), (CHEX, ask_chex)):
            try:
                seen, note = ask(live)
            except Exception as error:  # A check that breaks is one that cannot be used here.
                seen, note = None, _describe(error)
            yield Baseline(check, seen, note)


def compare_norms(port: Record, truth: Record) -> tuple[bool, str]:
    """Whether the norm of any weight's gradient is not the oracle's within 1e-3; a None is seen by anyone."""
    for path in weight_shapes(truth.spec):  # pyright: ignore
        name = f"gradient/{path}"
        expected, given = truth.tensors[name], port.tensors.get(name)
        if given is None:
            return True, f"{name} is None"
        if not np.allclose(np.linalg.norm(given), np.linalg.norm(expected), rtol=1e-3):  # pyright: ignore
            return True, name
    return False, ""


class LivePort:
    """A port with a fault in `tf.function`: its loss, and what it says is the gradient, of its variables.

    Args:
        prepared: in what the fault is seeded.
    """

    def __init__(self, prepared: Prepared) -> None:
        from oracle.run_tf import load_port

        tf = import_tensorflow()
        (choice,) = zoo.choose(prepared.subject.port)
        weights, batch = cast_case(prepared.case, "float64")
        tensors = {name: tf.constant(array) for name, array in batch.items()}
        module = sys.modules[f"tf_models.{choice.model.name}"]
        port, _ = load_port(
            module, choice.variant.name, prepared.case, weights, tensors, eager=False, dtype=tf.float64
        )
        self._variables: Mapping[str, Any] = port.variables_by_name()
        self._loss: Callable[[], Any] = tf.function(lambda: port.step(tensors).loss)
        self._gradients: Callable[[], Any] = tf.function(
            lambda: _fill(tf, port.step(tensors).variable_gradients, self._variables)
        )
        self.start = [variable.numpy() for variable in self._variables.values()]

    def loss(self, values: Arrays) -> np.ndarray:
        """The loss at some values of the variables."""
        self._assign(values)
        return np.asarray(self._loss().numpy(), np.float64)

    def gradients(self, values: Arrays) -> list[np.ndarray]:
        """What the port says is the gradient there; None as zeros."""
        self._assign(values)
        return [gradient.numpy().astype(np.float64) for gradient in self._gradients()]

    def _assign(self, values: Arrays) -> None:
        for variable, value in zip(self._variables.values(), values, strict=True):
            variable.assign(np.asarray(value))


def ask_tensorflow(live: LivePort) -> tuple[bool | None, str]:
    """`tf.test.compute_gradient` over every variable, its largest error held below 1e-3, as tests have it."""
    tf = import_tensorflow()
    count = sum(value.size for value in live.start)
    if count > ELEMENTWISE_LIMIT:
        return None, f"{count} elements, each moved twice"

    @tf.custom_gradient
    def loss(*values: Any) -> Any:
        arrays = [value.numpy() for value in values]

        def give(upstream: Any, variables: Any = None) -> Any:
            gradients = [upstream * gradient for gradient in live.gradients(arrays)]
            return gradients if variables is None else (gradients, [None] * len(variables))

        return tf.constant(live.loss(arrays)), give

    claimed, measured = tf.test.compute_gradient(loss, [tf.constant(value) for value in live.start])
    error = max(float(np.abs(a - b).max()) for a, b in zip(claimed, measured, strict=True))
    return not error < 1e-3, f"largest error {error:.2g}"


def ask_jax(live: LivePort) -> tuple[bool, str]:
    """`jax.test_util.check_grads` of reverse mode with its defaults, in float64."""
    import jax.test_util

    with precise_jax():
        return _speaks_up(
            lambda: jax.test_util.check_grads(_as_jax(live), tuple(live.start), 1, modes=["rev"])
        )


def ask_chex(live: LivePort) -> tuple[bool, str]:
    """`chex.assert_numerical_grads` of reverse mode with its defaults, in float64."""
    import chex

    with precise_jax():
        return _speaks_up(
            lambda: chex.assert_numerical_grads(_as_jax(live), tuple(live.start), order=1, modes=["rev"])
        )


def _as_jax(live: LivePort) -> Callable[[Any], Any]:
    """The port's loss as a function of JAX, whose reverse mode gives the port's gradient."""
    jax = import_jax()
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in live.start]
    scalar = jax.ShapeDtypeStruct((), np.float64)

    @jax.custom_vjp
    def loss(*values: Any) -> Any:
        return jax.pure_callback(live.loss, scalar, values)

    def forward(*values: Any) -> Any:
        return loss(*values), values

    def backward(values: Any, upstream: Any) -> Any:
        gradients = jax.pure_callback(live.gradients, shapes, values)
        return tuple(upstream * gradient for gradient in gradients)

    loss.defvjp(forward, backward)
    return loss


def _speaks_up(check: Callable[[], None]) -> tuple[bool, str]:
    try:
        check()
    except AssertionError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return True, lines[0][:120] if lines else ""
    return False, ""


def _fill(tf: Any, gradients: Mapping[str, Any], variables: Mapping[str, Any]) -> list[Any]:
    """The gradients in the order of the variables; zeros for None, as `tf.test.compute_gradient` has it."""
    return [
        tf.zeros_like(variable) if gradients[name] is None else gradients[name]
        for name, variable in variables.items()
    ]


def _describe(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:120] if lines else ''}"
