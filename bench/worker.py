"""One side of the suite in a process of its own: `python -m bench.worker tf|tf1|jax|numpy THREADS`.

Requests come as lines of JSON on standard input, replies go as lines of JSON to the original standard
output; cases and results pass through files. What a reply holds is in the functions' docstrings.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
import timeit
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import memory
from bench.floor import prepare_jax, prepare_numpy
from bench.gemms import count_gemms
from bench.prepared import AbsentError, Prepared
from oracle.case import read_case, write_case
from oracle.errors import OracleError, UsageError
from oracle.record import write_record
from oracle.storage import write_arrays

_TENSORFLOW = ("tf", "tf1")

KIND, FORMAT = "result", 1
"""Of the files that results pass through."""


def main() -> None:
    """Serve requests until standard input ends."""
    side, threads = sys.argv[1], int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    # What the framework prints must not end up among the replies.
    os.dup2(2, 1)
    server = Server(side, threads)
    for line in sys.stdin:
        replies.write(json.dumps(answer(server, json.loads(line))) + "\n")


def answer(server: Server, request: Mapping[str, Any]) -> dict[str, Any]:
    """What a request gives: `{"done": ...}`, `{"absent": why}`, or `{"failed": why, "traceback": ...}`."""
    try:
        return {"done": getattr(server, request["do"])(**request["with"])}
    except AbsentError as error:
        return {"absent": str(error)}
    except OracleError as error:
        return {"failed": str(error), "traceback": traceback.format_exc()}
    except Exception as error:
        # What a contestant raises is a result.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines else "nothing more"
        return {"failed": f"{type(error).__name__}: {said[:300]}", "traceback": traceback.format_exc()}


class Server:
    """The contestants of one side, by name."""

    def __init__(self, side: str, threads: int) -> None:
        self._side = side
        self._prepared: dict[str, Prepared] = {}
        if side in _TENSORFLOW:
            from bench import tf_side

            tf_side.start(threads)
        elif side == "jax":
            from bench import jax_side

            jax_side.start(threads)

    def prepare(self, name: str, job: str, case: str, target: str, port: str, seed: int, result: str) -> Any:
        """Make a contestant ready and write what it gives to a file. Gives the seconds of its start."""
        prepared = self._make(name, job, case, target, port, seed)
        computed = dict(prepared.result())
        self._prepared[name] = prepared
        none = [key for key, array in computed.items() if array is None]
        arrays = {key: np.asarray(array) for key, array in computed.items() if array is not None}
        arrays |= {f"moved/{leaf}": array for leaf, array in prepared.moved.items()}
        write_arrays(result, arrays, kind=KIND, format=FORMAT, header={"none": none})
        if prepared.record is not None:
            write_record(prepared.record, f"{result}.record")
        return {
            "first": prepared.first,
            "trace": prepared.trace,
            "compile": prepared.compile,
            "epsilon": prepared.epsilon,
            "clip": prepared.clip,
        }

    def _make(self, name: str, job: str, case: str, target: str, port: str, seed: int) -> Prepared:
        if name.startswith("floor-"):
            read = read_case(case)
            rows, steps = read.batch["source"].shape[:2]
            gemms = count_gemms(read.spec, batch=rows, time=steps)  # pyright: ignore[reportArgumentType]
            return prepare_numpy(gemms) if self._side == "numpy" else prepare_jax(gemms)
        if job == "bridge":
            from bench.tf_side import prepare_bridge

            return prepare_bridge(name, port)
        if target:
            from bench import live_side

            if self._side in _TENSORFLOW:
                return live_side.prepare_port(name, target, seed=seed)
            return live_side.prepare_mirror(target, seed=seed)
        if self._side in _TENSORFLOW:
            from bench import tf_side

            return tf_side.prepare(name, job, read_case(case))
        from bench import jax_side

        return jax_side.prepare(name, job, read_case(case))

    def run(self, name: str, times: int, warm: bool = False) -> float:
        """Do a contestant's job so many times. Gives the seconds of one.

        Args:
            name: the contestant.
            times: how often.
            warm: whether to do it once before, outside of the time: what ran in between has emptied the
                caches, and may be ending still.
        """
        if name not in self._prepared:
            raise UsageError("another contestant took their common process with it")
        step = self._prepared[name].step
        gc.disable()
        try:
            if warm:
                step()
            start = time.perf_counter()
            for _ in range(times):
                step()
            return (time.perf_counter() - start) / times
        finally:
            gc.enable()

    def weigh(self, times: int, **arguments: Any) -> int | None:
        """Make a contestant ready and do its job so many times. Gives the bytes that took, at the peak.

        To be asked of a fresh process. The compiler's own are left out: the peak begins after the first step.
        """
        before = memory.trim()
        prepared = self._make(**arguments)
        memory.trim()
        if not memory.forget_peak():
            return None
        for _ in range(times):
            prepared.step()
        peak = memory.read_peak()
        return None if peak is None or before is None else peak - before

    def profile(self, times: int, **arguments: Any) -> dict[str, Any]:
        """Say where a contestant's time goes. To be asked of a fresh process that is held to one CPU.

        Args:
            times: how many steps the median is of.
            arguments: as `prepare` has them, without the result.

        Returns:
            The fields of `bench.results.Profile`, without whose it is.
        """
        from bench.profiling import profile_step

        prepared = self._make(**arguments)
        if prepared.program is None:
            raise UsageError("it is not compiled")
        floor = self._make(**{**arguments, "name": "floor-jax"})
        step, alone = (
            statistics.median(timeit.repeat(each.step, number=1, repeat=times)) for each in (prepared, floor)
        )
        return {"step": step, "floor": alone, "parts": profile_step(prepared.step, prepared.program())}

    def release(self) -> None:
        """Let go of every contestant."""
        self._prepared.clear()
        if self._side in _TENSORFLOW:
            from oracle.frameworks import import_tensorflow

            import_tensorflow().keras.backend.clear_session()
        elif self._side == "jax":
            from oracle.frameworks import import_jax

            import_jax().clear_caches()
        memory.trim()

    def truth(self, job: str, case: str, target: str, seed: int, folder: str) -> list[str]:
        """Write what the oracle says: in float64, and the yardstick in float32. Gives the files."""
        if target:
            from bench.live_side import compute_truth as compute_live

            records = compute_live(target, seed=seed)
            paths = _number_paths(folder, len(records))
            for path, record in zip(paths, records, strict=True):
                write_record(record, path)
            return paths
        from bench.jax_side import compute_truth, decode_truth

        read = read_case(case)
        computed = [decode_truth(read)] if job == "beam" else compute_truth(read)
        paths = _number_paths(folder, len(computed))
        for path, tensors in zip(paths, computed, strict=True):
            arrays = {name: np.asarray(array) for name, array in tensors.items()}
            write_arrays(path, arrays, kind=KIND, format=FORMAT, header={"none": []})
        return paths

    def trained(self, port: str, rows: int, case: str) -> None:
        """Write a case of a port's trained weights."""
        from bench.tf_side import trained_case

        write_case(trained_case(port, rows), case)

    def versions(self) -> dict[str, str]:
        """The versions of what computes here, and its device."""
        from oracle.frameworks import import_jax, import_tensorflow, installed_version

        own = {"jax": ("jax", "jaxlib", "flax"), "numpy": ("numpy",)}
        names = own.get(self._side, ("tensorflow", "tensorflow-addons", "keras"))
        found = {name: installed_version(name) or "?" for name in names}
        if self._side == "jax":
            found["device of JAX"] = import_jax().devices()[0].device_kind
        elif self._side in _TENSORFLOW:
            found["device of TensorFlow"] = (
                "gpu" if import_tensorflow().config.list_physical_devices("GPU") else "cpu"
            )
        return found


def _number_paths(folder: str, count: int) -> list[str]:
    return [f"{folder}/truth-{number}.safetensors" for number in range(count)]


if __name__ == "__main__":
    main()
