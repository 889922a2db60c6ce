"""Layers held to account by themselves: each is run by the oracle on the very input that the port gave it.

A layer's output from the port's own input is right whatever came before, and so is its input's adjoint from
the port's own adjoint of its output. So a fault is found in one layer only, however far its effects go.
Between the layers the seams are held to account in the same way: what is read has to be what was given, and
an adjoint the sum of what comes back from everything that reads the value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from oracle.frameworks import import_jax, precise_jax
from oracle.localisation import Check
from oracle.places import bound_of, count_real, rounding_of
from oracle.spec import AttentionNMT, EncoderDecoder
from oracle.steps.accounts import Accounts
from oracle.steps.counterfactual import Evaluator
from oracle.steps.leaves import flatten_leaves, nest_leaves
from oracle.tolerance import FLOAT32_ROUNDING, largest

if TYPE_CHECKING:
    from oracle.steps.wiring import Layer, Seam

Arrays = Mapping[str, np.ndarray]
Tensors = Mapping[str, np.ndarray | None]


def check_layers(
    spec: EncoderDecoder | AttentionNMT,
    weights: Arrays,
    batch: Arrays,
    port_trace: Tensors,
    *,
    oracle_trace: Tensors | None = None,
) -> list[Check]:
    """Hold every layer and seam of which the port's steps are known to account.

    A layer's check has the path of its leaves, `decoder/cell`; that of its weights' gradients, which have to
    be the sum over the steps of the port's own adjoints, `decoder/cell/weights`. A seam's has a name:
    `handoff`, `memory`, `feeding`, `loss`; `decoder/cell/state` for what a step takes over from the step
    before, `decoder/cell/input` for what else a layer reads. `decoder/cell/h` is an adjoint that is not the
    sum of what comes back, whatever is left out of it.

    Args:
        spec: the model.
        weights: leaves by path.
        batch: what `oracle.batch.batch_tensors` says.
        port_trace: the tensors of the port's record: `step/...`, `gradient/step/...`, and, for the weights
            and the loss, `gradient/<leaf>` and `loss`.
        oracle_trace: the oracle's, for whether what goes in is right; by default it is computed.

    Returns:
        The checks in the order of the forward pass, the two passes of one thing together. None of a layer
        whose steps are not known.

    Raises:
        MissingPackageError: if JAX or Flax is not installed.
        UsageError: if the spec is of a mirrored model.
    """
    truth = Evaluator(spec, weights, batch).trace() if oracle_trace is None else oracle_trace
    port = {name: tensor for name, tensor in port_trace.items() if _fits(name, tensor, truth)}
    values = _strip("step/", port)
    adjoints = {
        name: np.zeros_like(values[name]) if adjoint is None else adjoint
        for name, adjoint in _strip("gradient/step/", port).items()
        if name in values
    }
    import_jax()
    with precise_jax():
        compute, jax = _compile(spec), import_jax()
        computed, rounded = (
            jax.device_get(
                compute(
                    nest_leaves({path: array.astype(dtype) for path, array in weights.items()}),
                    _cast(_name_batch(batch), dtype),
                    _cast(values, dtype),
                    _cast(adjoints, dtype),
                )
            )
            for dtype in ("float64", "float32")
        )
        # What float32 costs, in the port's precision.
        unit = rounding_of(port) / FLOAT32_ROUNDING
        noise = jax.tree.map(lambda one, other: unit * largest(one - other), computed, rounded)
    accounts = Accounts(bound_of(port), functools.partial(_agrees, spec, batch, port, truth))
    layers, seams = _find_known(spec, values.keys() | _name_batch(batch).keys())
    for layer, outcome, change in zip(layers, computed["layers"], noise["layers"], strict=True):
        _hold_layer(accounts, layer, outcome, change, port)
    for seam, outcome, change in zip(seams, computed["seams"], noise["seams"], strict=True):
        _hold_seam(accounts, seam, outcome, change, port)
    _hold_adjoints(accounts, spec, layers, seams, computed, noise, port)
    return accounts.list_checks([layer.site for layer in layers])


def _hold_layer(
    accounts: Accounts, layer: Layer, outcome: Mapping[str, Any], noise: Mapping[str, Any], port: Tensors
) -> None:
    for name, expected in outcome["gives"].items():
        change = noise["gives"][name]
        accounts.hold(layer.site, "forward", expected, port[f"step/{name}"], noise=change, reads=layer.reads)
    gives = [f"gradient/step/{name}" for name in layer.gives]
    if f"{layer.site}/input" in outcome["reads"]:
        name = f"{layer.site}/input"
        adjoint = port.get(f"gradient/step/{name}")
        if f"gradient/step/{name}" in port:
            change = noise["reads"][name]
            accounts.hold(layer.site, "backward", outcome["reads"][name], adjoint, noise=change, reads=gives)
    changes = flatten_leaves(noise["leaves"])
    for leaf, expected in flatten_leaves(outcome["leaves"]).items():
        name = f"gradient/{layer.site}/{leaf}"
        if name in port:
            site = f"{layer.site}/weights"
            accounts.hold(
                site, "backward", expected, port[name], noise=changes[leaf], reads=gives, time=False
            )


def _hold_seam(
    accounts: Accounts, seam: Seam, outcome: Mapping[str, Any], noise: Mapping[str, Any], port: Tensors
) -> None:
    options: dict[str, Any] = {"noise": noise["value"], "reads": seam.reads}
    if seam.into == "loss":
        if port.get("loss") is not None:
            accounts.hold("loss", "forward", outcome["value"], port["loss"], time=False, **options)
        return
    whole = port[f"step/{seam.into}"]
    assert whole is not None
    given = np.asarray(seam.choose(whole))
    first = 0 if given.ndim < 3 else whole.shape[1] - given.shape[1]
    accounts.hold(
        seam.name,
        "forward",
        outcome["value"],
        given,
        first=first,
        counts=outcome["counts"],
        **options,
    )


def _hold_adjoints(
    accounts: Accounts,
    spec: EncoderDecoder | AttentionNMT,
    layers: Sequence[Layer],
    seams: Sequence[Seam],
    computed: Mapping[str, Any],
    noise: Mapping[str, Any],
    port: Tensors,
) -> None:
    """Each value's adjoint is the sum of what comes back from all that reads it."""
    from oracle.steps.wiring import find_wiring

    returns: dict[str, list[tuple[str, str, np.ndarray]]] = {}
    changes: dict[str, float] = {}
    for seam, outcome, change in zip(seams, computed["seams"], noise["seams"], strict=True):
        for name, part in outcome["back"].items():
            returns.setdefault(name, []).append((seam.name, seam.into, part))
            changes[name] = changes.get(name, 0.0) + change["back"][name]
    for layer, outcome, change in zip(layers, computed["layers"], noise["layers"], strict=True):
        for name, part in outcome["reads"].items():
            if not name.rpartition("/")[2].startswith(("input", "state_", "query")):
                returns.setdefault(name, []).append((layer.site, layer.gives[0], part))
                changes[name] = changes.get(name, 0.0) + change["reads"][name]
    every_layer, every_seam = find_wiring(spec)
    readers: dict[str, int] = {}
    for reads in [seam.reads for seam in every_seam] + [layer.reads for layer in every_layer]:
        for name in reads:
            readers[name] = readers.get(name, 0) + 1
    for name, parts in returns.items():
        adjoint = f"gradient/{name}" if name.startswith("batch/") else f"gradient/step/{name}"
        if adjoint in port and len(parts) == readers[name]:
            accounts.hold_sum(name, parts, port[adjoint], noise=changes[name])


