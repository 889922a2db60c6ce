"""The processes of the suite, seen from the one that leads it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from bench.contestants import Side
from oracle.errors import WorkerError
from oracle.worker_process import describe_end

KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Has glibc keep freed memory, see mallopt(3). Other C libraries do not know these."""


class AbsentHereError(WorkerError):
    """A contestant that cannot take part here: what its process said."""


class FailedError(WorkerError):
    """A contestant that raised, took too long, or took its process with it."""


class Workers:
    """A process for each side, started when it is first asked. To be used as a context.

    Args:
        folder: for what they say.
        threads: how many CPUs each is held to.
        limit: seconds that an answer may take.
        verbose: whether what the frameworks print comes through on standard error.
    """

    def __init__(self, folder: Path, *, threads: int, limit: float, verbose: bool = False) -> None:
        self._folder, self._threads, self._limit, self._verbose = folder, threads, limit, verbose
        self._workers: dict[Side, _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for side in list(self._workers):
            self.stop(side)

    def is_running(self, side: Side) -> bool:
        """Whether there is a process of a side, with whatever was made ready in it."""
        return side in self._workers

    def ask(self, side: Side, do: str, /, **arguments: Any) -> Any:
        """Ask a side, and wait for what it gives.

        Raises:
            AbsentHereError: if a contestant cannot take part.
            FailedError: if it failed. A process that ended, or had to be ended, is started anew when it is
                next asked, and nothing is ready in it.
        """
        if side not in self._workers:
            self._workers[side] = _Worker(side, self._folder, self._threads, verbose=self._verbose)
        try:
            answer = self._workers[side].ask({"do": do, "with": arguments}, self._limit)
        except FailedError:
            self.stop(side)
            raise
        if "absent" in answer:
            raise AbsentHereError(answer["absent"])
        if "failed" in answer:
            raise FailedError(answer["failed"])
        return answer["done"]

    def ask_fresh(self, side: Side, do: str, /, *, cpus: int | None = None, **arguments: Any) -> Any:
        """As `ask`, in a process of its own that ends afterwards, and is held to so many CPUs."""
        ways = {"threads": cpus or self._threads, "limit": self._limit, "verbose": self._verbose}
        with Workers(self._folder, **ways) as fresh:
            return fresh.ask(side, do, **arguments)

    def stop(self, side: Side) -> None:
        """End the process of a side, if there is one."""
        worker = self._workers.pop(side, None)
        if worker is not None:
            worker.close()


def pin_environment(threads: int) -> dict[str, str]:
    """The environment of a worker: every library that has a say of its own gets the same threads.

    A first call compiles: what JAX kept of other runs would hide what that takes. The C library keeps the
    memory that it was given: a large array's pages are not handed back and asked for anew at every step.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **settings, **KEPT_MEMORY}


class _Worker:
    """One process, and a thread that reads what it says."""

    def __init__(self, side: Side, folder: Path, threads: int, *, verbose: bool) -> None:
        self._side, self._log = side, folder / f"{side}.log"
        cpus = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []
        # A library that asks how many CPUs there are is told as many as it may use.
        pin = f"os.sched_setaffinity(0, {cpus})" if cpus else "None"
        run = "runpy.run_module('bench.worker', run_name='__main__', alter_sys=True)"
        program = f"import os, runpy, sys; {pin}; sys.argv[1:] = [{side!r}, '{threads}']; {run}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # -P: no module of the folder that we are called in.
                [sys.executable, "-P", "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if verbose else log,
                text=True,
                env=pin_environment(threads),
            )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            raise FailedError(f"it took longer than {limit:.0f} s") from None
        if not line:
            raise FailedError(self._describe_end())
        return json.loads(line)

    def _describe_end(self) -> str:
        ended = describe_end(self._process, self._log, out_of_memory=", mostly a lack of memory")
        return f"the {self._side} process {ended}"

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
