"""What running the two sides in two processes gains: `oracle compare` so and in one, side by side.

    uv run python -m bench.processes [--rounds N] [--output docs/processes.md]

The two commands take turns, after one round that is not counted. Each run must find that everything matches.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from oracle.storage import write_bytes

COMMANDS = {
    "two processes": ["compare", "--processes", "2", "--quiet"],
    "one process": ["compare", "--processes", "1", "--quiet"],
    "importing TensorFlow and tfa alone": None,
}


def measure(arguments: list[str] | None) -> float:
    """Seconds that one run takes, from start to end."""
    command = (
        [sys.executable, "-m", "oracle", *arguments]
        if arguments
        else [
            sys.executable,
            "-c",
            "import tensorflow_addons",
        ]
    )
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}, so no speed is given: {done.stderr}")
    return seconds


def main() -> None:
    """Measure in turns and print, or write, the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(options.rounds + 1):
        for name, arguments in COMMANDS.items():
            taken = measure(arguments)
            if number > 0:
                seconds[name].append(taken)
            print(f"round {number}: {name} {taken:.2f} s", file=sys.stderr)
    text = describe(seconds)
    if options.output is None:
        print(text, end="")
    else:
        write_bytes(options.output, text.encode())


def describe(seconds: dict[str, list[float]]) -> str:
    """The measurement as Markdown."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [
        "# Two processes against one",
        "",
        f"`python -m bench.processes`, {len(seconds['two processes'])} rounds in turns,",
        f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}. Whole runs of the",
        "default `oracle compare`, the frameworks' imports included. What JAX compiles is kept from the",
        "first round, which is not counted.",
        "",
        "| | median | fastest | slowest |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, values in seconds.items():
        lines.append(f"| {name} | {medians[name]:.2f} s | {min(values):.2f} s | {max(values):.2f} s |")
    ratio = statistics.median(
        two / one for two, one in zip(seconds["two processes"], seconds["one process"], strict=True)
    )
    lines += ["", f"Two processes take {ratio:.2f} times what one takes (median of the rounds' ratios)."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
