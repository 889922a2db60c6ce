"""`python -m oracle.legacy_graph.codes FOLDER`: a page for each code."""

from __future__ import annotations

import sys
from pathlib import Path

from oracle.legacy_graph.codes import CODES, render_code


def main(folder: str) -> None:
    """Write a page for each code."""
    for code in CODES.values():
        Path(folder, f"{code.code}.md").write_text(render_code(code), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