def _agrees(
    spec: EncoderDecoder | AttentionNMT, batch: Arrays, port: Tensors, truth: Tensors, name: str
) -> bool:
    """Whether a value or an adjoint is the oracle's, where it means something."""
    if name.startswith("batch/") or name == "loss":
        return True
    whole = name if name.startswith("gradient/") else f"step/{name}"
    mine, other = port.get(whole), truth.get(whole)
    if other is None:
        return True
    if mine is None:
        return not np.any(other)
    other = other[:, : mine.shape[1]]
    real = count_real(spec, batch, whole, mine.shape)
    gap = np.where(real, np.abs(mine - other), 0)
    return bool(np.max(gap, initial=0.0) <= bound_of(port) * largest(other))


def _fits(name: str, tensor: np.ndarray | None, truth: Tensors) -> bool:
    """Whether a tensor is of the shape that the oracle's has; a decoder may have ended earlier."""
    other = truth.get(name)
    if not name.startswith(("step/", "gradient/step/")) or tensor is None:
        return True
    if other is None or tensor.ndim != other.ndim or tensor.shape[1] > other.shape[1]:
        return False
    return tensor.shape[:1] + tensor.shape[2:] == other.shape[:1] + other.shape[2:]


def _strip(prefix: str, tensors: Tensors) -> dict[str, Any]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _name_batch(batch: Arrays) -> dict[str, np.ndarray]:
    return {f"batch/{name}": array for name, array in batch.items()}


