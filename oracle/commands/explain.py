"""`oracle explain`."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any, Literal

from oracle.commands.options import Quiet, Verbose


def explain(
    target: str | None = None,
    *,
    spec: Path | None = None,
    mapping: Path | None = None,
    output_format: Literal["text", "json"] = "text",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Say why a port's record is not the oracle's, or what a code means. Needs no TensorFlow.

    Every cause in the catalogue is tried on the oracle, until it gives the record's numbers.
    Exits with 0 if every tensor matches or a code is explained, with 1 if one does not match,
    with 2 if it could not be found out.

    Parameters
    ----------
    target
        A record, of `oracle record` or of the recorder; or a code: of a cause, `C101`, or of
        `oracle diagnose`, `G001`. Without one, all are listed.
    spec
        A JSON file that describes the model, as of `oracle verify`.
    mapping
        A TOML file: which variables are which of the oracle's leaves, as of `oracle verify`.
    output_format
        Text for people, JSON for programs.
    verbose
        Print tracebacks, and every candidate.
    quiet
        Print the explanation alone.
    """
    from oracle.causes.plugins import load_plugins
    from oracle.errors import UsageError

    load_plugins()
    if target is None:
        from oracle.causes import CAUSES
        from oracle.legacy_graph.codes import CODES

        for code, what in [*sorted(CAUSES.items()), *CODES.items()]:
            print(f"{code}  {what.title}")
        sys.stdout.flush()
        return 0
    if not Path(target).exists() and (page := find_page(target)) is not None:
        sys.stdout.write(page)
        sys.stdout.flush()
        return 0
    if not Path(target).exists() and re.fullmatch(r"\w{1,8}", target):
        raise UsageError(
            f"{target}: no such file, and no such code; give a record, or a code that `oracle explain` lists"
        )
    return _explain_file(
        Path(target), spec, mapping, output_format=output_format, verbose=verbose, quiet=quiet
    )


def find_page(code: str) -> str | None:
    """The page of a code; None if it does not look like one.

    Raises:
        UsageError: if it looks like a code, and there is none such.
    """
    from oracle.causes import CAUSES, find_cause, render_cause

    if code.upper() in CAUSES or re.fullmatch(r"[Cc]\d+", code):
        return render_cause(find_cause(code))
    if re.fullmatch(r"[Gg]\d+", code):
        from oracle.legacy_graph.codes import find_code, render_code

        return render_code(find_code(code))
    return None


def _explain_file(
    file: Path,
    spec: Path | None,
    mapping: Path | None,
    *,
    output_format: Literal["text", "json"],
    verbose: bool,
    quiet: bool,
) -> int:
    import msgspec

    from oracle.bridge.mapping_file import read_mapping
    from oracle.commands.record import _read_spec
    from oracle.errors import UsageError
    from oracle.explain import explain_rebuilt
    from oracle.pair import Pair
    from oracle.progress import show_progress
    from oracle.rebuild import rebuild
    from oracle.record import read_record
    from oracle.verify import verify_record

    record = read_record(file)
    given: dict[str, Any] = {
        "spec": None if spec is None else _read_spec(spec),
        "sites": None if mapping is None else read_mapping(mapping),
    }
    with show_progress(f"explain {file.name}", quiet=quiet) as on_done:
        comparison = verify_record(record, **given)
        on_done("the comparison")
        if isinstance(comparison, Pair):
            raise UsageError(
                f"{file}: recorded in {record.origin.dtype}, whose roundings are not measured; `oracle "
                "verify` compares it; record the port in float64 to have it explained"
            )
        if comparison.failure is None and not comparison.matches:
            explanation = explain_rebuilt(rebuild(record, **given), on_done=on_done)
            comparison = msgspec.structs.replace(comparison, explanation=explanation)
    sys.stdout.write(_render(comparison, output_format, verbose=verbose, quiet=quiet))
    sys.stdout.flush()
    return 0 if comparison.matches else 1


def _render(comparison: Any, output_format: Literal["text", "json"], *, verbose: bool, quiet: bool) -> str:
    import json

    import msgspec

    from oracle.report.json import finite
    from oracle.report.verdict import name_port, state_verdict

    explanation = comparison.explanation
    if output_format == "json":
        report = {
            "format": 1,
            "matches": comparison.matches,
            "verdict": state_verdict(comparison),
            "explanation": msgspec.to_builtins(explanation),
        }
        return json.dumps(finite(report), indent=2, allow_nan=False) + "\n"
    word = "PASS" if comparison.matches else "FAIL"
    lines = [] if quiet else [f"{word} {name_port(comparison)}: {state_verdict(comparison)}"]
    if explanation is not None:
        lines += explanation.lines
    if comparison.failure is not None and not quiet:
        lines.append("It has no numbers to explain; `oracle diagnose` says why a port raises.")
    text = "\n".join(lines) + "\n" if lines else ""
    if explanation is None or quiet or explanation.best is None:
        return text
    return text + _build_table(explanation, most=None if verbose else 4)


def _build_table(explanation: Any, *, most: int | None) -> str:
    """The candidates, the best first."""
    import io

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from oracle.report.terminal import PLAIN_WIDTH

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title, side in (("cause", "left"), ("tensors that agree", "right"), ("largest error left", "right")):
        table.add_column(title, justify=side, no_wrap=True)
    table.add_column("what the port does")
    for one in (explanation.best, *explanation.others)[:most]:
        agree = f"{one.matching} of {one.total}"
        left = f"{one.distance:.1e}" if math.isfinite(one.distance) else "-"
        table.add_row(" + ".join(one.codes), agree, left, escape(one.sentence))
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None, legacy_windows=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    shown = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join([*shown, f"{explanation.tried} settings of causes were tried."]) + "\n"
