"""Texts padded to few lengths, so that batches of many lengths share a program. Pure NumPy.

JAX compiles a program for every shape that it meets, which takes seconds; a longer loop takes milliseconds.
What is padded computes nothing that counts: the source's mask, the end of the decoder's loop and the loss'
weights are made of the lengths, which stay. Batches of an `EncoderDecoder` stay as they are: its series have
one length, and without lengths no step is padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oracle.spec import AttentionNMT, Spec
from oracle.text import PAD

Arrays = Mapping[str, np.ndarray]

_SHORTEST = 8

_SOURCE_AXES = {"output/encoder": 1, "output/alignments": 2, "gradient/embedded/source": 1}
_TARGET_AXES = {"output/logits": 1, "output/alignments": 1, "gradient/embedded/target": 1}
"""The axis along which a record's tensor has the source's or the target's length."""


def round_up(length: int) -> int:
    """The length that texts of `length` tokens are padded to: 8, 10, 12, 14, 16, 20, 24, 28, 32 and so on.

    Beyond 8 it is at most a quarter more: four lengths for each doubling.
    """
    if length <= _SHORTEST:
        return _SHORTEST
    step = 2 ** ((length - 1).bit_length() - 3)
    return -(-length // step) * step


def pad_batch(spec: Spec, batch: Arrays) -> dict[str, np.ndarray]:
    """The batch with its texts padded as `round_up` says; what is no text stays as it is."""
    padded = dict(batch)
    if isinstance(spec, AttentionNMT):
        # The target begins with a token that is fed and never predicted.
        for name, first in (("source", 0), ("target", 1)):
            missing = first + round_up(batch[name].shape[1] - first) - batch[name].shape[1]
            padded[name] = np.pad(batch[name], [(0, 0), (0, missing)], constant_values=PAD)
    return padded


def crop_tensors(
    spec: Spec, tensors: Mapping[str, np.ndarray | None], batch: Arrays
) -> dict[str, np.ndarray | None]:
    """What a record holds of a batch, from what was computed of the padded one.

    Args:
        spec: the model.
        tensors: by the names of a record.
        batch: as it was before `pad_batch`.
    """
    cropped = dict(tensors)
    if isinstance(spec, AttentionNMT):
        lengths = (_SOURCE_AXES, batch["source"].shape[1]), (_TARGET_AXES, batch["target"].shape[1] - 1)
        for axes, length in lengths:
            for name, axis in axes.items():
                if (tensor := cropped.get(name)) is not None:
                    cropped[name] = tensor[(*[slice(None)] * axis, slice(length))]
    return cropped
