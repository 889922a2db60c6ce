"""The command line: parse, call, exit code. No logic, and no framework is imported to start it.

Exit codes: 0 everything matches; 1 a finding; 2 a usage or environment error; 3 a defect of ours,
or an oracle that is inconsistent.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.config import Dict, Env

from oracle.commands.bench import bench
from oracle.commands.compare import SETTINGS, compare
from oracle.commands.decode import decode
from oracle.commands.explain import explain
from oracle.commands.legacy import diagnose, repair
from oracle.commands.models import doctor, models
from oracle.commands.record import record, recorder, verify
from oracle.commands.selftest import selftest
from oracle.commands.train import train
from oracle.commands.trajectory import trajectory
from oracle.commands.weights import convert, inspect
from oracle.compilation_cache import keep_programs
from oracle.errors import OracleError
from oracle.settings import find_pyproject, read_settings


def _version() -> str:
    from oracle.frameworks import installed_version

    return f"gradient-oracle {installed_version('gradient-oracle')}"


app = App(
    name="oracle",
    help="Check the gradients of a TensorFlow encoder-decoder against an independent Flax model.",
    version=_version,
    suppress_keyboard_interrupt=False,
)


for _command in (
    compare,
    trajectory,
    recorder,
    record,
    verify,
    explain,
    selftest,
    decode,
    diagnose,
    repair,
    inspect,
    convert,
    train,
    models,
    doctor,
    bench,
):
    app.command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit. `arguments` are those after the program's name."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # As Ctrl-C does, so that the two processes and their files go too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    keep_programs()
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
    except SystemExit as error:
        # Only the code of a person can ask for it here; it must not pass for success.
        return _fail(f"the code that was run called sys.exit({error.code}); take it out", 2, verbose=verbose)
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


if __name__ == "__main__":
    main()
