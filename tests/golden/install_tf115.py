"""TensorFlow 1.15.5 on CPython 3.7, as `install_tf` sets it up.

python -m tests.golden.install_tf115        # prints the environment's interpreter
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden import install_tf


def find_interpreter() -> Path | None:
    """The interpreter of the environment, if it was set up before."""
    return install_tf.find_interpreter("tf1.15")


if __name__ == "__main__":
    sys.exit(install_tf.main(["tf1.15"]))
