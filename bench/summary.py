"""A run in tables: what the terminal, the page and the HTML report say, each row a list of words."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis import find_exponent, find_floor, median, quartiles, ratio, share_out, sweeps
from bench.contestants import CONTESTANTS
from bench.machine import CPUS, LOAD
from bench.records import Change
from bench.results import CaseFacts, Measurement, Profile, Run
from bench.targets import Target

BUSY = 0.5
"""A load above this part of the CPUs is other work."""

STEP_HEADER = ("contestant", "median", "quartiles", "of the floor", "first call", "trace", "compile", "peak")

_ORDER = {contestant.name: number for number, contestant in enumerate(CONTESTANTS)}


def show_seconds(seconds: float | None) -> str:
    """A duration in the unit that suits it: `12.3 ms`."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:.0f} {unit}"
    return "-"


def show_bytes(count: int | None) -> str:
    """A number of bytes: `128 MiB`."""
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


def show_ratio(value: float | None) -> str:
    """A ratio to two digits behind the point."""
    return "-" if value is None else f"{value:.2f}"


def sort_measurements(run: Run, case: str) -> list[Measurement]:
    """The measurements of a case in the order of the contestants."""
    return sorted(run.of(case), key=lambda each: _ORDER.get(each.contestant, len(_ORDER)))


def list_steps(run: Run, case: str) -> list[tuple[str, ...]]:
    """A row a contestant, below `STEP_HEADER`; those without a speed with the reason why."""
    floor = find_floor(run, case)
    rows = []
    for each in sort_measurements(run, case):
        low, high = quartiles(each)
        rows.append(
            (
                each.contestant,
                show_seconds(median(each)),
                f"{show_seconds(low)} to {show_seconds(high)}",
                show_ratio(ratio(each, floor)),
                show_seconds(each.first),
                show_seconds(each.trace),
                show_seconds(each.compile),
                show_bytes(each.peak),
            )
        )
    return rows


def list_absences(run: Run, case: str) -> list[str]:
    """A line a contestant without a speed. What a case has not by its nature comes last."""
    order = {"disagrees": 0, "failed": 1, "absent": 2}
    found = [each for each in run.absences if each.case == case]
    words = {"disagrees": "no speed, it disagrees", "failed": "failed", "absent": "absent"}
    return [
        f"{each.contestant}: {words[each.kind]}: {each.reason}"
        for each in sorted(found, key=lambda each: order[each.kind])
    ]


TARGET_HEADER = ("what", "where", "at most", "found", "")


def list_targets(targets: Sequence[Target]) -> list[tuple[str, ...]]:
    """A row a target, below `TARGET_HEADER`."""
    return [
        (
            target.what,
            target.where,
            "-" if target.bound is None else f"{target.bound:g}",
            show_ratio(target.found)
            + (f" {target.note}" if target.found is not None and target.note else ""),
            target.state,
        )
        for target in targets
    ]


EXPONENT_HEADER = ("sweep", "over", "contestant", "exponent")


def list_exponents(run: Run) -> list[tuple[str, ...]]:
    """A row for each contestant of each sweep, below `EXPONENT_HEADER`."""
    rows = []
    for group, cases in sweeps(run).items():
        for name in (contestant.name for contestant in CONTESTANTS):
            exponent = find_exponent(run, cases, name)
            if exponent is not None:
                sizes = [case.value for case in cases if run.find(case.name, name) is not None]
                over = f"{cases[0].axis} from {sizes[0]:,} to {sizes[-1]:,}"
                rows.append((group, over, name, f"{exponent:.2f}"))
    return rows


PROFILE_HEADER = (
    "case",
    "contestant",
    "one CPU",
    "floor, one CPU",
    "of the floor",
    "products",
    "elements",
    "sums",
    "copies",
    "between",
)


def list_profiles(run: Run) -> list[tuple[str, ...]]:
    """A row for each contestant whose time was looked into, below `PROFILE_HEADER`."""
    rows = []
    for each in run.profiles:
        shares = [f"{share:.0%}" for share in share_out(each).values()]
        times = show_seconds(each.step), show_seconds(each.floor), show_ratio(each.step / each.floor)
        rows.append((each.case, each.contestant, *times, *shares))
    return rows


def explain_unmet(run: Run, targets: Sequence[Target]) -> list[str]:
    """A line for each target that is not met: of a sweep, of a command, of a step that was looked into."""
    explain = (_explain_exponent, _explain_command, _explain_step)
    unmet = [target for target in targets if target.state == "not met"]
    return [
        f"{target.where}: {target.what} is {show_ratio(target.found)}, {target.bound:g} was asked for: {line}"
        for each in explain
        for target in unmet
        if (line := each(run, target))
    ]


