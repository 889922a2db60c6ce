"""An explanation in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oracle.causes.trial import Trial
from oracle.explanation import Explanation
from oracle.record import Record


def tell_explained(port: Record, neutral: Trial, exact: Sequence[Trial], tried: int) -> Explanation:
    """What explains a port, the best first."""
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
    # What is fitted says in numbers what a cause has said already.
    alike = [
        other
        for other, trial in zip(others, exact[1:], strict=True)
        if len(trial.parts) == len(exact[0].parts) and trial.is_fitted <= exact[0].is_fitted
    ]
    if alike:
        said = "; ".join(f"{other.sentence} ({', '.join(other.codes)})" for other in alike)
        lines.append(f"On this case that cannot be told from: {said}.")
    lines.append(f"See {_pages(best.codes)}.")
    return Explanation("explained", tuple(lines), best, others, tried)


def tell_unexplained(neutral: Trial, nearest: Sequence[Trial], tried: int, causes: int) -> Explanation:
    """What comes nearest where nothing explains."""
    line = (
        f"Nothing in the catalogue of {causes} causes explains it: {tried} settings of them were tried, "
        "alone and in pairs."
    )
    near = [trial for trial in nearest if trial.rank() < neutral.rank()]
    if not near:
        return Explanation("unexplained", (line,), None, (), tried)
    best = near[0].describe()
    left = [name for name, ratio in near[0].closeness.ratios.items() if ratio > 1.0]
    lines = [
        line,
        f"Nearest ({', '.join(best.codes)}): if {best.sentence}, {best.matching} of {best.total} tensors "
        f"agree, "
        f"in place of {neutral.closeness.matching}; what is left is {best.distance:.1e}, first in {left[0]}.",
    ]
    return Explanation(
        "unexplained", tuple(lines), best, tuple(trial.describe() for trial in near[1:]), tried
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
    if zeros:
        yield (
            f"{_list(zeros)} are zeros, where they would be None: maybe "
            "`unconnected_gradients=tf.UnconnectedGradients.ZERO` hides that nothing connects them."
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _pages(codes: Sequence[str]) -> str:
    return " and ".join(f"docs/causes/{code}.md" for code in dict.fromkeys(codes) if code.startswith("C"))
