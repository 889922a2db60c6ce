"""What a run of the self-test found: data, written to JSON and read from it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from oracle.errors import RecordError
from oracle.storage import write_bytes

FORMAT = 1


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a commonly used check says of a fault.

    Args:
        check: which, by the names of `oracle.selftest.baselines.CHECKS`.
        seen: whether it speaks up; None if it cannot be asked.
        note: why it cannot, or what it said.
    """

    check: str
    seen: bool | None
    note: str = ""


class FaultResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was said of one fault in one subject.

    Args:
        fault: by name.
        family: of the fault.
        subject: in what it was seeded, by name.
        digest: of the edited source.
        expected: the codes that describe it.
        together: whether they are to be named together.
        number: a small fault's size.
        hides_in_float32: why float32 should not see it.
        detected: whether the comparison in float64 has findings.
        findings: how many tensors differ, of `tensors`.
        tensors: how many were compared.
        largest: the tolerance that would have passed all, as a part of the largest element; None if none.
        raised: what the port raised, if it did.
        detected_float32: whether the comparison in float32 has findings; None if it was not asked.
        kind: of the explanation; None if there was none to be asked.
        codes: the causes that were named first.
        said: the explanation's first line.
        cause_right: whether the cause named first is expected; None where none was asked.
        located: the layers at which it was said to begin, the first first.
        place_right: whether one that is expected is the first; None where none was asked.
        hides_place: why it may not be.
        baselines: what else sees it.
        seconds: how long it took.
    """

    fault: str
    family: str
    subject: str
    digest: str
    expected: tuple[str, ...]
    together: bool
    number: float | None
    hides_in_float32: str
    detected: bool
    findings: int
    tensors: int
    largest: float | None
    raised: str = ""
    detected_float32: bool | None = None
    kind: str | None = None
    codes: tuple[str, ...] = ()
    said: str = ""
    cause_right: bool | None = None
    located: tuple[str, ...] = ()
    place_right: bool | None = None
    hides_place: str = ""
    baselines: tuple[Baseline, ...] = ()
    seconds: float = 0.0


class CorrectResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was said of one right port.

    Args:
        number: which draw.
        port: its name.
        spec: the spec, described.
        dtype: in which precision it ran.
        alarms: the tensors that were called wrong. There should be none.
        needed: the tolerance that would just have passed; None if none would.
        refused: why the case judges no port, if it does not: the oracle's own gradient is zero.
        seconds: how long it took.
    """

    number: int
    port: str
    spec: str
    dtype: str
    alarms: tuple[str, ...]
    needed: float | None
    refused: str = ""
    seconds: float = 0.0


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole run.

    Args:
        seed: of every random choice.
        versions: of the frameworks.
        machine: what it ran on.
        faults: of the seeded faults.
        correct: of the right ports.
        format: of the file.
    """

    seed: int
    versions: dict[str, str]
    machine: str
    faults: tuple[FaultResult, ...] = ()
    correct: tuple[CorrectResult, ...] = ()
    format: int = FORMAT


def write_results(results: SelfTest, path: str | os.PathLike[str]) -> None:
    """Write a run to a JSON file, whole or not at all.

    Raises:
        RecordError: if the place cannot be written.
    """
    write_bytes(path, msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def read_results(path: str | os.PathLike[str]) -> SelfTest:
    """Read a run.

    Raises:
        RecordError: if the file is not one.
    """
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=SelfTest)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}; was the self-test run?") from error
    except msgspec.MsgspecError as error:
        raise RecordError(f"{path} holds no results of the self-test: {error}; run it anew") from error
