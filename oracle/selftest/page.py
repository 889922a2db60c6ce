"""`docs/detection.md`, from the results of a run. The words around the tables are in `page.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from oracle.selftest.baselines import CHECKS
from oracle.selftest.fault import FAMILIES
from oracle.selftest.goals import (
    Count,
    claims_nothing,
    count,
    count_alarms,
    has_cause,
    has_place,
    is_detected,
    is_detected_in_float32,
    list_shortfalls,
)
from oracle.selftest.results import FaultResult, SelfTest
from oracle.selftest.subjects import SUBJECTS
from oracle.spec import describe

TEMPLATE = Path(__file__).parent / "page.md"


def render_page(run: SelfTest) -> str:
    """The page."""
    faults = run.faults
    return TEMPLATE.read_text(encoding="utf-8").format(
        versions=", ".join(f"{name} {version}" for name, version in run.versions.items()),
        machine=run.machine,
        seed=run.seed,
        names=len({result.fault for result in faults}),
        trials=len(faults),
        goals="\n".join(_describe_goals(run)),
        families="\n".join(_tabulate_families(faults)),
        subjects="\n".join(_tabulate_subjects(faults)),
        baselines="\n".join(_tabulate_baselines(faults)),
        small="\n".join(_tabulate_small(faults)),
        correct="\n".join(_tabulate_correct(run)),
        shortfalls="\n".join(f"- {_escape(line)}" for line in list_shortfalls(run)) or "None.",
    )


def _describe_goals(run: SelfTest) -> list[str]:
    faults = run.faults
    causes, places = _percent(count(faults, has_cause)), _percent(count(faults, has_place))
    in_float32 = count(faults, is_detected_in_float32)
    return [
        "| | goal | measured |",
        "| --- | ---: | ---: |",
        f"| seeded faults detected, in float64 | all | {count(faults, is_detected)} |",
        f"| the cause named first, where the catalogue has it | 95 % | {causes} |",
        f"| no cause claimed, where it has none | all | {count(faults, claims_nothing)} |",
        f"| the place right | all | {places} |",
        f"| detected in float32, where its noise does not hide it | all | {in_float32} |",
        *(
            f"| false alarms on right ports, in {dtype} | 0 | {count_alarms(run.correct, dtype)} |"
            for dtype in ("float64", "float32")
        ),
    ]


def _tabulate_families(faults: Sequence[FaultResult]) -> list[str]:
    lines = [
        "| family | faults | trials | detected | cause first | place right | detected in float32 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for family, words in FAMILIES.items():
        chosen = [result for result in faults if result.family == family]
        if chosen:
            names = len({result.fault for result in chosen})
            lines.append(f"| {words} | {names} | {_summarise(chosen)} |")
    return lines


def _tabulate_subjects(faults: Sequence[FaultResult]) -> list[str]:
    lines = [
        "| seeded in | trials | detected | cause first | place right | detected in float32 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, subject in SUBJECTS.items():
        chosen = [result for result in faults if result.subject == name]
        if chosen:
            lines.append(f"| `{subject.port}`: {describe(subject.spec)} | {_summarise(chosen)} |")
    return lines


def _summarise(chosen: Sequence[FaultResult]) -> str:
    caused = [result for result in chosen if result.cause_right is not None]
    right = Count(sum(bool(result.cause_right) for result in caused), len(caused))
    cells = (
        str(len(chosen)),
        str(count(chosen, is_detected).right),
        str(right),
        str(count(chosen, has_place)),
        str(count(chosen, is_detected_in_float32)),
    )
    return " | ".join(cells)


def _tabulate_baselines(faults: Sequence[FaultResult]) -> list[str]:
    asked = [result for result in faults if result.baselines]
    if not asked:
        return ["They were not asked in this run (`--no-baselines`)."]
    lines = [
        f"| family | trials | the oracle | {' | '.join(CHECKS)} |",
        f"| --- | ---: | ---: | {' | '.join('---:' for _ in CHECKS)} |",
    ]
    for family, words in [*FAMILIES.items(), ("", "**all**")]:
        chosen = [result for result in asked if family in ("", result.family)]
        if not chosen:
            continue
        cells = [_count_seen(chosen, check) for check in CHECKS]
        lines.append(
            f"| {words} | {len(chosen)} | {count(chosen, is_detected).right} | {' | '.join(cells)} |"
        )
    return lines


def _count_seen(chosen: Iterable[FaultResult], check: str) -> str:
    said = [answer for result in chosen for answer in result.baselines if answer.check == check]
    seen, cannot = sum(bool(answer.seen) for answer in said), sum(answer.seen is None for answer in said)
    return f"{seen}, cannot {cannot}" if cannot else str(seen)


def _tabulate_small(faults: Sequence[FaultResult]) -> list[str]:
    lines = ["| fault | size | seeded in | float64 | float32 |", "| --- | ---: | --- | --- | --- |"]
    small = [result for result in faults if result.family == "small"]
    for result in sorted(small, key=lambda one: (one.fault.rpartition("-by-")[0], -(one.number or 0))):
        name = result.fault.rpartition("-by-")[0] or result.fault
        size = "-" if result.number is None else f"{result.number:.0e}"
        seen = "seen" if result.detected else "not seen"
        seen32 = "seen" if result.detected_float32 else "not seen"
        lines.append(f"| {name} | {size} | {result.subject} | {seen} | {seen32} |")
    return lines


def _tabulate_correct(run: SelfTest) -> list[str]:
    if not run.correct:
        return ["None were drawn in this run (`--correct 0`)."]
    lines = [
        "| precision | right ports | false alarms | nearest to the bound | cases that judge nothing |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for dtype, bound in (("float64", "1e-12 of the largest element"), ("float32", "8 times the noise")):
        chosen = [result for result in run.correct if result.dtype == dtype]
        alarms = count_alarms(chosen, dtype)
        nearest = max((result.needed for result in chosen if result.needed is not None), default=None)
        shown = "-" if nearest is None else f"{nearest:.2g} (bound: {bound})"
        refused = sum(bool(result.refused) for result in chosen)
        lines.append(f"| {dtype} | {alarms.total} | {alarms.right} | {shown} | {refused} |")
    return lines


def _percent(counted: Count) -> str:
    return f"{counted} ({100 * counted.part:.1f} %)" if counted.total else "-"


def _escape(line: str) -> str:
    return " ".join(line.split()).replace("|", "\\|")
