"""Running the two sides: at the same time in two processes, or one after the other in this one.

Both runners take the same requests and give the same records; the in-process one is the other with the
files left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import msgspec

from oracle.case import Case, jitter_case, write_case
from oracle.decoding import DecodeOptions, Decoding, read_decoding
from oracle.explanation import Explanation
from oracle.hearing import read_hearing
from oracle.judgement import Hearing, WitnessWhen
from oracle.legacy_graph.diagnosis import Finding
from oracle.live_port import LiveRecords, read_records
from oracle.localisation import Localisation
from oracle.mesh import DataMesh
from oracle.record import Record, read_record, write_record
from oracle.steps.paths import DEFAULT_PATH
from oracle.steps.paths import Path as OraclePath
from oracle.tolerance import FLOAT32_RUNS, FLOAT64_RUNS
from oracle.worker_process import WorkerProcess

Side = Literal["tf", "jax"]

T = TypeVar("T")


class Runner(Protocol):
    """What runs cases. To be used as a context."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def run(
        self,
        side: Side,
        case: Case,
        *,
        model: str,
        mode: str | None,
        dtype: str,
        repeats: int = 1,
        jitter: int = 0,
        sums_in_sequence: bool = False,
    ) -> Future[Record]:
        """Run a case on one side, a port as often as asked, the oracle jittered or summing so if asked.

        The future raises what the side raised.
        """
        ...

    def decode(
        self, side: Side, case: Case, *, model: str, mode: str | None, options: DecodeOptions
    ) -> Future[Decoding]:
        """Decode a case's sources on one side. The future raises what the side raised."""
        ...

    def hear(self, side: Side, case: Case, *, port: Record, oracle: Record, seed: int) -> Future[Hearing]:
        """Hear one side on two float64 records of a case. The future raises what the side raised."""
        ...

    def trace(self, case: Case, *, model: str) -> Future[Record]:
        """Run a port step by step, in float64, its layers tapped. The future raises what the side raised."""
        ...

    def localise(self, case: Case, *, port: Record, trace: Record | None) -> Future[Localisation]:
        """Have the oracle's side find where a port leaves it. The future raises what the side raised."""
        ...

    def explain(self, case: Case, *, port: Record, oracle: Record) -> Future[Explanation]:
        """Have the oracle's side find why a port is not it. The future raises what the side raised."""
        ...


def run_more(runner: Runner, case: Case, *, model: str, dtype: str) -> list[Record]:
    """The oracle's further records that `compare_closely` asks for.

    Args:
        runner: what runs the oracle.
        case: what was compared.
        model: the port that was.
        dtype: its precision. In float64 they are of the case under roundings; in float32 of the case and of
            the case under roundings, as the yardstick is, with sums in sequence.
    """
    if dtype == "float32":
        jittered = [jitter_case(case, number) for number in range(FLOAT32_RUNS)]
        options = [(each, {"sums_in_sequence": True}) for each in jittered]
    else:
        options = [(case, {"jitter": number}) for number in range(1, FLOAT64_RUNS + 1)]
    runs = [
        runner.run("jax", each, model=model, mode=None, dtype=dtype, **further) for each, further in options
    ]
    return [run.result() for run in runs]


