"""C61: factors on gradients, and clipping. The numbers are found from the port's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from oracle.case import weight_shapes
from oracle.causes.cause import Setting, Situation, Tensors, cause
from oracle.knobs import Knobs
from oracle.tolerance import largest

Change = Callable[[str, np.ndarray], np.ndarray]

_ROUND_NORMS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 10.0, 15.0, 20.0, 40.0, 50.0, 100.0)
"""Norms that people clip to. They tell a norm from an average where a factor could be either."""


@cause(
    "C611",
    title="gradients are summed over several passes",
    sentence="every weight's gradient is {times:g} times what it should be{rest}: it is accumulated "
    "{times:g} times, or summed over {times:g} replicas that see the same batch",
    remedy="Average over the passes: divide by their number, or scale each loss by 1/n; zero the "
    "accumulators between steps.",
    kind="fits",
)
def accumulate(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """A whole number of times."""
    for scale, rest, after in _scales(oracle, situation):
        if scale > 1.5 and _is_whole(scale, situation):
            yield Setting(rest, after=after, numbers={"times": float(round(scale)), "rest": rest})


@cause(
    "C612",
    title="gradients are averaged over replicas or passes",
    sentence="every weight's gradient is 1/{parts:g} of what it should be{rest}: it is averaged over "
    "{parts:g} replicas or micro-batches of which one has it, or averaged twice",
    remedy="Under `tf.distribute` scale the loss by the global batch size once "
    "(`tf.nn.compute_average_loss`), and sum gradients over the replicas.",
    kind="fits",
)
def average(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """One part of a whole number."""
    for scale, rest, after in _scales(oracle, situation):
        if 0 < scale < 0.75 and _is_whole(1 / scale, situation):
            yield Setting(rest, after=after, numbers={"parts": float(round(1 / scale)), "rest": rest})


@cause(
    "C613",
    title="gradients are clipped by their global norm",
    sentence="the weights' gradients are clipped to a global norm of {norm:.6g} (it is {whole:.6g} "
    "unclipped)",
    remedy="Take the gradients before `tf.clip_by_global_norm`, or leave it out; the adjoints of inputs and "
    "states are not clipped, so only the optimizer's input differs.",
    kind="fits",
)
def clip_global_norm(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """One factor below 1 for all weights, the adjoints untouched."""
    names = shared_gradients(situation, oracle)
    whole = float(np.sqrt(sum(np.sum(np.square(oracle[name])) for name in names)))
    scale = fit_scale(oracle, situation.port, names)
    if scale is None or not 0 < scale < 1 - situation.bound:
        return
    norm = scale * whole
    is_average = _is_whole(1 / scale, situation) and not _is_round(norm, situation)
    if not is_average:
        after = change_tensors(names, lambda name, array: array * scale)
        yield Setting("", after=after, numbers={"norm": _round(norm, situation), "whole": whole})


@cause(
    "C614",
    title="gradients are clipped by value",
    sentence="every element of the weights' gradients is clipped to [-{clip:.6g}, {clip:.6g}]",
    remedy="Take the gradients before `tf.clip_by_value`, or leave it out.",
    kind="fits",
)
def clip_value(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """The largest element of the port's is the bound."""
    names = shared_gradients(situation, oracle)
    bound = max((largest(situation.port[name]) for name in names), default=0.0)
    clipped = sum(int(np.sum(np.abs(oracle[name]) > bound * (1 + situation.bound))) for name in names)
    # One element that is too small would always be clipped to what it is.
    if bound > 0 and (clipped > 1 or (clipped == 1 and _is_short(bound, situation))):
        after = change_tensors(names, lambda name, array: np.clip(array, -bound, bound))
        yield Setting("", after=after, numbers={"clip": bound})


