"""An explanation in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from oracle.causes.closeness import Closeness
from oracle.causes.trial import Trial
from oracle.explanation import Explanation
from oracle.record import Record


def tell_explained(
    port: Record, neutral: Trial, exact: Sequence[Trial], tried: int, *, most: int
) -> Explanation:
    """What explains a port, the best first, and no more than `most`."""
    exact = _drop_repeated(exact)[:most]
    best = exact[0].describe()
    within = (
        f"exactly ({best.distance:.0e})"
        if port.origin.dtype == "float64"
        else (f"within the roundings of float32 ({best.distance:.0e})")
    )
    lines = [f"Your port equals the oracle {within} if {best.sentence}."]
    lines += _observe(port, neutral, exact[0])
    lines.append(best.remedy)
    others = tuple(trial.describe() for trial in exact[1:])
    # What is fitted says in numbers what a cause has said already; but without the loss a factor on it cannot
    # be told from one on its gradients.
    is_whole = "loss" in port.tensors
    alike = [
        other
        for other, trial in zip(others, exact[1:], strict=True)
        if len(trial.parts) == len(exact[0].parts) and (trial.is_fitted <= exact[0].is_fitted or not is_whole)
    ]
    if alike:
        said = "; ".join(f"{other.sentence} ({', '.join(other.codes)})" for other in alike)
        lines.append(f"On this case that cannot be told from: {said}.")
    lines.append(f"See {_pages(best.codes)}.")
    rounds = all(cause.kind == "rounds" for cause, _ in exact[0].parts)
    return Explanation("precision" if rounds else "explained", tuple(lines), best, others, tried)


def tell_unexplained(neutral: Trial, nearest: Sequence[Trial], tried: int, causes: int) -> Explanation:
    """What comes nearest where nothing explains."""
    line = (
        f"Nothing in the catalogue of {causes} causes explains it: {tried} settings of them were tried, "
        "alone and in pairs."
    )
    near = [trial for trial in _drop_repeated(nearest) if _is_nearer(trial.closeness, neutral.closeness)]
    if not near:
        return Explanation("unexplained", (line,), None, (), tried)
    best = near[0].describe()
    left = [name for name, ratio in near[0].closeness.ratios.items() if ratio > 1.0]
    size = f"is {best.distance:.1e}" if math.isfinite(best.distance) else "cannot be compared"
    lines = [
        line,
        f"Nearest ({', '.join(best.codes)}): if {best.sentence}, {best.matching} of {best.total} tensors "
        f"agree, in place of {neutral.closeness.matching}; what is left {size}, first in "
        f"{left[0]}.",
    ]
    return Explanation(
        "unexplained", tuple(lines), best, tuple(trial.describe() for trial in near[1:]), tried
    )


def _drop_repeated(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that say something else than an earlier one: a cause may have one setting in two forms."""
    said: dict[tuple[tuple[str, ...], str], Trial] = {}
    for trial in trials:
        said.setdefault((trial.codes, trial.describe().sentence), trial)
    return list(said.values())


def _is_nearer(found: Closeness, neutral: Closeness) -> bool:
    """Whether it is worth telling: more tensors agree, or of what is missing half is gone."""
    return found.matching > neutral.matching or (
        found.matching == neutral.matching and found.decades <= neutral.decades / 2
    )


def _observe(port: Record, neutral: Trial, trial: Trial) -> Iterator[str]:
    """What is seen of gradients that the cause makes vanish."""
    gone = [
        name
        for name, tensor in trial.tensors.items()
        if name.startswith("gradient/") and not tensor.any() and neutral.tensors[name].any()
    ]
    if not gone:
        return
    states = {name for name in neutral.tensors if name.startswith("state/encoder")}
    if states and not states & port.tensors.keys():
        yield "The port shows no state of the encoder: it seems to be made with `return_state=False`."
    nones = [name for name in gone if name in port.tensors and port.tensors[name] is None]
    zeros = [name for name in gone if name in port.tensors and name not in nones]
    if nones:
        yield f"Nothing connects {_list(nones)} to the loss: they are None."
    if zeros and any(_disconnects(code) for code in trial.codes):
        yield (
            f"{_list(zeros)} are zeros, where they would be None: maybe "
            "`unconnected_gradients=tf.UnconnectedGradients.ZERO` hides that nothing connects them."
        )


def _disconnects(code: str) -> bool:
    """Whether a port that has a cause has gradients of None where they vanish."""
    return code.startswith(("C1", "C60", "C63")) and code != "C607"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _pages(codes: Sequence[str]) -> str:
    return " and ".join(f"docs/causes/{code}.md" for code in dict.fromkeys(codes) if code.startswith("C"))
