"""Measure every optimizer against its counterpart, and write the figures into docs/trajectory.md.

uv run python -m tests.trajectories
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oracle.errors import OracleError
from oracle.frameworks import import_jax, import_tensorflow, import_tfa, installed_version
from oracle.optimizer import Optimizer
from oracle.trajectory import TrajectoryComparison, compare_trajectories
from tests.trajectories.measuring import keep_parameters, use_counterpart
from tests.trajectories.subjects import FLOAT32_SCHEDULES, STEPS, SUBJECTS, draw_gradients, draw_initial

PAGE = Path(__file__).parents[2] / "docs" / "trajectory.md"


def measure(optimizer: Optimizer, build: Any = None) -> TrajectoryComparison:
    """The optimizer's trajectory against its counterpart's, or against that of a wrong one."""
    from oracle.steps.trajectory import step_optimizer as step_oracle
    from tf_models.trajectory import step_optimizer as step_port

    initial, gradients = draw_initial(), draw_gradients()
    if build is None:
        port, oracle = (
            step_port(optimizer, initial, gradients),
            step_oracle(optimizer, initial, gradients),
        )
        return compare_trajectories(port, oracle, initial=initial)
    with use_counterpart(build):
        port = keep_parameters(step_port(optimizer, initial, gradients))
        oracle = keep_parameters(step_oracle(optimizer, initial, gradients))
        return compare_trajectories(port, oracle, initial=initial)


def tabulate_agreement(subjects: Sequence[Optimizer]) -> str:
    """A row an optimizer: the largest difference of any tensor at any step, and how the weights drift."""
    lines = [
        f"| optimizer | needed over {STEPS} steps | drift of the weights | grows as |",
        "| --- | ---: | ---: | ---: |",
    ]
    for optimizer in subjects:
        found = measure(optimizer)
        growth = "-" if found.growth is None else f"step^{found.growth:.1f}"
        needed = "none" if found.needed is None else f"{found.needed:.1e}"
        lines.append(f"| `{optimizer.describe()}` | {needed} | {found.rows[-1].drift:.1e} | {growth} |")
        _say(lines[-1])
    return "\n".join(lines)


def tabulate_wrong() -> str:
    """A row a wrong formula: where it is caught, and how far it leads off."""
    from tests.trajectories.wrong_variants import WRONG

    lines = [
        f"| optimizer | taken for it | diverges at step | off by after 1 step | after {STEPS} steps |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for optimizer, what, build in WRONG:
        found = measure(optimizer, build)
        if found.divergence is None:
            raise OracleError(f"{optimizer.describe()}: {what} is not told from it")
        first, last = (found.rows[number].by_kind["parameter"] for number in (0, -1))
        name = f"`{what}`" if what.startswith("optax.") else what
        lines.append(
            f"| `{optimizer.describe()}` | {name} | {found.divergence.step} | {first:.1e} | {last:.1e} |"
        )
        _say(lines[-1])
    return "\n".join(lines)


def main() -> int:
    """Measure, and write the page. Returns the exit code."""
    import_tensorflow(), import_tfa(), import_jax()
    names = ("tensorflow", "keras", "tensorflow-addons", "jax", "optax", "numpy")
    tables = {
        "versions": "Measured with " + ", ".join(f"{name} {installed_version(name)}" for name in names) + ".",
        "agreement": tabulate_agreement(SUBJECTS),
        "float32": tabulate_agreement(FLOAT32_SCHEDULES),
        "wrong": tabulate_wrong(),
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        block = re.compile(rf"<!-- measured: {name} -->\n.*?<!-- end -->", re.DOTALL)
        if len(block.findall(text)) != 1:
            raise OracleError(f"{PAGE}: it needs one place for `{name}`, between its two comments")
        text = block.sub(
            lambda _, name=name, table=table: f"<!-- measured: {name} -->\n{table}\n<!-- end -->", text
        )
    PAGE.write_text(text, encoding="utf-8")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