@cause(
    "C615",
    title="each gradient is clipped by its own norm",
    sentence="each weight's gradient is clipped to a norm of {norm:.6g} of its own",
    remedy="Use `tf.clip_by_global_norm`, which keeps the direction, in place of `tf.clip_by_norm`; Keras' "
    "`clipnorm` is by variable, `global_clipnorm` is not.",
    kind="fits",
)
def clip_own_norm(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """The largest norm of the port's gradients is the bound."""
    names = shared_gradients(situation, oracle)
    norm = max((float(np.linalg.norm(situation.port[name])) for name in names), default=0.0)
    clipped = sum(float(np.linalg.norm(oracle[name])) > norm * (1 + situation.bound) for name in names)
    # One gradient that is scaled down would always be clipped to the norm that it has.
    if not norm > 0 or clipped == 0 or (clipped == 1 and not _is_short(norm, situation)):
        return
    after = change_tensors(
        names, lambda name, array: array * min(1.0, norm / max(np.linalg.norm(array), 1e-300))
    )
    yield Setting("", after=after, numbers={"norm": _round(norm, situation)})


@cause(
    "C616",
    title="gradients are scaled",
    sentence="every weight's gradient is {scale:.9g} times what it should be{rest}",
    remedy="Look for a factor on the loss or on the gradients: a loss scale that is not taken back "
    "(`LossScaleOptimizer.get_unscaled_gradients`), a weight of the loss, a division by a size.",
    kind="fits",
)
def scale(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """Any factor that is no whole number, nor one part of it."""
    names = shared_gradients(situation, oracle)
    norm = float(np.sqrt(sum(np.sum(np.square(oracle[name])) for name in names)))
    for factor, rest, after in _scales(oracle, situation):
        whole = factor > 0 and (_is_whole(factor, situation) or _is_whole(1 / factor, situation))
        is_clipped = not rest and factor < 1 and _is_round(factor * norm, situation)
        if factor > 0 and not whole and not is_clipped:
            yield Setting(rest, after=after, numbers={"scale": factor, "rest": rest})


@cause(
    "C617",
    title="gradients have the wrong sign",
    sentence="every weight's gradient is {scale:.6g} times what it should be{rest}: its sign is wrong",
    remedy="Minimise the loss: leave out the minus before it, or before the gradients.",
    kind="fits",
)
def negate(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """A factor below 0."""
    for factor, rest, after in _scales(oracle, situation):
        if factor < 0:
            yield Setting(rest, after=after, numbers={"scale": factor, "rest": rest})


def _scales(
    oracle: Tensors, situation: Situation
) -> Iterator[tuple[float, str, Callable[[Tensors], dict[str, np.ndarray]]]]:
    """A factor on the weights' gradients alone; on the adjoints too; on the loss too."""
    weights = shared_gradients(situation, oracle)
    given = [name for name in oracle if _is_shared(name, situation, oracle)]
    adjoints = [name for name in given if name.startswith("gradient/") and name not in weights]
    groups = {tuple(weights): ""}
    if adjoints:
        groups[*weights, *adjoints] = ", and so are the adjoints of inputs and states"
    if "loss" in given:
        rest = groups[*weights, *adjoints]
        groups[*weights, *adjoints, "loss"] = f"{rest}, and the loss" if rest else ", and so is the loss"
    for names, rest in groups.items():
        factor = fit_scale(oracle, situation.port, [name for name in names if name != "loss"])
        if factor is None or abs(factor - 1) <= situation.bound or factor == 0:
            continue
        yield factor, rest, change_tensors(list(names), lambda name, array, by=factor: array * by)


def fit_scale(oracle: Tensors, port: Tensors, names: list[str]) -> float | None:
    """The factor that fits best; None if there is none, or one number alone, which any factor would fit."""
    total, square = 0.0, 0.0
    peak = max((largest(oracle[name]) for name in names), default=0.0)
    if peak == 0.0 or sum(int(np.count_nonzero(oracle[name])) for name in names) < 2:
        return None
    if not all(np.isfinite(port[name]).all() for name in names):
        return None
    for name in names:
        total += float(np.sum((oracle[name] / peak) * (port[name] / peak)))
        square += float(np.sum(np.square(oracle[name] / peak)))
    factor = total / square
    return factor if np.isfinite(factor) else None


def name_weights(paths: list[str], every: list[str]) -> str:
    """What a group of weights is called: all, the kernels, or one by one."""
    kernels = [path for path in every if path.rpartition("/")[2].endswith(("kernel", "embedding"))]
    biases = [path for path in every if path not in kernels]
    for name, group in (("all weights", every), ("all kernels", kernels), ("all biases", biases)):
        if group and set(paths) == set(group):
            return name
    for scope in ("encoder", "decoder", "projection"):
        if set(paths) == {path for path in every if path.startswith(f"{scope}/")}:
            return f"the {scope}'s weights"
    return ", ".join(paths)


def change_tensors(names: list[str], change: Change) -> Callable[[Tensors], dict[str, np.ndarray]]:
    """What changes the tensors of some names, given each name and tensor."""
    wanted = frozenset(names)

    def after(tensors: Tensors) -> dict[str, np.ndarray]:
        return {name: change(name, array) if name in wanted else array for name, array in tensors.items()}

    return after


def shared_gradients(situation: Situation, oracle: Tensors) -> list[str]:
    """The weights' gradients that both sides have, in one shape."""
    names = [f"gradient/{path}" for path in weight_shapes(situation.spec)]
    return [name for name in names if _is_shared(name, situation, oracle)]


def _is_shared(name: str, situation: Situation, oracle: Tensors) -> bool:
    return name in situation.port and situation.port[name].shape == oracle[name].shape


def _is_whole(number: float, situation: Situation) -> bool:
    return abs(number - round(number)) <= 10 * situation.bound * abs(number) and round(number) > 1


def _is_short(number: float, situation: Situation) -> bool:
    """Whether a number has two digits at most, as those have that people write."""
    return abs(number - float(f"{number:.1e}")) <= 10 * situation.bound * number


def _is_round(norm: float, situation: Situation) -> bool:
    return any(abs(norm - known) <= 100 * situation.bound * known for known in _ROUND_NORMS)


def _round(norm: float, situation: Situation) -> float:
    """The round norm that it is, if it is one but for roundings."""
    near = [known for known in _ROUND_NORMS if abs(norm - known) <= 100 * situation.bound * known]
    return near[0] if near else norm
