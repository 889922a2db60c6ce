"""What an optimizer is easily mistaken for: each a transformation of its description. No framework.

An alternative is another `Optimizer`, or the same one with a *form*: a deviation that no argument of
TensorFlow's expresses. `oracle.steps.alternatives` makes it, `oracle.explain_trajectory` tries it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from oracle.optimizer import DEFAULTS, Optimizer

LOOP_FORMS = frozenset({"gather", "reset", "restore", "skip", "twice"})
"""Forms of the loop around the optimizer, not of the optimizer."""

_FAMILIES = (
    ("keras.Adam", "legacy.Adam", "tf1.Adam", "tfa.LazyAdam", "keras.AdamW", "tfa.AdamW"),
    ("keras.SGD", "legacy.SGD", "tf1.Momentum", "tf1.GradientDescent", "tfa.SGDW"),
    ("keras.RMSprop", "legacy.RMSprop", "tf1.RMSProp"),
    ("keras.Adagrad", "legacy.Adagrad", "tf1.Adagrad"),
    ("keras.Adadelta", "legacy.Adadelta", "tf1.Adadelta"),
    ("keras.Adamax", "legacy.Adamax"),
    ("keras.Nadam", "legacy.Nadam"),
    ("keras.Ftrl", "legacy.Ftrl", "tf1.Ftrl"),
)
"""Classes that stand for one another, from version to version."""

_CANONICAL = {
    "tf1.Adam": {"beta1": "beta_1", "beta2": "beta_2"},
    "tf1.RMSProp": {"decay": "rho"},
    "tf1.Momentum": {"use_nesterov": "nesterov"},
}
"""What TensorFlow 1 calls what the others call otherwise."""

CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
PARTS = ("beta_1", "beta_2", "beta1", "beta2", "rho", "momentum")
FITTED_ELSEWHERE = ("learning_rate", "weight_decay", *CLIPS)


@dataclass(frozen=True)
class Form:
    """A deviation: its kind, and a number or a word for it."""

    kind: str
    word: str = ""
    number: float = 0.0


@dataclass(frozen=True)
class Alternative:
    """An optimizer that the port may train by.

    Args:
        code: the cause's, `C801`.
        optimizer: the optimizer.
        forms: deviations on top of it.
        setting: put in the cause's sentence.
        numbers: as well.
        cost: what is said first of alternatives that fit alike: the lowest.
    """

    code: str
    optimizer: Optimizer
    forms: tuple[Form, ...] = ()
    setting: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    cost: int = 1


def list_alternatives(optimizer: Optimizer, *, slices: bool = False) -> list[Alternative]:
    """Every alternative that has no number to be found.

    Args:
        optimizer: what was meant.
        slices: whether a gradient is `IndexedSlices`, so that rows matter.
    """
    found = [
        *_switch_options(optimizer),
        *_scale_known(optimizer),
        *_change_schedule(optimizer),
        *_change_formula(optimizer),
        *_change_decay(optimizer, slices),
        *_change_class(optimizer, slices),
    ]
    if slices:
        found += _change_rows(optimizer)
    if optimizer.inner is not None:
        found += _change_inner(optimizer, optimizer.inner, slices)
    return found


def change(optimizer: Optimizer, **arguments: Any) -> Optimizer:
    """The optimizer with other arguments."""
    return msgspec.structs.replace(optimizer, arguments={**optimizer.arguments, **arguments})


def _switch_options(optimizer: Optimizer) -> Iterator[Alternative]:
    codes = {"nesterov": "C807", "use_nesterov": "C807", "amsgrad": "C809", "centered": "C810"}
    words = {"centered": ("not centered", "centered")}
    for name, value in optimizer.whole().items():
        if name in codes:
            setting = words.get(name, ("off", "on"))[not value]
            yield Alternative(codes[name], change(optimizer, **{name: not value}), setting=setting)
        elif name == "use_ema" and value:
            yield Alternative("C819", change(optimizer, use_ema=False), setting="no average is kept")
        elif name in CLIPS and value is not None:
            off = change(optimizer, **{name: None})
            yield Alternative("C812", off, setting=f"{name} is not applied")
            others = [other for other in CLIPS if other != name and optimizer.whole()[other] is None]
            for other in others:
                setting = f"by {other}={value:g}, not by {name}"
                yield Alternative("C812", change(off, **{other: value}), setting=setting)


def _scale_known(optimizer: Optimizer) -> Iterator[Alternative]:
    """What was given, and may have been forgotten: the default in its place."""
    for name, given in optimizer.arguments.items():
        default = DEFAULTS[optimizer.name][name]
        if isinstance(given, bool) or not isinstance(given, float | int) or default is None:
            continue
        if name in FITTED_ELSEWHERE or given == default:
            continue
        yield name_argument(optimizer, name, float(default), float(given), cost=0)


def name_argument(
    optimizer: Optimizer, name: str, given: float, meant: float, *, cost: int = 1
) -> Alternative:
    """The alternative that a number is another, by the cause that is of such numbers."""
    numbers = {"given": given, "meant": meant}
    if name == "epsilon":
        code, setting = "C801", ""
    elif name == "decay" and optimizer.namespace in ("legacy", "tfa"):
        code, setting = "C805", f"`decay` is {given:.10g}, not {meant:.10g}"
    else:
        part = name in PARTS or (name == "decay" and optimizer.name == "tf1.RMSProp")
        code, setting = ("C806" if part else "C820"), name
    kind = type(DEFAULTS[optimizer.name][name])
    value = kind(given) if kind is int else given
    return Alternative(code, change(optimizer, **{name: value}), (), setting, numbers, cost)


def _change_schedule(optimizer: Optimizer) -> Iterator[Alternative]:
    schedule = optimizer.schedule
    if schedule is None:
        return
    whole = schedule.whole()
    first = float(whole["values"][0] if "values" in whole else whole["initial_learning_rate"])
    constant = msgspec.structs.replace(
        optimizer, schedule=None, arguments={**optimizer.arguments, "learning_rate": first}
    )
    yield Alternative("C805", constant, setting=f"the rate stays at {first:g}")
    for steps, said in ((1, "a step early: it counts from 1"), (-1, "a step late")):
        yield Alternative("C805", optimizer, (Form("shift", number=steps),), setting=said)
    for name, value in whole.items():
        if isinstance(value, bool):
            switched = msgspec.structs.replace(schedule, arguments={**schedule.arguments, name: not value})
            other = msgspec.structs.replace(optimizer, schedule=switched)
            yield Alternative("C805", other, setting=f"{name} is {not value}")
    dtype = "float32" if schedule.dtype == "float64" else "float64"
    other = msgspec.structs.replace(optimizer, schedule=msgspec.structs.replace(schedule, dtype=dtype))
    yield Alternative("C817", other, setting=f"the schedule is computed in {dtype}")


_EPSILONS = {
    "Adam": {
        "corrected": "it is added to sqrt(v / (1 - beta_2^t)), after the correction, as in optax and PyTorch",
        "corrected inside": "it is inside the root, of the corrected v",
        "inside": "it is inside the root, of v before the correction",
    },
    "Adamax": {"optax": "it is added within the maximum, as in optax"},
    "Adagrad": {
        "inside": "it is inside the root",
        "outside": "it is outside the root",
        "without": "there is none",
    },
    "RMSprop": {"inside": "it is inside the root", "outside": "it is outside the root"},
}
_CORRECTIONS = {
    "none": "it is not",
    "first": "that of the first alone",
    "second": "that of the second alone",
    "late": "by t + 1 in the place of t",
}


def _change_formula(optimizer: Optimizer) -> Iterator[Alternative]:
    """Epsilon and the correction elsewhere; each with numbers as TensorFlow rounds them, and as they are."""
    name = optimizer.name.partition(".")[2]
    kin = {"AdamW": "Adam", "LazyAdam": "Adam", "RMSProp": "RMSprop"}.get(name, name)
    found: list[tuple[str, str, str, int]] = []
    if kin == "RMSprop":
        starts = {"from zero": "0", "from one": "1"}
        for word, said in _EPSILONS[kin].items():
            for start, number in starts.items():
                usual = (start == "from one") == (optimizer.name == "tf1.RMSProp")
                if usual:
                    found.append(("C802", f"{word} {start}", said, 2))
                else:
                    setting = f"RMSProp with a mean square that starts at {number}, epsilon {word} the root"
                    found.append(("C814", f"{word} {start}", setting, 3))
    else:
        found += [("C802", word, said, 2) for word, said in _EPSILONS.get(kin, {}).items()]
    if kin == "Adam":
        found += [("C803", word, said, 2) for word, said in _CORRECTIONS.items()]
    if kin == "SGD" and optimizer.whole()["momentum"]:
        found.append(("C811", "without rate", "v = momentum * v + g, and then lr * v", 2))
    if kin == "Nadam":
        found.append(("C814", "optax", "optax.nadam, which has no schedule of the momentum", 2))
    for code, word, said, cost in found:
        for exact in (False, True):
            forms = (Form("formula", word), *((Form("exact"),) if exact else ()))
            yield Alternative(code, optimizer, forms, said, cost=cost + exact)
    exact = Form("exact")
    yield Alternative("C817", optimizer, (exact,), "they are not rounded to float32", cost=2)
    if optimizer.namespace == "keras":
        floatx = "float32" if optimizer.floatx == "float64" else "float64"
        other = msgspec.structs.replace(optimizer, floatx=floatx)
        yield Alternative("C817", other, setting=f"floatx is {floatx}", cost=2)


def _change_decay(optimizer: Optimizer, slices: bool) -> Iterator[Alternative]:
    whole = optimizer.whole()
    decay = whole.get("weight_decay")
    if not decay:
        return
    off = change(optimizer, weight_decay=0.0)
    scaled = optimizer.namespace == "keras" or optimizer.name in ("tfa.LAMB", "tfa.RectifiedAdam")
    yield Alternative("C808", off, setting="they do not", cost=0)
    for factor, said in ((2.0, "twice as fast"), (0.5, "half as fast")):
        yield Alternative("C808", change(optimizer, weight_decay=factor * decay), setting=said)
    for factor, said in ((1.0, "`tf.nn.l2_loss`"), (2.0, "`tf.keras.regularizers.l2`")):
        coupled = Form("coupled", number=factor * decay)
        setting = f"coupled, as by {said} in the loss: through the moments"
        yield Alternative("C808", off, (coupled,), setting)
    coupled = Form("coupled", number=decay)
    yield Alternative("C808", optimizer, (coupled,), "twice: by the optimizer and by L2 in the loss")
    how = ("not scaled by the rate", "") if scaled else ("scaled by the rate", "scaled")
    yield Alternative("C808", off, (Form("decoupled", how[1], decay),), how[0])
    if slices:
        rows = {"": "in all rows", " touched": "in the rows alone that have a gradient", " none": "in no row"}
        for word, said in rows.items():
            form = Form("decoupled", ("scaled" if scaled else "") + word, decay)
            yield Alternative("C808", off, (form,), said)


def _change_class(optimizer: Optimizer, slices: bool) -> Iterator[Alternative]:
    """The other classes: of the same optimizer with the same numbers or its own defaults, and all others."""
    if optimizer.inner is not None:
        return
    canonical = _CANONICAL.get(optimizer.name, {})
    family = next((names for names in _FAMILIES if optimizer.name in names), (optimizer.name,))
    carried = {canonical.get(name, name): value for name, value in optimizer.whole().items()}
    given = {canonical.get(name, name): value for name, value in optimizer.arguments.items()}
    seen: list[Optimizer] = [optimizer]
    for name in DEFAULTS:
        if name in ("tfa.Lookahead", optimizer.name) or (name == "legacy.Nadam" and optimizer.schedule):
            continue
        named = {other: ours for ours, other in _CANONICAL.get(name, {}).items()}
        rate = {} if optimizer.schedule else {"learning_rate": carried["learning_rate"]}
        sources = (carried, {**given, **rate}) if name in family else (rate, {})
        for number, source in enumerate(sources):
            arguments = {
                named.get(key, key): value
                for key, value in source.items()
                if named.get(key, key) in DEFAULTS[name] and not (key == "decay" and name != optimizer.name)
            }
            if optimizer.schedule is not None:
                arguments.pop("learning_rate", None)
            arguments = {
                key: value
                for key, value in arguments.items()
                if value is not None and DEFAULTS[name][key] != value
            }
            other = Optimizer(name, arguments, schedule=optimizer.schedule, floatx=optimizer.floatx)
            if other in seen:
                continue
            seen.append(other)
            code, setting = _judge_class(optimizer.name, name, other, name in family, slices)
            yield Alternative(code, other, (), setting, {}, (2 if name in family else 4) + number)
            if name == "keras.Adam" and name not in family:
                forms = (Form("formula", "corrected"), Form("exact"))
                yield Alternative("C818", other, forms, "optax.adam, or PyTorch's", cost=5 + number)


def _judge_class(meant: str, name: str, other: Optimizer, kin: bool, slices: bool) -> tuple[str, str]:
    if not kin:
        return "C818", other.describe()
    pair = {meant, name}
    if "tfa.LazyAdam" in pair and slices and pair <= {"tfa.LazyAdam", "legacy.Adam"}:
        lazy = name == "tfa.LazyAdam"
        return "C813", "their moments are left as they are" if lazy else "their moments decay, and they move"
    if pair == {"tf1.Adam", "legacy.Adam"}:
        return "C803", (
            "the powers of the betas are multiplied up in float32, as in TF1"
            if name == "tf1.Adam"
            else "the powers of the betas are not multiplied up in float32"
        )
    if "tf1.Momentum" in pair and pair & {"keras.SGD", "legacy.SGD"}:
        with_rate = name != "tf1.Momentum"
        return "C811", "v = momentum * v - lr * g" if with_rate else "v = momentum * v + g, and then lr * v"
    return "C814", other.describe()


def _change_rows(optimizer: Optimizer) -> Iterator[Alternative]:
    said = {
        "all": "as if their gradient were zero",
        "touched": "they and their moments are left as they are",
        "update": "their moments decay, but they are left as they are",
    }
    for rows, setting in said.items():
        # An optimizer of optax's own is one that sees them all.
        yield Alternative("C813", optimizer, (Form("rows", rows),), setting)
        yield Alternative("C813", optimizer, (Form("rows", rows), Form("exact")), setting, cost=3)


def _change_inner(optimizer: Optimizer, inner: Optimizer, slices: bool) -> Iterator[Alternative]:
    yield Alternative("C819", inner, (), "Lookahead does not synchronise", cost=0)
    for one in list_alternatives(inner, slices=slices):
        if not one.forms and one.optimizer.namespace in ("legacy", "tfa"):
            yield wrap_inner(optimizer, one)


def wrap_inner(optimizer: Optimizer, within: Alternative) -> Alternative:
    """An alternative of what Lookahead wraps, wrapped."""
    return replace(within, optimizer=msgspec.structs.replace(optimizer, inner=within.optimizer))
