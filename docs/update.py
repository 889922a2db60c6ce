"""Write what commands print, and the text of files, into README.md, between their markers; and quirks.md.

    uv run python docs/update.py            # write
    uv run python docs/update.py --check    # exit with 1 if a file's text is not what stands there

A block is `<!-- output: oracle compare -q -->` or `<!-- file: docs/examples/own_port.py -->`, up to
`<!-- end -->`. `--check` leaves the outputs alone, which differ in their last digits from one kind of
processor to another.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from jax_models.quirks import QUIRKS

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"<!-- (output|file): (.*?) -->\n.*?<!-- end -->", re.DOTALL)


def fill(match: re.Match[str]) -> str:
    """The block with its text."""
    kind, what = match.groups()
    if kind == "file":
        text = (ROOT / what).read_text(encoding="utf-8")
    else:
        if "--check" in sys.argv:
            return match.group()
        program, *arguments = shlex.split(what)
        text = f"$ {what}\n" + subprocess.run(
            [sys.executable, "-m", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.replace(f"{ROOT}/", "")
        text = "\n".join(line.rstrip() for line in text.splitlines())
    language = "python" if kind == "file" else ""
    return f"<!-- {kind}: {what} -->\n```{language}\n{text.rstrip()}\n```\n<!-- end -->"


def describe_quirks() -> str:
    """`docs/quirks.md`, from the list in `jax_models`."""
    lines = [
        "# Quirks of TensorFlow's",
        "",
        "What TensorFlow gets wrong, `jax_models` gets wrong with it, so that a port can be verified. Each",
        "fault is the default of a switch; the other value shows what it should have been. `docs/update.py`",
        "writes this page from `jax_models/quirks.py`, which a test holds against the code.",
        "",
        "| where | switch | default | corrected | what TensorFlow does |",
        "| --- | --- | --- | --- | --- |",
    ]
    for quirk in QUIRKS:
        cells = (quirk.where, quirk.switch, repr(quirk.default), repr(quirk.corrected))
        lines.append(f"| {' | '.join(f'`{cell}`' for cell in cells)} | {quirk.what} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the pages, or check them. Returns the exit code."""
    quirks, quirks_path = describe_quirks(), ROOT / "docs" / "quirks.md"
    if "--check" in sys.argv:
        if quirks_path.read_text(encoding="utf-8") != quirks:
            print("docs/quirks.md is not of this list; run docs/update.py", file=sys.stderr)
            return 1
    else:
        quirks_path.write_text(quirks, encoding="utf-8")
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = BLOCK.sub(fill, before)
    if "--check" in sys.argv:
        if after != before:
            print(
                "README.md: a file's text differs from what stands there; run docs/update.py", file=sys.stderr
            )
        return int(after != before)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
