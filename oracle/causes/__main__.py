"""`python -m oracle.causes FOLDER`: a page for each cause, and one that lists them."""

from __future__ import annotations

import sys
from pathlib import Path

from oracle.causes import CAUSES, render_cause, render_index


def main(folder: str) -> None:
    """Write the pages."""
    for cause in CAUSES.values():
        Path(folder, f"{cause.code}.md").write_text(render_cause(cause), encoding="utf-8")
    Path(folder, "README.md").write_text(render_index(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
