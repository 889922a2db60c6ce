"""The oracle's step over many devices: each holds all weights, and some of the batch's rows.

The program is that of one device. XLA cuts it to what the devices hold, so that whatever is summed or counted
over the batch is of all its rows: the loss, and every gradient of a weight. Source: `jax.sharding`. Several
hosts are in `oracle.hosts`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.errors import CaseError, UsageError
from oracle.frameworks import import_jax
from oracle.hosts import ask_all
from oracle.steps.leaves import flatten_leaves
from oracle.storage import digest_arrays

AXIS = "data"
"""The mesh's one axis, along which the rows of the batch are."""


@dataclass(frozen=True)
class DataMesh:
    """Over how many devices the rows of a batch are spread.

    Args:
        data: how many.

    Raises:
        UsageError: if they are fewer than one.
    """

    data: int

    def __post_init__(self) -> None:
        if self.data < 1:
            raise UsageError(f"mesh: {AXIS}={self.data} is no number of devices; give 1 or more")

    def __str__(self) -> str:
        return f"{AXIS}={self.data}"


def parse_mesh(text: str) -> DataMesh:
    """Read a mesh as it is given on the command line, `data=8`.

    Raises:
        UsageError: if the axis is another, or there is no number of devices.
    """
    axis, equals, number = text.partition("=")
    if axis != AXIS:
        raise UsageError(f"mesh: {text!r} has no axis that is known; give data=N, the batch over N devices")
    if not equals or not re.fullmatch(r"-?[0-9]{1,9}", number, re.ASCII):
        raise UsageError(f"mesh: {text!r} has no number of devices; give data=N, as in data=8")
    return DataMesh(int(number))


def run_step(
    compute: Callable[..., Any], weights: Any, batch: Mapping[str, Any], *, mesh: DataMesh | None = None
) -> Any:
    """Run a step that JAX compiled, over a mesh if one is given, and gather what it gives.

    Args:
        compute: `jax.jit` of what `oracle.steps.*.differentiate` gives, with `shards=mesh.data` of its own.
        weights: nested leaves, of which each device holds all.
        batch: arrays [batch, ...], of which each device holds as many rows.
        mesh: over which devices; by default one.

    Returns:
        NumPy arrays as of one device, whole, in every process.

    Raises:
        UsageError: if there are fewer devices, or they cannot have as many rows each.
        CaseError: if another process was given other weights or another batch.
    """
    jax = import_jax()
    if mesh is None:
        return jax.device_get(compute(*jax.device_put((weights, dict(batch)))))
    weights, batch = place(mesh, weights, batch)
    computed = compute(weights, batch)
    if jax.process_count() > 1:
        computed = _replicate(mesh)(computed)
    return jax.device_get(computed)


def place(mesh: DataMesh, weights: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Put weights and batch on a mesh's devices: see `run_step`."""
    jax = import_jax()
    from jax.sharding import NamedSharding, PartitionSpec

    devices = _build(mesh)
    # First: what only one process finds wrong, the others would wait for.
    _check_processes(weights, batch)
    _check_rows(mesh, batch)

    def put(array: Any, sharding: Any) -> Any:
        # `device_put` would have the other processes' devices compare the numbers, array by array.
        return jax.make_array_from_callback(np.shape(array), sharding, lambda index: np.asarray(array)[index])

    whole, by_rows = NamedSharding(devices, PartitionSpec()), NamedSharding(devices, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: put(leaf, whole), weights), {
        name: put(array, by_rows) for name, array in batch.items()
    }


def map_shards(function: Callable[[Any], Any], rows: Any, shards: int) -> Any:
    """`function(rows)`, where it treats each row by itself, computed shard by shard.

    Without shards a program may merge the axes of time and batch, as the fast path does for its matrix
    products, or go over the rows one by one: on a mesh, every device would then gather all rows.

    Args:
        function: of a pytree of arrays [rows, ...], gives another.
        rows: a pytree of arrays [batch, ...].
        shards: how many, which divide the batch.
    """
    if shards == 1:
        return function(rows)
    jax = import_jax()
    split = jax.tree.map(lambda array: array.reshape(shards, -1, *array.shape[1:]), rows)
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), jax.vmap(function)(split))


