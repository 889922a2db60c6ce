"""`oracle inspect` and `oracle convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from oracle.commands.options import Quiet, Verbose

WrittenFormat = Literal[
    "safetensors", "flax-msgpack", "tf1-checkpoint", "tf2-checkpoint", "keras-weights-h5", "keras-h5"
]


def _as_place(kind: Any, tokens: Any) -> Path:
    # An empty path would be the current folder, as after a shell's variable that is not set.
    del kind
    if not tokens[0].value:
        raise ValueError("the path is empty")
    return Path(tokens[0].value)


Place = Annotated[Path, Parameter(converter=_as_place)]
"""A path that is not empty."""


def inspect(
    source: Place,
    *,
    mapping: bool = False,
    json: bool = False,
    verbose: Verbose = False,
) -> int:
    """Print what is in a weight file: its variables, the cells they make, and the spec.

    Nothing in the file is run, and TensorFlow is not imported.

    Parameters
    ----------
    source
        A checkpoint's prefix, or a file or folder: a TF1 or TF2 checkpoint, a SavedModel, a frozen
        `.pb`, `.h5`, `.weights.h5`, `.keras`, safetensors, Flax's msgpack or Orbax.
    mapping
        Print the inferred mapping instead, as TOML to start from.
    json
        Print the description for programs instead.
    verbose
        List every slot and note, and print tracebacks.
    """
    from oracle.errors import UsageError
    from oracle.inspection import inspect_weights, render_json, render_mapping, render_text

    if mapping and json:
        raise UsageError("--mapping and --json are two kinds of output; give one")
    inspection = inspect_weights(source)
    if mapping:
        text = render_mapping(inspection)
    else:
        text = render_json(inspection) if json else render_text(inspection, verbose=verbose)
    print(text, end="", flush=True)
    return 0


def convert(
    source: Place,
    target: Place,
    *,
    format: WrittenFormat | None = None,
    mapping: Path | None = None,
    to: Literal["leaves", "variables"] | None = None,
    weights_only: bool = False,
    overwrite: bool = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Write weights in another format, bit for bit.

    Names are kept, unless a mapping carries variables to the oracle's leaves or back. What the target
    cannot hold is an error, and nothing is written.

    Parameters
    ----------
    source
        As for `oracle inspect`.
    target
        A file, or a checkpoint's prefix.
    format
        The target's format. By default what its ending says: `.safetensors`, `.msgpack`, `.weights.h5`,
        `.h5`; without one or with `.ckpt`, a checkpoint of the kind that the names are of.
    mapping
        A TOML file: which variables are which of the oracle's leaves. `oracle inspect --mapping` prints
        one to start from.
    to
        With a mapping that has the same names on both sides, which way to go.
    weights_only
        Write the variables alone, without slots, averages, counters and what is no numbers.
    overwrite
        Replace what is there.
    verbose
        Print tracebacks.
    quiet
        Print nothing but errors.
    """
    del verbose  # `main` reads it.
    from oracle.conversion import convert as convert_weights

    done = convert_weights(
        source,
        target,
        format=format,
        mapping=mapping,
        to=to,
        weights_only=weights_only,
        overwrite=overwrite,
    )
    if not quiet:
        kept = done.source
        print(f"{done.path}: {done.format}, {len(kept.variables)} variables from {kept.path}")
        for line in done.left_out:
            print(f"left out: {line}", flush=True)
    return 0
