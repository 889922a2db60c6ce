"""Write what commands print, and the text of files, into README.md, between their markers.

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


def main() -> int:
    """Write the README, or check it. Returns the exit code."""
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