class InProcess:
    """Both sides in this process: TensorFlow and JAX are both imported here.

    Args:
        path: by which of its two paths the oracle computes.
        mesh: over which devices the oracle spreads the batch.
    """

    def __init__(self, *, path: OraclePath = DEFAULT_PATH, mesh: DataMesh | None = None) -> None:
        self._path: OraclePath = path
        self._mesh = mesh

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def run(
        self,
        side: Side,
        case: Case,
        *,
        model: str,
        mode: str | None,
        dtype: Any,
        repeats: int = 1,
        jitter: int = 0,
        sums_in_sequence: bool = False,
    ) -> Future[Record]:
        """Run a case on one side, now."""
        if side == "tf":
            from oracle.run_tf import run_port

            return _do_now(lambda: run_port(case, model=model, mode=mode, dtype=dtype, repeats=repeats))
        from oracle.run_jax import run_oracle

        options = {"mode": mode, "dtype": dtype, "jitter": jitter, "path": self._path, "mesh": self._mesh}
        options["sums_in_sequence"] = sums_in_sequence
        return _do_now(lambda: run_oracle(case, model=model, **options))

    def decode(
        self, side: Side, case: Case, *, model: str, mode: Any, options: DecodeOptions
    ) -> Future[Decoding]:
        """Decode a case's sources on one side, now."""
        if side == "tf":
            from oracle.run_tf import decode_port

            return _do_now(lambda: decode_port(case, model=model, mode=mode, options=options))
        from oracle.run_jax import decode_oracle

        return _do_now(lambda: decode_oracle(case, options=options))

    def hear(self, side: Side, case: Case, *, port: Record, oracle: Record, seed: int) -> Future[Hearing]:
        """Hear one side on two float64 records of a case, now."""
        if side == "tf":
            from oracle.run_tf import hear_port as hear
        else:
            from oracle.run_jax import hear_oracle as hear
        return _do_now(lambda: hear(case, port=port, oracle=oracle, seed=seed))

    def trace(self, case: Case, *, model: str) -> Future[Record]:
        """Run a port step by step, its layers tapped, now."""
        from oracle.run_tf import trace_port

        return _do_now(lambda: trace_port(case, model=model))

    def localise(self, case: Case, *, port: Record, trace: Record | None) -> Future[Localisation]:
        """Find where a port leaves the oracle, now."""
        from oracle.insight import localise_port

        return _do_now(lambda: localise_port(case, port=port, trace=trace, path=self._path))

    def explain(self, case: Case, *, port: Record, oracle: Record) -> Future[Explanation]:
        """Find why a port is not the oracle, now."""
        from oracle.insight import explain_port

        return _do_now(lambda: explain_port(case, port=port, oracle=oracle))


def _do_now(function: Callable[[], T]) -> Future[T]:
    """A future that is done, with the function's result or what it raised."""
    future: Future[T] = Future()
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
    return future


