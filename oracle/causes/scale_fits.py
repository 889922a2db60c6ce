"""C61 to C63: what is done to gradients once they are computed. The numbers are found from the port's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from oracle.case import weight_shapes
from oracle.causes.cause import Setting, Situation, Tensors, cause
from oracle.knobs import Knobs
from oracle.spec import EncoderDecoder
from oracle.tolerance import largest

Change = Callable[[str, np.ndarray], np.ndarray]

_ROUND_NORMS = (0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 8.0, 10.0, 15.0, 20.0, 40.0, 50.0, 100.0)
"""Norms that people clip to. They tell a norm from an average where a factor could be either."""


@cause(
    "C611",
    title="gradients are summed over several passes",
    sentence="every weight's gradient is {times:g} times what it should be{rest}: it is accumulated "
    "{times:g} "
    "times, or summed over {times:g} replicas that see the same batch",
    remedy="Average over the passes: divide by their number, or scale each loss by 1/n; zero the "
    "accumulators "
    "between steps.",
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
    "{parts:g} "
    "replicas or micro-batches of which one has it, or averaged twice",
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
    if 0 < bound < max(largest(oracle[name]) for name in names) * (1 - situation.bound):
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
    if not 0 < norm < max(float(np.linalg.norm(oracle[name])) for name in names) * (1 - situation.bound):
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


@cause(
    "C621",
    title="an L2 term is in the gradient",
    sentence="the gradients of {weights} have an L2 term in them, {rate:.6g} * w{held}",
    remedy="Compute the loss without `kernel_regularizer` and `sum(model.losses)`, or add the same term "
    "to the "
    "reference. `tf.nn.l2_loss` gives rate * w, `tf.keras.regularizers.l2` 2 * rate * w.",
    kind="fits",
)
def regularise(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """The difference is one rate times each weight, of some or all weights."""
    yield from _fit_penalty(oracle, situation, lambda w: w, lambda w: float(np.sum(np.square(w))) / 2)


@cause(
    "C622",
    title="an L1 term is in the gradient",
    sentence="the gradients of {weights} have an L1 term in them, {rate:.6g} * sign(w){held}",
    remedy="Compute the loss without `tf.keras.regularizers.l1`, or add the same term to the reference.",
    kind="fits",
)
def regularise_l1(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """The difference is one rate times each weight's sign."""
    yield from _fit_penalty(oracle, situation, np.sign, lambda w: float(np.sum(np.abs(w))))


def _scales(
    oracle: Tensors, situation: Situation
) -> Iterator[tuple[float, str, Callable[[Tensors], dict[str, np.ndarray]]]]:
    """A factor on the weights' gradients alone; on the adjoints too; on the loss too."""
    weights = shared_gradients(situation, oracle)
    adjoints = [name for name in oracle if name.startswith("gradient/") and name in situation.port]
    for names, rest in (
        (weights, ""),
        (adjoints, ", and so are the adjoints of inputs and states"),
        ([*adjoints, "loss"], ", and so are the adjoints of inputs and states, and the loss"),
    ):
        factor = fit_scale(oracle, situation.port, [name for name in names if name != "loss"])
        if factor is None or abs(factor - 1) <= situation.bound or factor == 0:
            continue
        yield factor, rest, change_tensors(names, lambda name, array, by=factor: array * by)


def fit_scale(oracle: Tensors, port: Tensors, names: list[str]) -> float | None:
    """The factor between the largest elements; None if there are none."""
    total, square = 0.0, 0.0
    peak = max((largest(oracle[name]) for name in names), default=0.0)
    if peak == 0.0:
        return None
    for name in names:
        total += float(np.sum((oracle[name] / peak) * (port[name] / peak)))
        square += float(np.sum(np.square(oracle[name] / peak)))
    factor = total / square
    return factor if np.isfinite(factor) else None


def _fit_penalty(
    oracle: Tensors,
    situation: Situation,
    slope: Callable[[np.ndarray], np.ndarray],
    value: Callable[[np.ndarray], float],
) -> Iterator[Setting]:
    """A term of some weights in their gradients, and maybe in the loss."""
    names = shared_gradients(situation, oracle)
    shifts = [False, True] if isinstance(situation.spec, EncoderDecoder) else [False]
    for shifted in shifts:
        terms = {name: _variable(situation, name, shifted=shifted) for name in names}
        rates = {}
        for name in names:
            difference = situation.port[name] - oracle[name]
            bound = 1e3 * situation.bound * max(largest(oracle[name]), 1e-300)
            term = slope(terms[name])
            if largest(difference) > bound and term.any():
                rates[name] = float(np.sum(difference * term) / np.sum(np.square(term)))
        if not rates:
            return
        rate = float(np.median(list(rates.values())))
        chosen = [name for name in rates if abs(rates[name] - rate) <= 1e-3 * abs(rate)]
        if not rate or len(chosen) < len(rates):
            continue
        paths = [name.removeprefix("gradient/") for name in chosen]
        shown = name_weights(paths, [name.removeprefix("gradient/") for name in names])
        total = rate * sum(value(terms[name]) for name in chosen)
        for in_loss, held in ((True, ", and the loss holds it"), (False, ", and the loss does not hold it")):

            def after(
                tensors: Tensors, chosen=tuple(chosen), terms=terms, rate=rate, in_loss=in_loss, total=total
            ) -> dict[str, np.ndarray]:
                changed = dict(tensors)
                for name in chosen:
                    changed[name] = tensors[name] + rate * slope(terms[name])
                if in_loss and "loss" in tensors:
                    changed["loss"] = tensors["loss"] + total
                return changed

            yield Setting(shown, after=after, numbers={"rate": rate, "held": held, "weights": shown})
        return


def _variable(situation: Situation, name: str, *, shifted: bool) -> np.ndarray:
    """What the port's variable holds: of a Keras LSTM's bias the forget bias too."""
    path = name.removeprefix("gradient/")
    array = np.asarray(situation.weights[path], np.float64)
    spec = situation.spec
    if shifted and isinstance(spec, EncoderDecoder) and path.endswith("/cell/bias"):
        units = len(array) // 4
        cell = spec.encoder if path.startswith("encoder/") else spec.decoder
        array = array.copy()
        array[units : 2 * units] += cell.forget_bias
    return array


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
    port = situation.port
    return [name for name in names if name in port and port[name].shape == oracle[name].shape]


def _is_whole(number: float, situation: Situation) -> bool:
    return abs(number - round(number)) <= 10 * situation.bound * abs(number) and round(number) > 1


def _is_round(norm: float, situation: Situation) -> bool:
    return any(abs(norm - known) <= 100 * situation.bound * known for known in _ROUND_NORMS)


def _round(norm: float, situation: Situation) -> float:
    """The round norm that it is, if it is one but for roundings."""
    near = [known for known in _ROUND_NORMS if abs(norm - known) <= 100 * situation.bound * known]
    return near[0] if near else norm