@functools.cache
def limit_kept(mesh: DataMesh | None) -> int | None:
    """The bytes that the devices of a mesh may keep together for a derivative; None for one device's own.

    All processes get the same number, lest they compile different programs and wait for each other for ever.
    It is the share of `jax_models.fast.remat` of the memory of the host that has least, as often as there are
    hosts.
    """
    if mesh is None:
        return None
    jax = import_jax()
    from jax_models.fast.remat import SHARE, find_memory

    devices = _build(mesh).devices.tolist()
    own = sum(device.process_index == jax.process_index() for device in devices)
    # The devices of a CPU are of one memory.
    mebibytes = find_memory() * (1 if devices[0].platform == "cpu" else own) // 2**20
    least = int(ask_all(np.asarray([mebibytes], np.uint32)).min())
    return int(SHARE * least * jax.process_count()) * 2**20


def describe_mesh(mesh: DataMesh | None) -> dict[str, str]:
    """The mesh, and how many processes there are if several, as flags of a record."""
    if mesh is None:
        return {}
    processes = import_jax().process_count()
    return {"mesh": str(mesh)} | ({"processes": str(processes)} if processes > 1 else {})


@functools.cache
def _build(mesh: DataMesh) -> Any:
    """JAX's mesh, of as many devices of each process."""
    jax = import_jax()
    from jax.sharding import Mesh

    devices, processes = jax.devices(), jax.process_count()
    if mesh.data > len(devices):
        hint = ""
        if devices[0].platform == "cpu":
            number = -(-mesh.data // processes)
            hint = f"; a CPU has more with XLA_FLAGS=--xla_force_host_platform_device_count={number}"
        raise UsageError(
            f"mesh: {mesh} needs {mesh.data} devices, and JAX has {len(devices)} ({devices[0].platform}); "
            f"give data={len(devices)} or less{hint}"
        )
    if mesh.data % processes:
        raise UsageError(
            f"mesh: {mesh} cannot have as many devices of each of {processes} processes; give a multiple "
            f"of {processes}"
        )
    chosen: list[Any] = []
    for process in range(processes):
        own = [device for device in devices if device.process_index == process]
        chosen += own[: mesh.data // processes]
    if len(chosen) < mesh.data:
        raise UsageError(
            f"mesh: {mesh} needs {mesh.data // processes} devices of each of {processes} processes, and one "
            "has fewer; give a smaller one"
        )
    return Mesh(np.array(chosen), (AXIS,))


@functools.cache
def _replicate(mesh: DataMesh) -> Callable[[Any], Any]:
    """A program that gives every device the whole of what it is given."""
    jax = import_jax()
    from jax.sharding import NamedSharding, PartitionSpec

    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(_build(mesh), PartitionSpec()))


def _check_rows(mesh: DataMesh, batch: Mapping[str, Any]) -> None:
    sizes = {name: np.shape(array)[:1] for name, array in batch.items()}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        told = ", ".join(f"{name} {list(np.shape(array))}" for name, array in batch.items())
        raise UsageError(f"mesh: not every array of the batch has a row for each example: {told}")
    ((rows,),) = set(sizes.values())
    if rows % mesh.data:
        fit = [str(number) for number in range(1, rows + 1) if rows % number == 0]
        raise UsageError(
            f"mesh: {rows} rows cannot be spread evenly over {mesh}; give data={' or '.join(fit)}, "
            f"or a batch of {rows - rows % mesh.data + mesh.data} rows"
        )


def _check_processes(weights: Any, batch: Mapping[str, Any]) -> None:
    """Raise CaseError in every process unless all were given the same."""
    if import_jax().process_count() == 1:
        return
    arrays = {f"weight/{path}": np.asarray(leaf) for path, leaf in flatten_leaves(weights).items()}
    arrays |= {f"batch/{name}": np.asarray(array) for name, array in batch.items()}
    digests = ask_all(np.frombuffer(bytes.fromhex(digest_arrays({}, arrays)), np.uint32))
    others = [str(number) for number, digest in enumerate(digests) if (digest != digests[0]).any()]
    if others:
        raise CaseError(
            f"mesh: process {', '.join(others)} was given other weights or another batch than process 0; "
            "give every process the same files and options"
        )
