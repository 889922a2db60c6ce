"""The oracle's side of a live comparison: JAX runs the reference and its gradients."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from oracle.bridge.mirror import mirror
from oracle.bridge.mirror.mirrored import Mirror, flatten
from oracle.bridge.mirror.port_loss import input_names
from oracle.bridge.mirror.run_port_side import PortRun, name_frozen
from oracle.case import Dtype, jitter_arrays
from oracle.errors import OracleError, UsageError
from oracle.frameworks import precise_jax
from oracle.live_port import LivePort, split_outputs
from oracle.record import Record
from oracle.run_jax import describe_oracle
from oracle.steps.leaves import nest_leaves
from oracle.steps.sequential_sums import SequenceError, sum_in_sequence

Reference = Callable[[Mirror, Any, Mapping[str, Any]], Any]


def run_oracle_side(
    port: LivePort,
    run: PortRun,
    *,
    dtype: Dtype,
    jitters: Sequence[int] = (0,),
    sums_in_sequence: bool = False,
) -> tuple[Record, ...]:
    """Compute the loss, the outputs and the gradients of every trained leaf with the mirror.

    Args:
        port: the live port, for its reference.
        run: what its side gave: the mirror, the weights and the batch.
        dtype: the precision of every computation.
        jitters: a record is made for each: 0 is the weights and the batch themselves, every other number
            moves them to neighbouring numbers of the dtype.
        sums_in_sequence: whether sums over rows are taken row after row. There are no records where the
            reference looks at values, so that it cannot be given another order.

    Raises:
        UsageError: if the reference raises, or gives no scalar.
    """
    reference = port.reference or make_reference(port, run.mirror)
    # What is no float stays NumPy's, so that its values are known while JAX traces.
    others = {name: array for name, array in run.batch.items() if array.dtype.kind != "f"}

    def loss_of(params: Any, floats: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        result = reference(run.mirror, run.mirror.expand(params), {**floats, **others})
        return split_outputs(result, "the reference")

    with precise_jax():
        differentiate = jax.value_and_grad(loss_of, has_aux=True)
        if sums_in_sequence:
            modes = {"jit": jax.jit(sum_in_sequence(differentiate))}
            try:
                return tuple(_record(port, run, modes, dtype, number) for number in jitters)
            except SequenceError:
                return ()
        modes = {"jit": jax.jit(differentiate), "eager": differentiate}
        return tuple(_record(port, run, modes, dtype, number) for number in jitters)


def _record(
    port: LivePort, run: PortRun, modes: dict[str, Callable[..., Any]], dtype: Dtype, jitter: int
) -> Record:
    weights, batch = run.weights, run.batch
    if jitter:
        weights, batch = jitter_arrays(weights, batch, seed=[jitter], dtype=dtype)
    floats = {name: a.astype(dtype) for name, a in batch.items() if a.dtype.kind == "f"}
    params = nest_leaves({leaf: array.astype(dtype) for leaf, array in weights.items()})
    try:
        try:
            mode = next(iter(modes))
            computed = modes[mode](params, floats)
        except jax.errors.JAXTypeError:
            # A reference that looks at values runs op by op.
            modes.pop("jit", None)
            mode = "eager"
            computed = modes[mode](params, floats)
    except (OracleError, SequenceError):
        raise
    except Exception as error:
        said = describe_error(error, port.reference)
        raise UsageError(f"{port.name}: the reference raised {said}") from error
    (loss, outputs), gradients = jax.device_get(computed)
    tensors: dict[str, np.ndarray | None] = {f"output/{name}": np.asarray(o) for name, o in outputs.items()}
    tensors["loss"] = np.asarray(loss)
    trained = run.mirror.spec.weight_shapes()
    tensors |= {
        f"gradient/{leaf}": np.asarray(g) for leaf, g in flatten(gradients).items() if leaf in trained
    }
    origin = describe_oracle(run.record.origin, mode=mode, dtype=dtype, flags=name_frozen(run.mirror))
    return Record(run.mirror.spec, origin, tensors)


def make_reference(port: LivePort, mirrored: Mirror) -> Reference:
    """The reference of one model with a call that is known, held to a loss of Keras.

    Raises:
        MirrorError: if the loss, or what the model computes, is not known.
    """
    ((name, model),) = port.models.items()
    loss = mirror(port.loss)
    inputs = input_names(model, port.batch)
    after = find_activation(last_part(mirrored.spec.root.parts[name]))

    def reference(mirrored: Mirror, params: Any, batch: Mapping[str, Any]) -> Any:
        part = mirrored.children[name]
        given = [batch[key] for key in inputs]
        arguments = given if len(given) > 1 else given[0]
        outputs = part.apply(arguments, params=params[name])
        options: dict[str, Any] = {} if after is None else {"after": after}
        if hasattr(part, "compute_mask"):
            mask = part.compute_mask(arguments, params=params[name])
            options |= {} if mask is None else {"mask": mask}
        return loss.apply(batch["y"], outputs, batch.get("sample_weight"), **options)

    return reference


def last_part(part: Any) -> Any:
    """The layer that gives a model's output, as far as the spec tells."""
    while part.kind in ("keras.Sequential", "keras.Model") and part.parts:
        part = part.parts[part.options["layers"][-1]]
    return part


def find_activation(part: Any) -> str | None:
    """The activation by which a layer ends, if Keras' losses look for it."""
    if part.kind == "keras.layers.Softmax":
        return "softmax"
    ends = part.kind in ("keras.layers.Dense", "keras.layers.Activation")
    return part.options.get("activation") if ends else None


def describe_error(error: Exception, function: Any) -> str:
    """What was raised, where in the file of `function`, and for a missing key what there is instead."""
    said = f"{type(error).__name__}: {error}"
    source = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in frames if frame.f_code.co_filename == source]
    if not own:
        return said
    frame, line = own[-1]
    said += f" ({source}, line {line})"
    if not isinstance(error, KeyError) or frame is not frames[-1][0]:
        return said
    held = {name: value for name, value in frame.f_locals.items() if isinstance(value, Mapping)}
    known = [f"{name} has {', '.join(map(str, value))}" for name, value in held.items()]
    return "; ".join([said, *known])
