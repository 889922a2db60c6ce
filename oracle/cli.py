"""The command line: parse, call, exit code. No logic, and no framework is imported to start it.

Exit codes: 0 everything matches; 1 a finding; 2 a usage or environment error; 3 a defect of ours.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict, Env

from oracle.errors import OracleError
from oracle.settings import find_pyproject, read_settings

Precision = Literal["f64", "f32", "both"]
Mode = Literal["eager", "function", "xla", "v1"]
OutputFormat = Literal["text", "json", "junit", "github"]

Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")]

SETTINGS = {
    "precision",
    "mode",
    "weights",
    "data",
    "seed",
    "batch-size",
    "processes",
    "output-format",
    "output",
    "verbose",
    "quiet",
}
"""What `[tool.oracle]` may hold: the options of `oracle compare`."""


def _version() -> str:
    from oracle.frameworks import installed_version

    return f"gradient-oracle {installed_version('gradient-oracle')}"


app = App(
    name="oracle",
    help="Check the gradients of a TensorFlow encoder-decoder against an independent Flax model.",
    version=_version,
    suppress_keyboard_interrupt=False,
)


@app.command
def compare(
    *models: str,
    precision: Precision = "f64",
    mode: Mode | None = None,
    weights: str | None = None,
    data: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    processes: Literal[1, 2] = 2,
    output_format: OutputFormat = "text",
    output: Path | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Check the gradients of ports against the oracle.

    Exits with 0 if every tensor of every port matches, with 1 if one does not, with 2 if the
    comparison could not be made.

    Parameters
    ----------
    models
        Models (`implicit_state`) or single ports (`implicit_state/exchanged`); see `oracle models`.
        Without any, the TF1 original and its right conversion.
    precision
        What the ports compute in. The oracle is always in float64; float32 is held against the
        oracle's own float32 error.
    mode
        How TensorFlow runs the ports; by default as each port is meant to run. `oracle models` says
        which port has which modes.
    weights
        The prefix of a TensorFlow checkpoint, or `random`. By default, weights that were trained on
        the sunspots.
    data
        A CSV file: a header, then a row a time step, its first column a label. By default, the
        sunspots.
    seed
        The seed of every random choice.
    batch_size
        How many windows are cut from the data.
    processes
        2 runs TensorFlow and JAX at the same time; 1 runs them here, one after the other.
    output_format
        Text for people, JSON or JUnit for programs, or what GitHub Actions shows.
    output
        Write the report to this file instead of standard output.
    verbose
        Let the frameworks' messages through, and print tracebacks.
    quiet
        Print the verdicts alone.
    """
    from oracle.check import Request, check
    from oracle.progress import show_progress
    from oracle.runner import InProcess, TwoProcesses

    request = Request(models, precision, mode, weights, data, seed, batch_size)
    _check_output(output)
    runner = InProcess() if processes == 1 else TwoProcesses(verbose=verbose)
    with show_progress("comparing", quiet=quiet) as on_done, runner:
        comparisons = list(check(request, runner, on_done=on_done))
    _deliver(comparisons, output_format, output, verbose=verbose, quiet=quiet)
    return 0 if comparisons and all(comparison.matches for comparison in comparisons) else 1


@app.command
def models() -> int:
    """List what can be compared: each port with its modes and its spec."""
    from oracle.listing import list_models

    print(list_models(), end="", flush=True)
    return 0


@app.command
def doctor() -> int:
    """Report versions, devices and precision settings, and what is missing for which command."""
    from oracle.doctor import examine

    report, healthy = examine()
    print(report, end="", flush=True)
    return 0 if healthy else 2


