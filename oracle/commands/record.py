"""`oracle recorder`, `oracle record` and `oracle verify`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from oracle.commands.compare import check_output, deliver
from oracle.commands.options import Mode, OutputFormat, Quiet, Verbose

RecordFile = Annotated[Path, Parameter(name=["--output", "-o"])]


def recorder() -> int:
    """Print the recorder: one Python file, to be copied to where a TensorFlow port runs.

    It needs Python 3.6 or later, NumPy and any TensorFlow from 1.13 on, and nothing of this project:
    `oracle recorder > record_gradients.py`. What it writes, `oracle verify` reads.
    """
    from oracle.errors import RecordError

    path = Path(__file__).parent.parent / "recorder.py"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}; reinstall it") from error
    sys.stdout.flush()
    getattr(sys.stdout, "buffer", sys.stdout).write(content)
    sys.stdout.flush()
    return 0


def record(
    target: str,
    *,
    output: RecordFile,
    precision: Literal["f64", "f32"] = "f64",
    mode: Mode | None = None,
    seed: int = 0,
    batch_size: int = 16,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Run a port in this environment and write its record, to be verified elsewhere.

    Exits with 0 if the port ran, with 1 if it raised (which the record says), with 2 if there is no record.

    Parameters
    ----------
    target
        One port, as `explicit_state/full`, or a model of your own: a function that gives an
        `oracle.LivePort`, as `my_port.py:build` or `package.module:build("lstm")`.
    output
        The file to write.
    precision
        What the port computes in.
    mode
        How TensorFlow runs it; by default as the port is meant to run.
    seed
        The seed of every random choice.
    batch_size
        How many windows are cut from the series, or pairs of texts drawn.
    verbose
        Print tracebacks.
    quiet
        Print nothing but errors.
    """
    del verbose  # `main` reads it.
    from oracle.record import write_record
    from oracle.recording import record_target

    check_output(output)
    made = record_target(target, precision=precision, mode=mode, seed=seed, batch_size=batch_size)
    write_record(made, output)
    if not quiet:
        held = f"{len(made.tensors)} tensors, {len(made.weights)} weights"
        if made.failure is not None:
            held = f"the port raised {made.failure.type}: {made.failure.message}"
        print(f"{output}: {made.origin.model} ({made.origin.mode}, {made.origin.dtype}): {held}", flush=True)
    return 0 if made.failure is None else 1


def verify(
    file: Path,
    *,
    spec: Path | None = None,
    mapping: Path | None = None,
    module: str | None = None,
    plain: bool = False,
    mesh: str | None = None,
    tolerance: float | None = None,
    output_format: OutputFormat = "text",
    output: Path | None = None,
    report: Path | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Verify a port's record: run the oracle on what it was computed on, and compare. Needs no TensorFlow.

    Exits with 0 if every tensor matches, with 1 if one does not, with 2 if it could not be verified.

    Parameters
    ----------
    file
        A record, of `oracle record` or of the recorder.
    spec
        A JSON file that describes the model. By default what the record says, or what its variables' names
        and shapes show; the report says what was assumed.
    mapping
        A TOML file: which variables are which of the oracle's leaves. See `oracle inspect --mapping`.
    module
        Your own loss in JAX instead, `loss(params, batch)`, as `my_flax:loss`, `my_flax.py:loss` or
        `my_flax:make_loss("lstm")`.
    plain
        Have the oracle compute as its formulas read, with the derivative left to JAX, instead of by its
        fast path. The numbers are the same; big models take longer.
    mesh
        Spread the batch over this many devices, `data=8`, also of several hosts. See docs/accelerators.md.
    tolerance
        Of a record in half or mixed precision, what to allow, as a part of a tensor's largest element.
        Of others it is measured.
    output_format
        Text for people, JSON or JUnit for programs, or what GitHub Actions shows.
    output
        Write the report to this file instead of standard output.
    report
        Write a report for people to this HTML file, besides.
    verbose
        Print tracebacks.
    quiet
        Print the verdict alone.
    """
    from oracle.bridge.mapping_file import read_mapping
    from oracle.errors import UsageError
    from oracle.hosts import connect, is_coordinated, is_first
    from oracle.mesh import parse_mesh
    from oracle.pair import Pair
    from oracle.record import read_record
    from oracle.verify import verify_record

    check_output(output)
    check_output(report)
    if spec is not None and module is not None:
        raise UsageError("--spec and --module both say what the model is; give one")
    if plain and module is not None:
        raise UsageError("--plain is of the oracle's own model; your module is computed as it is written")
    if mesh is not None and module is not None:
        raise UsageError("--mesh is of the oracle's own model; your module is computed as it is written")
    devices = None if mesh is None else parse_mesh(mesh)
    if devices is not None and is_coordinated():
        connect()
    found = verify_record(
        read_record(file),
        spec=None if spec is None else _read_spec(spec),
        sites=None if mapping is None else read_mapping(mapping),
        module=module,
        tolerance=tolerance,
        path="plain" if plain else "fast",
        mesh=devices,
    )
    if isinstance(found, Pair) and report is not None:
        raise UsageError("--report is of float64 and float32 records; of others there are text and JSON")
    if devices is not None and not is_first():
        return 0 if found.matches else 1
    if isinstance(found, Pair):
        deliver_pair(found, output_format, output, verbose=verbose, quiet=quiet)
        return 0 if found.matches else 1
    notes = found.port.flags.get("notes")
    if notes and output is None and output_format == "text" and not quiet:
        for note in notes.split("\n"):
            print(f"note: {note}")
    deliver([found], output_format, output, report=report, verbose=verbose, quiet=quiet)
    is_plain = output is None and output_format == "text" and not quiet
    if is_plain and module is None and found.failure is None and not found.matches:
        print(f"`oracle explain {shlex.quote(str(file))}` finds the cause")
    return 0 if found.matches else 1


def compare_files(
    first: Path,
    second: Path,
    *,
    tolerance: float | None = None,
    output_format: OutputFormat = "text",
    output: Path | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> int:
    """Hold two records against each other: what `oracle compare A.safetensors B.safetensors` does.

    Exits with 0 if they agree, with 1 if they do not, with 2 if they cannot be compared.
    """
    from oracle.errors import UsageError
    from oracle.pair import compare_pair
    from oracle.record import read_record

    check_output(output)
    if first.exists() and second.exists() and first.samefile(second):
        raise UsageError(f"{first} and {second} are one file, which agrees with itself; give two records")
    pair = compare_pair(read_record(first), read_record(second), tolerance=tolerance)
    deliver_pair(pair, output_format, output, verbose=verbose, quiet=quiet)
    return 0 if pair.matches else 1


def deliver_pair(
    pair: Any, output_format: OutputFormat, output: Path | None, *, verbose: bool, quiet: bool
) -> None:
    """Put the report of two records where it was asked for."""
    from oracle.report.pair import render_pair
    from oracle.storage import write_bytes

    text = render_pair(pair, output_format, verbose=verbose, quiet=quiet)
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_bytes(output, text.encode())


def _read_spec(path: Path) -> Any:
    """Read a spec from a JSON file."""
    import json

    from oracle.errors import SpecError
    from oracle.spec import decode

    try:
        return decode(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not JSON: {error}") from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
