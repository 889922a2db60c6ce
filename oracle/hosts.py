"""Several hosts: processes that compute one program together.

Source: JAX's "Introduction to multi-controller JAX".
"""

from __future__ import annotations

import os
import re
import socket
import time

import numpy as np

from oracle.errors import UsageError
from oracle.frameworks import import_jax

COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""Where several hosts meet, how many processes there are, and which one this is, in the environment. JAX
reads the first by itself; the others are what `jax.distributed.initialize` calls them."""


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    wait_s: float = 120.0,
) -> None:
    """Join this process to those of other hosts, so that a mesh can have all their devices.

    What is not given is read from `COORDINATOR`, `PROCESSES` and `PROCESS` in the environment; the latter two
    may be absent under a manager that JAX knows, as Slurm. To be called before JAX computes anything. CPUs
    talk by gloo, unless `JAX_CPU_COLLECTIVES_IMPLEMENTATION` says otherwise.

    Args:
        coordinator: `host:port` of process 0, which listens there.
        processes: how many there are.
        process: which one this is, from 0.
        wait_s: the seconds that process 0 may take to listen.

    Raises:
        UsageError: if the processes cannot be connected by what is given.
        MissingPackageError: if JAX or Flax is not installed.
    """
    coordinator = coordinator or os.environ.get(COORDINATOR) or ""
    if not re.fullmatch(r".+:[0-9]+", coordinator, re.ASCII):
        raise UsageError(
            f"several hosts: {COORDINATOR} is {coordinator!r}; set it to host:port of process 0, as in "
            "10.0.0.1:1234"
        )
    processes = _read_number(PROCESSES) if processes is None else processes
    process = _read_number(PROCESS) if process is None else process
    if processes is not None and process is not None and not 0 <= process < processes:
        raise UsageError(
            f"several hosts: there is no process {process} of {processes}; {PROCESS} goes from 0 to "
            f"{PROCESSES} less 1"
        )
    if process:
        _await_coordinator(coordinator, wait_s)
    jax = import_jax()
    if "JAX_CPU_COLLECTIVES_IMPLEMENTATION" not in os.environ:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"several hosts: process {process} of {processes} cannot be connected at {coordinator}: {error}; "
            f"start all processes at about one time, each with {COORDINATOR}, {PROCESSES} and {PROCESS}"
        ) from error


def is_coordinated() -> bool:
    """Whether the environment says that there are several processes."""
    return bool(os.environ.get(COORDINATOR))


def is_first() -> bool:
    """Whether this process is the one that reports: all have the same results."""
    return import_jax().process_index() == 0


def _await_coordinator(coordinator: str, wait_s: float) -> None:
    """Wait until someone listens. JAX would do so itself, but then end the process by SIGABRT."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"several hosts: nobody listens at {coordinator} for {wait_s:g} s ({error}); start "
                    f"process 0 there, and see that {COORDINATOR} is its address"
                ) from error
            time.sleep(0.1)
        else:
            return


def _read_number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise UsageError(f"several hosts: {name} is {text!r}; set it to a number")
    return int(text)


def ask_all(array: np.ndarray) -> np.ndarray:
    """What each process has of an array of one shape, [processes, ...]."""
    if import_jax().process_count() == 1:
        return array[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))
