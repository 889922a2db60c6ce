"""C62: terms of the weights in the loss and in their gradients. The rates are found from the port's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from oracle.causes.cause import Setting, Situation, Tensors, cause
from oracle.causes.scale_fits import name_weights, shared_gradients
from oracle.knobs import Knobs
from oracle.spec import EncoderDecoder
from oracle.tolerance import largest


@cause(
    "C621",
    title="an L2 term is in the gradient",
    sentence="the gradients of {weights} have an L2 term in them, {rate:.6g} * w{held}",
    remedy="Compute the loss without `kernel_regularizer` and `sum(model.losses)`, or add the same term to "
    "the reference. `tf.nn.l2_loss` gives rate * w, `tf.keras.regularizers.l2` 2 * rate * w.",
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
        rates, count = {}, 0
        for name in names:
            difference = situation.port[name] - oracle[name]
            bound = 1e3 * situation.bound * max(largest(oracle[name]), 1e-300)
            term = slope(terms[name])
            if largest(difference) > bound and term.any():
                rates[name] = float(np.sum(difference * term) / np.sum(np.square(term)))
                count += int(np.count_nonzero(term))
        # To one number any rate would fit.
        if count < 2:
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
