"""Work in several processes: each imports both frameworks once, and is asked for one thing after another.

What is asked of one subject goes to one process, which compiles the subject's programs once.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oracle.errors import WorkerError

OPTIMISATION = "--xla_backend_optimization_level=0"
"""How XLA compiles here. There are thousands of tiny programs, each of which is run a few times."""

TASKS_A_PROCESS = 60
"""After how many a process is ended and another started: both frameworks keep what they compiled, a hundred
megabytes of a fault that the commonly used checks are asked about."""

Request = Mapping[str, Any]


def run_all(requests: Sequence[Request], *, processes: int) -> Iterator[tuple[Request, list[Any]]]:
    """Have every request done, in whatever order they are done first.

    Args:
        requests: as `oracle.selftest.worker` takes them.
        processes: how many at a time.

    Yields:
        Each request with what it gave, as plain JSON values.

    Raises:
        WorkerError: if a process ended before its time, or a request failed in it.
    """
    waiting: queue.SimpleQueue[list[Request]] = queue.SimpleQueue()
    for group in _group(requests):
        waiting.put(group)
    done: queue.SimpleQueue[tuple[Request, list[Any]] | Exception] = queue.SimpleQueue()
    stop, running = threading.Event(), []
    threads = [
        threading.Thread(target=_serve, args=(waiting, done, stop, running), daemon=True)
        for _ in range(min(processes, len(requests)))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in requests:
            outcome = done.get()
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome
    finally:
        stop.set()
        # Of an interrupted run: whoever waits for an answer gets none.
        for process in list(running):
            process.kill()
        for thread in threads:
            thread.join(timeout=10)


def _group(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests by subject, as many as a process does; the largest first, one without a subject last."""
    groups: dict[str, list[Request]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(request.get("subject", f"{number}"), []).append(request)
    starts = [(group, start) for group in groups.values() for start in range(0, len(group), TASKS_A_PROCESS)]
    pieces = [group[start : start + TASKS_A_PROCESS] for group, start in starts]
    return sorted(pieces, key=len, reverse=True)


def _serve(waiting: Any, done: Any, stop: threading.Event, running: list[Any]) -> None:
    """Start processes and give them requests, until there are no more."""
    try:
        while not stop.is_set() and not waiting.empty():
            with _start(running) as ask:
                served = 0
                while served < TASKS_A_PROCESS:
                    try:
                        group = waiting.get_nowait()
                    except queue.Empty:
                        return
                    for request in group:
                        if stop.is_set():
                            return
                        done.put((request, ask(request)))
                    served += len(group)
    except Exception as error:  # It must reach whoever waits.
        done.put(error)


@contextlib.contextmanager
def _start(running: list[Any]) -> Iterator[Any]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} {OPTIMISATION}".strip()
    with tempfile.TemporaryFile("w+", prefix="gradient-oracle-") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "oracle.selftest.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Each of the thousands of programs is of one subject: nobody will need it again.
            env={**os.environ, "XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"},
        )
        running.append(process)
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(request: Request) -> list[Any]:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                last = [line.strip() for line in log if line.strip()][-1:]
                raise WorkerError(
                    f"the process of the self-test ended with {process.wait()} at {json.dumps(request)}: "
                    f"{''.join(last)}"
                )
            answer = json.loads(line)
            if "error" in answer:
                raise WorkerError(f"the self-test failed at {json.dumps(request)}: {answer['error']}")
            return answer["done"]

        try:
            yield ask
        finally:
            process.kill()
            process.wait()
            running.remove(process)
