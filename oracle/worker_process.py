"""The other end of `oracle.worker`: a process started, asked, and ended."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from oracle.errors import WorkerError
from oracle.worker import raise_reply

Work = Literal["tf", "jax", "live"]
"""What a worker process is for: one of the sides, or live ports, with both frameworks."""

T = TypeVar("T")


class WorkerProcess:
    """A worker process, and a thread that talks to it in order.

    Args:
        work: what it is for.
        folder: for the log of what it says.
        verbose: whether what it says comes through on standard error.
    """

    def __init__(self, work: Work, folder: Path, *, verbose: bool) -> None:
        self._work = work
        self._log = folder / f"{work}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # -P: no module of the folder that we are called in.
                [sys.executable, "-P", "-m", "oracle.worker", work],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if verbose else log,
                text=True,
            )
        self._thread = ThreadPoolExecutor(max_workers=1)

    def submit(self, request: dict[str, Any], read: Callable[[], T]) -> Future[T]:
        """Ask for something, and read what it is when it is done. The future raises what the worker raised.

        Args:
            request: as `oracle.worker` takes it.
            read: reads the result from where the request says it is to be.
        """
        return self._thread.submit(self._ask, request, read)

    def _ask(self, request: dict[str, Any], read: Callable[[], T]) -> T:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(self._describe_end())
        answer = json.loads(line)
        if "error" in answer:
            raise_reply(answer)
        return read()

    def _describe_end(self) -> str:
        hint = "; signal 9 is mostly a lack of memory: try a smaller --batch-size"
        ended = describe_end(self._process, self._log, out_of_memory=hint)
        return f"the {self._work} process {ended}; run with -v to see all of its output"

    def close(self, *, kill: bool) -> None:
        """End the process: when it has done what it was asked, or at once."""
        assert self._process.stdin is not None
        if kill:
            self._process.kill()
        # A worker that ended before it read all it was sent: whoever asked has been told.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._thread.shutdown(wait=True, cancel_futures=True)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def describe_end(process: subprocess.Popen[str], log: Path, *, out_of_memory: str) -> str:
    """How a process ended, and the last that it said.

    Args:
        process: which has ended, or is about to.
        log: what it said.
        out_of_memory: what to add if it was killed.
    """
    code = process.wait()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = out_of_memory if code == -9 else ""
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
    said = f"; the last it said: {last[0].strip()}" if last else ""
    return f"{how}{hint}{said}"
