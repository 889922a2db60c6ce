"""The witness on a live port: its own loss, and its reference, each as a function of the leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from oracle.bridge.mirror.mirrored import flatten
from oracle.bridge.mirror.run_oracle_side import make_reference
from oracle.bridge.mirror.run_port_side import PortRun, make_loss
from oracle.compare import Comparison
from oracle.errors import OracleError
from oracle.frameworks import import_tensorflow, precise_jax
from oracle.judgement import Hearing, Judgement, choose_directions, hear, judge, settle
from oracle.live_port import LivePort, split_outputs
from oracle.record import Record
from oracle.steps.leaves import nest_leaves

Arrays = Mapping[str, np.ndarray]


def hear_live(port: LivePort, run: PortRun, truth: Record, comparison: Comparison, *, seed: int) -> Judgement:
    """Say who is wrong of a live port and its reference. Moves the trained weights, and restores them.

    The port's loss is computed eagerly: what it keeps between calls shows as a loss that is another.

    Args:
        port: the live port.
        run: what its side gave, in float64.
        truth: the oracle's record.
        comparison: the two held against each other.
        seed: of the directions.

    Raises:
        UsageError: if the loss or the reference gives no scalar.
    """
    truths = {leaf: truth.tensors[f"gradient/{leaf}"] for leaf in run.mirror.spec.weight_shapes()}
    oracle = {leaf: gradient for leaf, gradient in truths.items() if gradient is not None}
    gradients = {leaf: run.record.tensors.get(f"gradient/{leaf}") for leaf in oracle}
    directions = choose_directions(gradients, oracle, seed=seed)
    point = {leaf: run.weights[leaf] for leaf in oracle}
    claims = {leaf: settle(gradients[leaf], array) for leaf, array in oracle.items()}
    before = {name: variable.numpy() for name, variable in run.mirror.tensors.items()}
    try:
        heard = hear(_port_loss(port, run), point, claims, directions)
    except OracleError:
        raise
    except Exception as error:
        # The port's code ran twice for its record; that it does not bear to be called again is no finding.
        what = " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])
        said = f"cannot say who is wrong: called again, the port's loss raises {what}"
        return Judgement("unknown", (said,), seed)
    finally:
        for name, variable in run.mirror.tensors.items():
            variable.assign(before[name])
    theirs = _hear_reference(port, run, point, oracle, directions)
    names = [row.name for row in comparison.findings if row.status not in ("missing", "unexpected")]
    loss = run.record.tensors.get("loss")
    return judge(
        directions,
        heard,
        theirs,
        seed=seed,
        oracle_gradients=oracle,
        forward_findings=[name for name in names if not name.startswith("gradient/")],
        other_findings=[row.name for row in comparison.findings if row.name.startswith("gradient/")],
        recorded_loss=None if loss is None else float(loss),
        own_reference=port.reference is not None,
    )


def _port_loss(port: LivePort, run: PortRun) -> Any:
    tensorflow = import_tensorflow()
    tensors = {name: tensorflow.constant(array) for name, array in run.batch.items()}
    compute = make_loss(port)

    def loss(point: Arrays) -> float:
        run.mirror.assign(nest_leaves({**run.weights, **point}))
        value, _ = split_outputs(compute(tensors), "the loss")
        return float(value)

    return loss


def _hear_reference(port: LivePort, run: PortRun, point: Arrays, oracle: Arrays, directions: Any) -> Hearing:
    reference = port.reference or make_reference(port, run.mirror)
    others = {name: array for name, array in run.batch.items() if array.dtype.kind != "f"}
    floats = {name: array for name, array in run.batch.items() if array.dtype.kind == "f"}

    def compute(params: Any) -> Any:
        result = reference(run.mirror, run.mirror.expand(params), {**floats, **others})
        return split_outputs(result, "the reference")[0]

    def nest(moved: Arrays) -> Any:
        return nest_leaves({**run.weights, **moved})

    still = {leaf: np.zeros_like(array) for leaf, array in flatten(nest({})).items()}

    def slope(params: Any, tangent: Any) -> Any:
        return jax.jvp(compute, (params,), (tangent,))[1]

    with precise_jax():
        call, push = jax.jit(compute), jax.jit(slope)
        try:
            call(nest({}))
        except jax.errors.JAXTypeError:
            # A reference that looks at values runs op by op.
            call, push = compute, slope

        def push_forward(direction: Arrays) -> float:
            return float(push(nest({}), nest_leaves({**still, **direction})))

        try:
            push_forward({})
            forward_mode = push_forward
        except TypeError:
            # `jax.custom_vjp` has reverse mode alone.
            forward_mode = None
        return hear(
            lambda p: float(call(nest(p))),
            point,
            oracle,
            directions,
            forward_mode=forward_mode,
        )
