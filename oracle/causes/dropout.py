"""C70: dropout that is left on. Its mask is read off the port's outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.causes.cause import Setting, Situation, Tensors, cause
from oracle.knobs import Knobs
from oracle.spec import EncoderDecoder


@cause(
    "C701",
    title="dropout is left on",
    sentence="dropout is left on: {share:.3g} of the outputs of {places} are zero, the others divided by "
    "{kept:.4g}",
    remedy="Call the model with `training=False`, or give both sides the same mask; gradients can be "
    "compared only for one mask.",
    kind="infers",
    wrong="outputs, *state = encoder(inputs, training=True)",
    right="outputs, *state = encoder(inputs, training=False)",
)
def drop_outputs(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """A mask of its own at each step."""
    yield from _infer(knobs, oracle, situation, shared=False)


@cause(
    "C702",
    title="dropout is left on, its mask shared by all steps",
    sentence="dropout is left on with one mask for all steps: {share:.3g} of the outputs of {places} are "
    "zero, the others divided by {kept:.4g}",
    remedy="Call the model with `training=False`. A mask that all steps share is that of a layer's own "
    "`dropout`, of `noise_shape`, or of a `DropoutWrapper` with `variational_recurrent=True`.",
    kind="infers",
)
def drop_units(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """One mask for all steps of a row."""
    yield from _infer(knobs, oracle, situation, shared=True)


def _infer(knobs: Knobs, oracle: Tensors, situation: Situation, *, shared: bool) -> Iterator[Setting]:
    """The masks of all outputs at which the port's are the oracle's, some zero and the others scaled."""
    cells, places, zeros, total, scale = dict(knobs.cells), [], 0, 0, 0.0
    for name, paths in _places(situation).items():
        if name not in situation.port or situation.port[name].shape != oracle[name].shape:
            continue
        mask = _read_mask(situation.port[name], oracle[name], situation.bound)
        if mask is None or _is_shared(mask, oracle[name]) != shared:
            continue
        valid = oracle[name] != 0
        places.append(name)
        zeros, total, scale = zeros + int((mask[valid] == 0).sum()), total + int(valid.sum()), mask.max()
        for path, part in zip(paths, np.split(mask, len(paths), axis=-1), strict=True):
            cells[path] = cells[path]._replace(keep=part * np.asarray(cells[path].keep))
    if places:
        shown = " and ".join(places)
        numbers = {"share": zeros / total, "kept": 1 / scale, "places": shown}
        yield Setting(shown, knobs._replace(cells=cells), numbers=numbers)


def _places(situation: Situation) -> dict[str, tuple[str, ...]]:
    """The outputs that a record holds, and the cells whose outputs, side by side, they are."""
    if isinstance(situation.spec, EncoderDecoder):
        return {"output/encoder": ("encoder/cell",), "output/decoder": ("decoder/cell",)}
    top = f"encoder/layers_{situation.spec.layers - 1}"
    return {"output/encoder": (f"{top}/forward/cell", f"{top}/backward/cell")}


def _read_mask(port: np.ndarray, truth: np.ndarray, bound: float) -> np.ndarray | None:
    """The mask by which the oracle's output is the port's: 0 or one scale above 1; None if there is none."""
    valid = truth != 0
    if not valid.any() or not (port[valid] == 0).any() or not port.any():
        return None
    kept = valid & (port != 0)
    ratios = port[kept] / truth[kept]
    scale = float(np.median(ratios))
    # The smallest elements have the largest relative roundings.
    wrong = np.abs(port - np.where(port == 0, 0.0, scale * truth))
    if scale < 1 + bound or wrong.max() > 10 * bound * np.abs(truth).max():
        return None
    return np.where(valid & (port == 0), 0.0, np.where(valid, scale, 1.0))


def _is_shared(mask: np.ndarray, truth: np.ndarray) -> bool:
    """Whether every step that counts drops the same units."""
    valid = (truth != 0).any(axis=-1, keepdims=True)
    if valid.sum(axis=1).max() < 2:
        return False
    first = np.where(valid, mask, -np.inf).max(axis=1, keepdims=True)
    return bool(np.where(valid, mask == first, True).all())