def _cast(arrays: Arrays, dtype: str) -> dict[str, np.ndarray]:
    return {
        name: array.astype(dtype if array.dtype.kind == "f" else np.int32) for name, array in arrays.items()
    }


def _find_known(spec: EncoderDecoder | AttentionNMT, names: Any) -> tuple[list[Layer], list[Seam]]:
    """The layers and the seams of which everything is known."""
    from oracle.steps.wiring import find_wiring

    layers, seams = find_wiring(spec)
    known = {*names, "loss"}
    return (
        [layer for layer in layers if known.issuperset((*layer.reads, *layer.gives))],
        [seam for seam in seams if known.issuperset((*seam.reads, seam.into))],
    )


@functools.cache
def _compile(spec: EncoderDecoder | AttentionNMT) -> Callable[..., dict[str, Any]]:
    """What every layer and seam makes of the port's values and adjoints: one program for each spec."""
    import jax
    import jax.numpy as jnp

    def compute(leaves: Any, batch: Any, values: Any, adjoints: Any) -> dict[str, Any]:
        known = {**batch, **values}
        layers, seams = _find_known(spec, known)
        returned, of_layers, of_seams = dict(adjoints), [], []
        for layer in layers:
            own = leaves
            for part in layer.site.split("/"):
                own = own[part]
            read = {name: known[name] for name in layer.reads}

            def run(own: Any, read: Any, layer: Layer = layer) -> Any:
                return layer.run(own, {**known, **read})

            gives, pull = jax.vjp(run, own, read)
            slopes = {name: adjoints.get(name, jnp.zeros_like(value)) for name, value in gives.items()}
            d_leaves, d_reads = pull(slopes)
            returned = {**d_reads, **returned}
            of_layers.append({"gives": gives, "reads": d_reads, "leaves": d_leaves})
        for seam in seams:
            read = {name: known[name] for name in seam.reads}

            def connect(read: Any, seam: Seam = seam) -> Any:
                return seam.run({**known, **read})

            value, pull = jax.vjp(connect, read)
            counts = None if seam.counts is None else seam.counts(known)
            back = {}
            if seam.into == "loss" or seam.into in returned:
                slope = jnp.ones_like(value) if seam.into == "loss" else seam.choose(returned[seam.into])
                back = pull(slope if counts is None else slope * counts[..., None].astype(slope.dtype))[0]
            of_seams.append({"value": value, "back": back, "counts": counts})
        return {"layers": of_layers, "seams": of_seams}

    return jax.jit(compute)
