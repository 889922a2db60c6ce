"""`oracle diagnose` and `oracle repair`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from oracle.commands.options import Quiet, Verbose

InputNames = Annotated[tuple[str, ...], Parameter(name="--input", negative="")]
OutputNames = Annotated[tuple[str, ...], Parameter(name="--output", negative="")]


def diagnose(
    target: Path | None = None,
    *,
    error: str | None = None,
    gradient: bool = False,
    signature: str | None = None,
    input_names: InputNames = (),
    output_names: OutputNames = (),
    inputs: Path | None = None,
    seed: int = 0,
    output_format: Literal["text", "json"] = "text",
    verbose: Verbose = False,
) -> int:
    """Say what keeps a TensorFlow model from being differentiated, and the shortest remedy.

    Exits with 0 if nothing is found, with 1 if something is, with 2 if the target cannot be read.
    A saved model's graph is read and not run, unless `--gradient` asks for an attempt. A live port is run.

    Parameters
    ----------
    target
        A SavedModel's folder, a frozen GraphDef `.pb`, a MetaGraph `.meta`, or a checkpoint that has one; or
        a live port, `package.module:function` or `path/to/file.py:function`, giving an `oracle.LivePort`.
    error
        An error message instead; the code behind it is explained.
    gradient
        Load the graph and run it: say what a gradient raises, or is None, zero or not finite.
    signature
        Which signature, if there are several.
    input_names
        A tensor to take for an input, of a graph without signatures. May be given several times.
    output_names
        A tensor to take for an output. May be given several times.
    inputs
        A `.npz` with an array for each input, to run on instead of drawn ones.
    seed
        The seed of what is drawn.
    output_format
        Text for people, JSON for programs.
    verbose
        Add why it happens, and print tracebacks.
    """
    import dataclasses
    import json

    from oracle.errors import UsageError
    from oracle.legacy_graph.codes import match_error, render_code
    from oracle.legacy_graph.diagnosis import diagnose as diagnose_file
    from oracle.legacy_graph.diagnosis import render_findings
    from oracle.runner import LiveProcess
    from oracle.user_code import is_target

    if (target is None) == (error is None):
        raise UsageError("give a file, folder or live port to diagnose, or --error TEXT")
    if error is not None:
        code = match_error(error)
        if code is None:
            raise UsageError("no known cause is behind this message; diagnose the model itself")
        sys.stdout.write(render_code(code))
        return 1
    assert target is not None
    is_live = is_target(str(target)) and not target.exists()
    if is_live:
        if input_names or output_names or inputs is not None or signature is not None:
            raise UsageError(
                f"{target}: a live port brings its own inputs; those options are for saved models"
            )
        print(f"{target}: runs the port", file=sys.stderr)
        with LiveProcess(verbose=verbose) as process:
            findings = process.diagnose(str(target), seed=seed)
    else:
        findings = diagnose_file(target)
    if gradient and not is_live:
        from oracle.legacy_graph.attempt import attempt_gradient

        _end_quietly()
        print(f"{target}: the graph is loaded and run", file=sys.stderr)
        findings += attempt_gradient(
            target,
            signature=signature,
            inputs=input_names,
            outputs=output_names,
            batch=None if inputs is None else _read_arrays(inputs),
            seed=seed,
        )
    if output_format == "json":
        json.dump([dataclasses.asdict(finding) for finding in findings], sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        ran = (
            ""
            if gradient or is_live
            else "; nothing was run, so a gradient may still be None: try --gradient"
        )
        sys.stdout.write(render_findings(findings, verbose=verbose) or f"{target}: nothing found{ran}\n")
    sys.stdout.flush()
    return 1 if any(not finding.is_note for finding in findings) else 0


def repair(
    source: Path,
    target: Path,
    *,
    signature: str | None = None,
    trainable: str | None = None,
    input_names: InputNames = (),
    output_names: OutputNames = (),
    inputs: Path | None = None,
    seed: int = 0,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Make a model with TF1 loops differentiable, and write it as a TF2 SavedModel.

    The graph is run, to verify the repair: outputs must equal the original's bit for bit, and gradients
    TF1's own, those of the same cells in Flax (where they are recognised and JAX is installed) and the
    witness'. Without agreement nothing is written. The source is not touched.

    Parameters
    ----------
    source
        A SavedModel's folder, a frozen GraphDef `.pb`, or a MetaGraph `.meta` with its checkpoint.
    target
        The folder to write, which must not exist.
    signature
        Which signature, if there are several.
    trainable
        A regular expression: the frozen constants whose names it matches become variables.
    input_names
        A tensor to take for an input, of a graph without signatures. May be given several times.
    output_names
        A tensor to take for an output. May be given several times.
    inputs
        A `.npz` with an array for each input, to verify on instead of drawn ones.
    seed
        The seed of what is drawn.
    verbose
        Let TensorFlow's messages through, and print tracebacks.
    quiet
        Print nothing but errors.
    """
    del verbose  # `main` reads it.
    from oracle.legacy_graph.repair import check_target, repair_file, write_repaired

    _end_quietly()
    check_target(target, source=source)
    done = repair_file(
        source,
        signature=signature,
        trainable=trainable,
        inputs=input_names,
        outputs=output_names,
        batch=None if inputs is None else _read_arrays(inputs),
        seed=seed,
    )
    write_repaired(done, target)
    if not quiet:
        chosen = f", signature {done.signature!r}" if done.signature is not None else ""
        print(f"{target}: repaired from {source}{chosen}")
        print(f"contexts: {done.loops} loops, {done.conds} branches of conds; {len(done.added)} nodes added")
        for line in done.verification.describe():
            print(line)
        count = len(done.model.trainable_variables)
        print(f"variables: {len(done.model.variables)}, of which {count} trainable", flush=True)
    return 0


def _end_quietly() -> None:
    """Let the process end without TensorFlow's functions complaining that their module went before them."""
    import atexit

    atexit.register(lambda: setattr(sys, "unraisablehook", lambda unraisable: None))


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a `.npz`, which may hold no pickled objects.

    Raises:
        UsageError: if it is none.
    """
    import zipfile

    import numpy as np

    from oracle.errors import UsageError

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not a .npz of arrays ({error})") from error
