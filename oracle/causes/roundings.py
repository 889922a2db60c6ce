"""C715: one tensor, or the weights of a layer, cast to a coarser dtype and back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.case import weight_shapes
from oracle.causes.cause import Setting, Situation, Tensors, cause
from oracle.causes.precision import MANTISSAS
from oracle.knobs import ROUNDINGS, Knobs
from oracle.tolerance import largest

_LEAST, _MOST = 1e-2, 1e2
"""How many times a dtype's rounding the largest error of a port is, where one tensor is cast to it."""

_SAID = {
    "source": "what the encoder reads is",
    "target": "what the decoder reads of the target is",
    "layers": "what an encoder layer reads of the one below is",
    "memory": "the encoder's outputs that are attended to are",
    "handoff": "the encoder's final state is",
    "decoded": "what the last layer reads of the decoder is",
    "prediction": "the prediction is",
}

_MULTIPLIED = ("source", "target", "layers", "memory", "decoded")


@cause(
    "C715",
    title="a tensor is cast to a coarser dtype and back",
    sentence="a tensor is rounded: {setting}",
    remedy="Look for a `tf.cast`, a layer or an array of that dtype where this tensor passes: a Keras layer "
    "casts its inputs to its own dtype, `floatx` is float32 by default, and a NumPy array that was saved in "
    "half precision stays rounded.",
    kind="rounds",
    wrong="decoder = tf.keras.layers.LSTM(units)  # float32, in a model of float64",
    right='decoder = tf.keras.layers.LSTM(units, dtype="float64")',
)
def cast_tensor(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """Each tensor and leaf, and the leaves of each layer and of all, to each dtype of fitting roundings."""
    leaves = list(weight_shapes(situation.spec))
    groups = {(leaf,): f"{leaf} is" for leaf in leaves}
    for site in dict.fromkeys(leaf.rpartition("/")[0] for leaf in leaves):
        own = tuple(leaf for leaf in leaves if leaf.rpartition("/")[0] == site)
        groups.setdefault(own, f"the weights of {site} are")
    groups[tuple(leaves)] = "all weights are"
    for number, dtype in enumerate(ROUNDINGS):
        if not number or not _is_of_size(dtype, oracle, situation):
            continue
        for name in knobs.rounded:
            if name in _SAID:
                yield Setting(f"{_SAID[name]} cast to {dtype} and back", _turn(knobs, (name,), number))
        for path, cell in knobs.cells.items():
            turned = {**knobs.cells, path: cell._replace(rounded=np.int32(number))}
            said = f"at each step, the state that {path} multiplies is cast to {dtype} and back"
            yield Setting(said, knobs._replace(cells=turned))
        for group, said in groups.items():
            yield Setting(f"{said} cast to {dtype} and back", _turn(knobs, group, number))
            yield Setting(f"{said} rounded to {dtype} beforehand", _turn(knobs, group, -number))


def round_products(knobs: Knobs, dtype: str) -> Knobs:
    """What is multiplied by a kernel is rounded, and so is the kernel, and their adjoints; sums are not."""
    number = np.int32(ROUNDINGS.index(dtype))
    cells = {path: cell._replace(rounded=number) for path, cell in knobs.cells.items()}
    names = [name for name in knobs.rounded if name in _MULTIPLIED or name.endswith("kernel")]
    return _turn(knobs._replace(cells=cells), tuple(names), int(number))


def _is_of_size(dtype: str, oracle: Tensors, situation: Situation) -> bool:
    """Whether the port's largest error is of the size of a dtype's roundings; other dtypes are not tried."""
    apart = [
        largest(port - oracle[name]) / largest(oracle[name])
        for name, port in situation.port.items()
        if port.shape == oracle[name].shape and np.any(oracle[name])
    ]
    unit = 2.0 ** -(MANTISSAS[dtype] + 1)
    return _LEAST * unit <= max(apart, default=0.0) <= _MOST * unit


def _turn(knobs: Knobs, names: tuple[str, ...], code: int) -> Knobs:
    return knobs._replace(rounded={**knobs.rounded, **dict.fromkeys(names, np.int32(code))})
