"""Fuzz the readers of weight files: damaged real files must be read or refused, and nothing else.

    python -m tests.fuzz.readers --minutes 10 --seed 1
    python -m tests.fuzz.readers --case hdf5:1:42          # one input again: reader, seed, number

It fails on a crash, an input that takes longer than a minute, more than the allowed memory, or an exception
that is no OracleError, and keeps such inputs under `tests/fuzz/findings/`. The time is shared equally
between the readers.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from oracle.errors import MissingPackageError, OracleError
from tests.fuzz.mutations import PATHS, make_input, write_input

FINDINGS = Path(__file__).parent / "findings"
SECONDS = 60
"""What one input may take. A reader in a process of its own is ended after a shorter time, and reported."""

MEMORY = 2**30
"""What reading may add to a process's memory, a few kilobytes of file at its base."""

ADDRESS_SPACE = 6 * 2**30


def read_input(reader: str, seed: int, number: int) -> str:
    """Read one input. Returns `read`, `refused`, or what is wrong with the reader.

    Raises:
        MissingPackageError: if the reader needs a package that is not here.
    """
    from oracle.bridge.formats.reading import read_weight_file

    with tempfile.TemporaryDirectory(prefix="gradient-oracle-fuzz-") as folder:
        path = write_input(make_input(reader, seed, number), Path(folder))
        try:
            weights = read_weight_file(path)
            describe(weights)
        except MissingPackageError as error:
            if "ml_dtypes" in str(error):
                return "refused"
            raise
        except OracleError as error:
            message = str(error)
            if "\n" in message or "fit in memory" in message:
                return f"its error is {message!r}"
            return "refused"
        except Exception:
            return traceback.format_exc()
    return "read"


def describe(weights: object) -> None:
    """What `oracle inspect` does with what was read."""
    from oracle.bridge.recognition import recognise
    from oracle.bridge.spec_inference import infer_spec
    from oracle.errors import BridgeError
    from oracle.inspection import Inspection, render_json, render_mapping, render_text

    shapes = {name: array.shape for name, array in weights.variables.items()}
    inspection = Inspection(weights, recognise(shapes), infer_spec(shapes, weights.convention))
    render_text(inspection, verbose=True)
    render_json(inspection)
    with contextlib.suppress(BridgeError):
        render_mapping(inspection)


def work() -> None:
    """Read the inputs whose numbers come in, one a line, and say what became of each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    import oracle.inspection  # noqa: F401 (its memory is not the inputs')

    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in sys.stdin:
        reader, seed, number = json.loads(line)
        try:
            result = read_input(reader, seed, number)
        except MissingPackageError as error:
            result = f"skipped: {error}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024
        if grown > MEMORY:
            result = f"reading took {grown} bytes of memory"
        print(json.dumps([result, grown]), flush=True)


class Worker:
    """A process that reads inputs, and may crash."""

    def __init__(self) -> None:
        self.start()
        self.peak = 0

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.readers", "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, reader: str, seed: int, number: int) -> str:
        self.process.stdin.write(json.dumps([reader, seed, number]) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if line:
            result, grown = json.loads(line)
            self.peak = max(self.peak, grown)
            return result
        self.process.kill()
        code = self.process.wait()
        self.start()
        return f"it crashed with {code}" if ready else f"it took longer than {SECONDS} seconds"

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def keep(reader: str, seed: int, number: int) -> Path:
    """Keep an input that showed something wrong."""
    folder = FINDINGS / f"{reader}-{seed}-{number}"
    sample = make_input(reader, seed, number)
    write_input(sample, folder)
    (folder / "PATH").write_text(sample.path)
    return folder


def fuzz(minutes: float, seed: int, readers: list[str]) -> int:
    """Fuzz for some minutes. Returns how many inputs showed something wrong."""
    worker = Worker()
    spent = dict.fromkeys(readers, 0.0)
    numbers = dict.fromkeys(readers, 0)
    results: dict[str, collections.Counter[str]] = {reader: collections.Counter() for reader in readers}
    slowest = dict.fromkeys(readers, 0.0)
    findings = 0
    end = time.monotonic() + 60 * minutes
    print(f"seed {seed}, {minutes:g} minutes, readers {', '.join(readers)}", flush=True)
    while spent and time.monotonic() < end:
        reader = min(spent, key=lambda name: spent[name])
        number = numbers[reader]
        started = time.monotonic()
        result = worker.read(reader, seed, number)
        took = time.monotonic() - started
        spent[reader] += took
        numbers[reader] += 1
        slowest[reader] = max(slowest[reader], took)
        if result.startswith("skipped"):
            print(f"{reader}: {result}", flush=True)
            del spent[reader]
        elif result in ("read", "refused"):
            results[reader][result] += 1
        else:
            findings += 1
            results[reader]["wrong"] += 1
            print(
                f"--case {reader}:{seed}:{number}, kept in {keep(reader, seed, number)}: {result}", flush=True
            )
    worker.close()
    for reader, counts in results.items():
        said = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
        print(f"{reader}: {numbers[reader]} inputs: {said}; the slowest took {slowest[reader]:.2f} s")
    print(
        f"seed {seed}: {sum(numbers.values())} inputs, {findings} wrong; memory grew by {worker.peak / 2**20:.0f} MiB"
    )
    return findings


def main() -> None:
    """Fuzz, or read one input again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--case", help="READER:SEED:NUMBER, as a finding is printed")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
    elif given.case:
        reader, seed, number = given.case.split(":")
        print(read_input(reader, int(seed), int(number)))
    else:
        sys.exit(1 if fuzz(given.minutes, given.seed, given.readers) else 0)


if __name__ == "__main__":
    main()