@app.command
def train(
    model: str,
    *,
    steps: int,
    output: Path,
    data: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    slots: bool = True,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Train a port and save a genuine TensorFlow checkpoint.

    Parameters
    ----------
    model
        `dynamic_rnn`, saved by a TF1 Saver, or `explicit_state`, saved as a TF2 checkpoint.
    steps
        How many steps of Adam, at a learning rate of 1e-3.
    output
        The checkpoint's prefix.
    data
        A CSV file, as for `compare`.
    seed
        The seed of the initial weights and of the windows.
    batch_size
        How many windows a step.
    slots
        Whether to save the optimizer's slots too.
    verbose
        Print tracebacks.
    quiet
        Show no progress.
    """
    del verbose  # `main` reads it.
    from oracle import zoo
    from oracle.frameworks import import_tensorflow, import_tfa
    from oracle.progress import show_steps
    from oracle.series import read_series, sunspots

    choice = zoo.choose(model)[0]
    series = sunspots() if data is None else read_series(data)
    import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    from tf_models.training import train as train_port

    with show_steps("training", steps, quiet=quiet) as on_step:
        losses = train_port(
            choice.model.name,
            choice.variant.spec,
            series,
            steps=steps,
            output=output,
            seed=seed,
            batch_size=batch_size,
            slots=slots,
            on_step=on_step,
        )
    print(f"{output}: {steps} steps, loss {losses[0]:.6g} to {losses[-1]:.6g}, seed {seed}")
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. `arguments` are those after the program's name."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # As Ctrl-C does, so that the two processes and their files go too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    sys.exit(run(arguments))


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run the command line. Returns the exit code."""
    verbose = _is_verbose(arguments)
    if not verbose:
        warnings.simplefilter("ignore")
    try:
        app.config = _find_settings(arguments)
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()), 2, verbose=verbose)
    except OracleError as error:
        return _fail(str(error), 2, verbose=verbose)
    except KeyboardInterrupt:
        return _fail("interrupted", 130, verbose=False)
    except BrokenPipeError:
        return _leave_output(141)
    except OSError as error:
        # Every file that we open has errors of its own: this is standard output.
        _leave_output(2)
        return _fail(f"standard output cannot be written: {error.strerror or error}", 2, verbose=verbose)
    except Exception as error:
        message = f"a defect of gradient-oracle, please report it: {type(error).__name__}: {error}"
        return _fail(message, 3, verbose=True)
    return code if isinstance(code, int) else 0


def _is_verbose(arguments: Sequence[str]) -> bool:
    """Whether `-v` was given, alone or among other letters, or by the environment."""
    if os.environ.get("ORACLE_VERBOSE", "").lower() in ("1", "true", "yes", "on"):
        return True
    return any(
        argument == "--verbose" or (argument[:1] == "-" and argument[:2] != "--" and "v" in argument)
        for argument in arguments
    )


def _leave_output(code: int) -> int:
    """Stop writing to a standard output that takes no more, lest Python complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _find_settings(arguments: Sequence[str]) -> tuple[Any, ...]:
    """Where options come from that are no flags: the environment, then pyproject.toml."""
    # They are the options of `compare`: a report's ORACLE_OUTPUT must not become a checkpoint of `train`.
    if not arguments or arguments[0] != "compare":
        return ()
    sources: list[Any] = [Env("ORACLE_", command=False)]
    path = find_pyproject(Path.cwd())
    if path is not None:
        settings = read_settings(path, known=SETTINGS)
        sources.append(Dict(settings, allow_unknown=False, use_commands_as_keys=False, source=str(path)))
    return tuple(sources)


def _fail(message: str, code: int, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code


def _check_output(output: Path | None) -> None:
    """Refuse a place that cannot be written before minutes are spent on what should go there."""
    from oracle.errors import UsageError

    if output is None:
        return
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError(f"{output}: cannot be written; give a file in a directory that can")


def _deliver(
    comparisons: Sequence[Any],
    output_format: OutputFormat,
    output: Path | None,
    *,
    verbose: bool,
    quiet: bool,
) -> None:
    """Put the report where it was asked for."""
    from rich.console import Console

    from oracle.report import RENDERERS, render_text
    from oracle.report.github import render_annotations, render_summary
    from oracle.report.text import PLAIN_WIDTH, print_text
    from oracle.storage import write_bytes

    class Terminal(Console):
        """A console that leaves a closed pipe to `run`, where rich would exit with 1, as for a finding."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if output is not None:
        text = (
            render_text(comparisons, verbose=verbose, quiet=quiet)
            if output_format == "text"
            else RENDERERS[output_format](comparisons)
        )
        write_bytes(output, text.encode())
    elif output_format == "text":
        console = Terminal(highlight=False)
        if not console.is_terminal or console.width < PLAIN_WIDTH:
            console = Terminal(highlight=False, width=max(console.width, PLAIN_WIDTH))
        print_text(comparisons, console, verbose=verbose, quiet=quiet)
    elif output_format == "github" and summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render_summary(comparisons))
        sys.stdout.write(render_annotations(comparisons))
    else:
        sys.stdout.write(RENDERERS[output_format](comparisons))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