def _explain_step(run: Run, target: Target) -> str:
    """What the target asks for, by the floor, and where the step's time goes; empty if that is not known."""
    profiles = (
        each for each in run.profiles if (each.case, each.contestant) == (target.where, target.contestant)
    )
    profile, measured = next(profiles, None), run.find(target.where, target.contestant)
    floor = find_floor(run, target.where)
    if profile is None or measured is None or floor is None:
        return ""
    assert target.found is not None
    assert target.bound is not None
    # What there is, and what the target asks for, both by the floor.
    found = median(measured) / median(floor)
    asked = found * target.bound / target.found
    shares = share_out(profile)
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    alone = profile.step / profile.floor
    return (
        f"{asked:.2f} times the floor's time, where the step takes {found:.2f}. "
        f"On one CPU the step takes {alone:.2f} times the floor's, its products alone "
        f"{shares['products'] * alone:.2f} ({parts}). "
        f"The second CPU makes the step {profile.step / median(measured):.2f} times as fast, "
        f"the floor {profile.floor / median(floor):.2f} times."
    )


def _explain_exponent(run: Run, target: Target) -> str:
    """What becomes of the floor's, and of what keeps less; empty if the target is of no sweep."""
    cases = sweeps(run).get(target.where, [])
    if not cases:
        return ""
    ends = cases[0].name, cases[-1].name
    ratios = [show_ratio(ratio(run.find(name, "fast"), find_floor(run, name))) for name in ends]
    kept = show_ratio(find_exponent(run, cases, "fast-remat"))
    profiles = [each for name in ends for each in run.profiles if each.case == name]
    grown = ""
    if len(profiles) == len(ends):
        shortest, longest = (_describe_shares(each) for each in profiles)
        grown = f" On one CPU its parts are {shortest} of the floor's time, then {longest}."
    return (
        f"the step takes {ratios[0]} times the floor's time at the shortest and {ratios[1]} times at the "
        f"longest. Rematerialised, where the loop keeps less the longer it is, the exponent is {kept}.{grown}"
    )


def _describe_shares(profile: Profile) -> str:
    """The parts of a step, each in times of the floor."""
    alone = profile.step / profile.floor
    return ", ".join(f"{name} {share * alone:.2f}" for name, share in share_out(profile).items())


def _explain_command(run: Run, target: Target) -> str:
    """Both times, and how far the rounds' ratios are apart; empty if the target is of no command's time."""
    ours = run.find(target.where, target.contestant)
    others = [each for each in run.of(target.where) if each != ours]
    if ours is None or len(others) != 1 or not target.where.startswith("latency/"):
        return ""
    (other,) = others
    ratios = [a / b for a, b in zip(ours.seconds, other.seconds, strict=False)]
    return (
        f"{show_seconds(median(ours))} and {show_seconds(median(other))}. The rounds' ratios are "
        f"{show_ratio(min(ratios))} to {show_ratio(max(ratios))}."
    )


CHANGE_HEADER = ("case", "contestant", "saved", "now", "ratio", "")


def list_changes(changes: Sequence[Change]) -> list[tuple[str, ...]]:
    """A row for each contestant of a comparison, below `CHANGE_HEADER`."""
    return [
        (
            change.case,
            change.contestant,
            show_seconds(change.before),
            show_seconds(change.after),
            show_ratio(change.ratio),
            change.failure,
        )
        for change in changes
    ]


def describe_case(case: CaseFacts) -> str:
    """A case in a line: the model and the sizes."""
    parts = [case.what]
    if case.batch:
        parts.append(f"{case.batch} rows of {case.time} steps")
    if case.flops:
        parts.append(f"{case.flops / 1e9:.3g} GFLOP in the floor's products")
    return ", ".join(parts)


def warn_of_load(run: Run) -> str:
    """What is to be said if other work ran on the machine when the run began; empty if none did."""
    load, cpus = run.machine.get(LOAD, "").partition(",")[0], run.machine.get(CPUS, "")
    if not load or not cpus or float(load) <= BUSY * int(cpus):
        return ""
    return (
        f"Other work ran on this machine: the load was {load} on {cpus} CPUs when the run began. Take the "
        "figures for a draft, and measure anew on a machine at rest."
    )


def describe_run(run: Run) -> list[tuple[str, str]]:
    """What a run was made on, by name."""
    facts = {
        "measured": run.started,
        "took": f"{run.took:.0f} s",
        "selection": run.selection,
        "seed": str(run.seed),
        "rounds": f"{run.rounds} at most",
        "threads": f"{run.threads} in every process",
        "commit": run.commit,
    }
    return [*facts.items(), *run.machine.items(), *run.versions.items()]