class TwoProcesses:
    """Each side in a process of its own: they import, compile and compute at the same time.

    Args:
        path: by which of its two paths the oracle computes.
        mesh: over which devices the oracle spreads the batch.
        verbose: whether what the frameworks print comes through on standard error.
    """

    def __init__(
        self, *, path: OraclePath = DEFAULT_PATH, mesh: DataMesh | None = None, verbose: bool = False
    ) -> None:
        self._path, self._mesh, self._verbose = path, mesh, verbose
        self._workers: dict[Side, WorkerProcess] = {}
        self._numbers = count()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="gradient-oracle-")
        for side in ("tf", "jax"):
            self._workers[side] = WorkerProcess(side, Path(self._folder.name), verbose=self._verbose)
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers.values():
            worker.close(kill=exception[0] is not None)
        self._folder.cleanup()

    def run(
        self,
        side: Side,
        case: Case,
        *,
        model: str,
        mode: str | None,
        dtype: str,
        repeats: int = 1,
        jitter: int = 0,
        sums_in_sequence: bool = False,
    ) -> Future[Record]:
        """Ask a side to run a case, when it has done what it was asked before."""
        case_path, record_path = self._new_path("case"), self._new_path("record")
        write_case(case, case_path)
        request = {"do": "run", "side": side, "case": str(case_path), "record": str(record_path)}
        request |= {"model": model, "mode": mode, "dtype": dtype}
        of_oracle = {"jitter": jitter, "sums_in_sequence": sums_in_sequence, "path": self._path}
        request |= {"repeats": repeats} if side == "tf" else of_oracle
        request |= {"mesh": str(self._mesh)} if side == "jax" and self._mesh is not None else {}
        return self._workers[side].submit(request, lambda: read_record(record_path))

    def decode(
        self, side: Side, case: Case, *, model: str, mode: str | None, options: DecodeOptions
    ) -> Future[Decoding]:
        """Ask a side to decode a case's sources, when it has done what it was asked before."""
        case_path, path = self._new_path("case"), self._new_path("decoding")
        write_case(case, case_path)
        request = {"do": "decode", "side": side, "case": str(case_path), "decoding": str(path)}
        request |= {"model": model, "mode": mode, "options": msgspec.to_builtins(options)}
        return self._workers[side].submit(request, lambda: read_decoding(path))

    def hear(self, side: Side, case: Case, *, port: Record, oracle: Record, seed: int) -> Future[Hearing]:
        """Ask a side about two float64 records of a case, when it has done what it was asked before."""
        paths, path = self._write_inputs(case, port=port, oracle=oracle), self._new_path("hearing")
        request = {"do": "hear", "side": side, "seed": seed, **paths, "hearing": str(path)}
        return self._workers[side].submit(request, lambda: read_hearing(path))

    def trace(self, case: Case, *, model: str) -> Future[Record]:
        """Ask the TensorFlow side to run a port step by step, when it has done what it was asked before."""
        paths = self._write_inputs(case)
        path = self._new_path("trace")
        request = {"do": "trace", **paths, "model": model, "trace": str(path)}
        return self._workers["tf"].submit(request, lambda: read_record(path))

    def localise(self, case: Case, *, port: Record, trace: Record | None) -> Future[Localisation]:
        """Ask the oracle's side where, when it has done what it was asked before."""
        paths = self._write_inputs(case, port=port, trace=trace)
        return self._ask_jax("localise", {**paths, "path": self._path}, Localisation)

    def explain(self, case: Case, *, port: Record, oracle: Record) -> Future[Explanation]:
        """Ask the oracle's side why, when it has done what it was asked before."""
        paths = self._write_inputs(case, port=port, oracle=oracle)
        return self._ask_jax("explain", paths, Explanation)

    def _write_inputs(self, case: Case, **records: Record | None) -> dict[str, str]:
        paths = {"case": self._new_path("case")}
        write_case(case, paths["case"])
        for name, record in records.items():
            if record is not None:
                paths[name] = self._new_path(name)
                write_record(record, paths[name])
        return {name: str(path) for name, path in paths.items()}

    def _ask_jax(self, what: str, paths: dict[str, str], kind: type[T]) -> Future[T]:
        path = self._new_path(what)
        request = {"do": what, **paths, "answer": str(path)}
        # JSON has no infinity, which an error can be.
        return self._workers["jax"].submit(
            request, lambda: msgspec.msgpack.decode(path.read_bytes(), type=kind)
        )

    def _new_path(self, kind: str) -> Path:
        return Path(self._folder.name) / f"{next(self._numbers)}-{kind}.safetensors"


class LiveProcess:
    """Live ports in a process of their own, whose output does not mix with the report.

    Args:
        verbose: whether what the ports and the frameworks print comes through on standard error.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._numbers = count()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="gradient-oracle-")
        self._worker = WorkerProcess("live", Path(self._folder.name), verbose=self._verbose)
        return self

    def __exit__(self, *exception: object) -> None:
        self._worker.close(kill=exception[0] is not None)
        self._folder.cleanup()

    def diagnose(self, target: str, *, seed: int) -> list[Finding]:
        """Have a live port made, run and watched. See `oracle.live_diagnosis.diagnose_live`."""
        path = Path(self._folder.name) / f"{next(self._numbers)}-findings.json"
        request = {"do": "diagnose", "target": target, "seed": seed, "findings": str(path)}
        return self._worker.submit(
            request, lambda: msgspec.json.decode(path.read_bytes(), type=list[Finding])
        ).result()

    def record(
        self,
        target: str,
        *,
        dtype: str,
        mode: str | None,
        seed: int,
        witness: WitnessWhen = "never",
        localise: bool = False,
        explain: bool = False,
    ) -> LiveRecords:
        """Have a live port made, mirrored and run. See `oracle.live_port.record_live`."""
        folder = Path(self._folder.name) / str(next(self._numbers))
        folder.mkdir()
        request = {"do": "live", "target": target, "folder": str(folder)}
        request |= {"dtype": dtype, "mode": mode, "seed": seed, "witness": witness}
        request |= {"localise": localise, "explain": explain}
        return self._worker.submit(request, lambda: read_records(folder)).result()
