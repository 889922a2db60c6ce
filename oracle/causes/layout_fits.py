"""C63: gradients that are lost, or are those of another weight."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from oracle.causes.cause import Setting, Situation, Tensors, cause
from oracle.causes.scale_fits import change_tensors, name_weights, shared_gradients
from oracle.causes.turning import is_translator
from oracle.knobs import Knobs
from oracle.tolerance import largest


@cause(
    "C631",
    title="weights without a gradient, all else right",
    sentence="the gradient of {weights} is {lost}, and all else is right",
    remedy="Give the variables to `tape.gradient`, make them `trainable=True` and watched, and use them "
    "inside the tape as variables, not as values that were read from them before.",
    kind="fits",
)
def lose_gradients(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """Zeros or None for some weights, adjoints of inputs or of states."""
    port = situation.port
    lost = [
        name
        for name, tensor in oracle.items()
        if name.startswith("gradient/") and name in port and not port[name].any() and tensor.any()
    ]
    if lost:
        weights = [name for name in shared_gradients(situation, oracle) if name in lost]
        others = [name.removeprefix("gradient/") for name in lost if name not in weights]
        every = [name.removeprefix("gradient/") for name in shared_gradients(situation, oracle)]
        parts = [name_weights([name.removeprefix("gradient/") for name in weights], every)] if weights else []
        shown = ", ".join([*parts, *others])
        nones = [name in situation.nones for name in lost]
        said = "None" if all(nones) else "zero" if not any(nones) else "None or zero"
        after = change_tensors(lost, lambda name, array: np.zeros_like(array))
        yield Setting(shown, after=after, numbers={"weights": shown, "lost": said})


@cause(
    "C632",
    title="gradients are exchanged between weights",
    sentence="gradients are exchanged: {pairs}",
    remedy="Take the gradients by `tape.gradient(loss, variables)` and zip them with that very list; "
    "`variables` of a model may come in another order than a list of one's own.",
    kind="fits",
)
def exchange_gradients(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """A weight has the gradient of another one of its shape."""
    sources: dict[str, str] = {}
    names = shared_gradients(situation, oracle)
    for name in names:
        if _agree(situation.port[name], oracle[name], situation):
            continue
        for other in names:
            is_other = other != name and oracle[other].shape == oracle[name].shape
            if is_other and _agree(situation.port[name], oracle[other], situation):
                sources[name] = other
                break
    if not sources:
        return

    def after(tensors: Tensors) -> dict[str, np.ndarray]:
        return {name: tensors[sources.get(name, name)] for name in tensors}

    shown = ", ".join(
        f"{name.removeprefix('gradient/')} has that of {other.removeprefix('gradient/')}"
        for name, other in sources.items()
    )
    yield Setting(shown, after=after, numbers={"pairs": shown})


@cause(
    "C633",
    title="a gradient is laid out in another order",
    sentence="a gradient is laid out in another order: {orders}",
    remedy="Carry gradients over as the weights are: the same transposition and the same order of gates.",
    kind="fits",
)
def reorder_gradients(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """Transposed, or its gates' blocks in another order."""
    found: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {}
    for name in shared_gradients(situation, oracle):
        port, truth = situation.port[name], oracle[name]
        if _agree(port, truth, situation):
            continue
        for said, order in _orders(name, truth.shape):
            if _agree(port, order(truth), situation):
                found[name] = (said, order)
                break
    if found:
        shown = ", ".join(f"{name.removeprefix('gradient/')} {said}" for name, (said, _) in found.items())
        after = change_tensors(list(found), lambda name, array: found[name][1](array))
        yield Setting(shown, after=after, numbers={"orders": shown})


@cause(
    "C634",
    title="repeated rows of an embedding's gradient are not summed",
    sentence="of a token that occurs several times {which} counts in the gradient of {table}",
    remedy="Sum the values of equal indices in `tf.IndexedSlices`: `tf.math.unsorted_segment_sum(g.values, "
    "g.indices, rows)` or `tf.convert_to_tensor(g)`; assigning them by index keeps the last one.",
    kind="fits",
    applies=is_translator,
)
def keep_last_row(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """The last occurrence, the first, or their mean, in place of the sum."""
    tables = {
        "source": "gradient/encoder/embedding/embedding",
        "target": "gradient/decoder/embedding/embedding",
    }
    given = {side: name for side, name in tables.items() if name in oracle and name in situation.port}
    wrong = [s for s, name in given.items() if not _agree(situation.port[name], oracle[name], situation)]
    for which in ("only the last one", "only the first one", "the mean"):
        if not wrong:
            return

        def after(tensors: Tensors, which: str = which) -> dict[str, np.ndarray]:
            changed = dict(tensors)
            for side in wrong:
                ids = situation.batch[side] if side == "source" else situation.batch[side][:, :-1]
                adjoint = tensors[f"gradient/embedded/{side}"]
                changed[given[side]] = _gather(ids, adjoint, tensors[given[side]].shape, which)
            return changed

        shown = " and ".join(given[side].removeprefix("gradient/") for side in wrong)
        yield Setting(which, after=after, numbers={"which": which, "table": shown})


def _gather(ids: np.ndarray, adjoint: np.ndarray, shape: tuple[int, ...], which: str) -> np.ndarray:
    flat, values = ids.ravel(), adjoint.reshape(ids.size, -1)
    table = np.zeros(shape)
    if which == "the mean":
        np.add.at(table, flat, values)
        return table / np.maximum(np.bincount(flat, minlength=shape[0]), 1)[:, None]
    if which == "only the first one":
        flat, values = flat[::-1], values[::-1]
    # Of repeated indices NumPy keeps the last.
    table[flat] = values
    return table


def _orders(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Other layouts of a gradient of one shape."""
    if len(shape) == 2:
        if shape[0] == shape[1]:
            yield "is transposed", lambda array: array.T
        yield "is transposed and reshaped", lambda array: array.T.reshape(array.shape)
    columns = shape[-1] if shape else 0
    if name.endswith("recurrent_kernel") and columns % shape[0] == 0 and columns > shape[0]:
        count = columns // shape[0]

        def transpose_blocks(array: np.ndarray) -> np.ndarray:
            return np.concatenate([block.T for block in np.split(array, count, axis=1)], axis=1)

        yield "has each gate's block transposed", transpose_blocks
    if "/cell" not in name:
        return
    for count, gates in ((4, "ifgo"), (3, "zrh")):
        if columns % count == 0:
            for order in itertools.permutations(range(count)):
                if order != tuple(range(count)):
                    said = "has its gates as " + ", ".join(gates[gate] for gate in order)
                    yield said, lambda array, o=order, n=count: _permute(array, o, n)


def _permute(array: np.ndarray, order: tuple[int, ...], count: int) -> np.ndarray:
    blocks = np.split(array, count, axis=-1)
    return np.concatenate([blocks[gate] for gate in order], axis=-1)


def _agree(port: np.ndarray, truth: np.ndarray, situation: Situation) -> bool:
    return port.shape == truth.shape and largest(port - truth) <= 10 * situation.bound * largest(truth)
