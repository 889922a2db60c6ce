"""Writes `repaired/`: what TensorFlow 2.15.1 made of a file of `tf115/`, for the newest TensorFlow to load.

python -m tests.golden.graphs.make_repaired
"""

from __future__ import annotations

import shutil
from pathlib import Path

from oracle.legacy_graph.repair import repair_file, write_repaired

FOLDER = Path(__file__).parent
REPAIRED = "loop-in-loop"


def main() -> None:
    """Write it anew."""
    target = FOLDER / "repaired" / REPAIRED
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir()
    write_repaired(repair_file(FOLDER / "tf115" / REPAIRED), target)


if __name__ == "__main__":
    main()
