"""Run the thorough parity check and write `docs/parity.md`.

    uv run python -m tests.parity [--configurations 2000] [--jobs 2] [--only SUBSTRING] [--results FILE]

Nothing is written unless every configuration of every symbol agrees. With `--only`, the result is printed
and not written. With `--results`, each symbol's result is kept in a file of JSON lines as it comes, and a
symbol that is there already, without an error, is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oracle.storage import write_bytes

OUTPUT = Path(__file__).parents[2] / "docs" / "parity.md"


def run_symbols(symbols: list[str], configurations: int) -> None:
    """Draw and check configurations of each symbol; print a line of JSON for each."""
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.parity.harness import Worst, check
    from tests.parity.subjects import SUBJECTS

    for symbol in symbols:
        subject, worst, seen, start = SUBJECTS[symbol], Worst(), 0, time.monotonic()

        @settings(
            max_examples=configurations,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(config=subject.configurations)
        def draw(config: dict) -> None:
            nonlocal worst, seen
            worst, seen = worst.join(check(subject, config)), seen + 1

        error = None
        try:
            draw()
        except Exception as raised:
            error = " ".join(str(raised).split())[:500]
        result = {
            "symbol": symbol,
            "configurations": seen,
            "float64": worst.float64,
            "float32": worst.float32,
            "seconds": time.monotonic() - start,
            "error": error,
        }
        print(json.dumps(result), flush=True)


def read_results(path: Path | None, symbols: list[str]) -> list[dict]:
    """What an earlier run kept of these symbols, without those that disagreed."""
    if path is None or not path.exists():
        return []
    results = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [result for result in results if result["symbol"] in symbols and not result["error"]]


def describe(results: list[dict], configurations: int) -> str:
    """The results as Markdown."""
    from oracle.frameworks import installed_version
    from oracle.tolerance import FLOAT32_FACTOR, FLOAT64_BOUND

    versions = ", ".join(
        f"{name} {installed_version(name)}"
        for name in ("tensorflow", "tensorflow-addons", "keras", "jax", "flax", "numpy")
    )
    lines = [
        "# Parity with TensorFlow",
        "",
        f"Written by `python -m tests.parity`: {sum(result['configurations'] for result in results)} "
        f"configurations of {len(results)} symbols,",
        f"drawn by hypothesis, at least {configurations} asked for. {versions}.",
        "",
        "Each configuration compares outputs, final states, the loss, and the gradient of every parameter, of the",
        "inputs and of the initial state, elementwise. In float64 the worst error is given as a part of the",
        f"tensor's largest element; {FLOAT64_BOUND:g} is allowed. Where TensorFlow refuses float64, it is given as a",
        f"multiple of the error that float32 makes by itself; {FLOAT32_FACTOR:g} is allowed.",
        "",
        "| symbol | configurations | float64, worst | float32, worst |",
        "| --- | ---: | ---: | ---: |",
    ]
    for result in sorted(results, key=lambda result: result["symbol"]):
        double, single = result["float64"], result["float32"]
        cells = [
            f"`{result['symbol']}`",
            str(result["configurations"]),
            "-" if double is None else f"{double * FLOAT64_BOUND:.1e}",
            "-" if single is None else f"{single * FLOAT32_FACTOR:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Share the symbols out to processes, gather, and write. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--configurations", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--symbols", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.symbols is not None:
        run_symbols(options.symbols, options.configurations)
        return 0
    from tests.parity.subjects import SUBJECTS

    symbols = sorted(symbol for symbol in SUBJECTS if options.only in symbol)
    results = read_results(options.results, symbols)
    done = {result["symbol"] for result in results}
    left = [symbol for symbol in symbols if symbol not in done]
    # hypothesis may stop a little early where it has seen all there is to draw.
    each = -(-options.configurations // max(1, len(SUBJECTS))) + 2
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.parity",
        "--configurations",
        str(each),
        "--symbols",
    ]
    workers = [
        subprocess.Popen([*command, *left[job :: options.jobs]], stdout=subprocess.PIPE, text=True)
        for job in range(options.jobs)
    ]
    lock = threading.Lock()

    def gather(worker: subprocess.Popen[str]) -> None:
        for line in worker.stdout or ():
            with lock:
                results.append(json.loads(line))
                if options.results is not None:
                    with options.results.open("a", encoding="utf-8") as file:
                        file.write(line)
                print(f"{len(results)}/{len(symbols)} {line}", end="", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(max_workers=len(workers)) as threads:
        list(threads.map(gather, workers))
    codes = [worker.wait() for worker in workers]
    failed = [result for result in results if result["error"]]
    for result in failed:
        print(f"{result['symbol']}: {result['error']}", file=sys.stderr)
    if failed or any(codes) or len(results) != len(symbols) or not results:
        print(f"not written: {len(failed)} symbols disagree, exit codes {codes}", file=sys.stderr)
        return 1
    text = describe(results, options.configurations)
    if options.only:
        print(text, end="")
    else:
        write_bytes(OUTPUT, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
