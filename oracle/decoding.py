"""Decoding: what one side translates without a target, greedily and by beam search."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from oracle.errors import RecordError, UsageError
from oracle.storage import read_arrays, write_arrays
from oracle.text import EOS, PAD

FORMAT = 1


BEAMS = 1000
"""The most beams that are searched: TensorFlow holds a state for each of them."""


class DecodeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to decode.

    Args:
        maximum_iterations: how many tokens at most, the end among them.
        beam_width: how many beams the search keeps.
        length_penalty_weight: the exponent of Wu et al.'s length penalty; 0 for none.

    Raises:
        UsageError: if there is nothing to decode with.
    """

    maximum_iterations: int
    beam_width: int = 4
    length_penalty_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.maximum_iterations < 1:
            raise UsageError(f"the maximum length is {self.maximum_iterations}; give at least 1")
        if not 1 <= self.beam_width <= BEAMS:
            raise UsageError(f"beam_width is {self.beam_width}; give a number from 1 to {BEAMS}")
        if not 0 <= self.length_penalty_weight < np.inf:
            raise UsageError(
                f"length_penalty_weight is {self.length_penalty_weight}; give a finite number from 0 on"
            )


@dataclass(frozen=True)
class Decoding:
    """Tokens up to and with the end of each sequence, then padding.

    Args:
        greedy: the most probable token at each step, int32 [batch, time].
        beams: the beams, the best first, int32 [batch, time, beam].
    """

    greedy: np.ndarray
    beams: np.ndarray


def make_decoding(greedy: Any, beams: Any, options: DecodeOptions) -> Decoding:
    """Bring what a framework gives to one form: TensorFlow's time ends with the longest row, ours does not.

    Args:
        greedy: tokens [batch, time]; what follows the end in a row means nothing.
        beams: tokens [batch, time, beam].
        options: how they were decoded.
    """
    return Decoding(
        _cut(np.asarray(greedy), options.maximum_iterations),
        _cut(np.asarray(beams), options.maximum_iterations),
    )


def write_decoding(decoding: Decoding, path: str | os.PathLike[str]) -> None:
    """Write a decoding to a safetensors file.

    Raises:
        RecordError: if the place cannot be written.
    """
    arrays = {"greedy": decoding.greedy, "beams": decoding.beams}
    write_arrays(path, arrays, kind="decoding", format=FORMAT, header={})


def read_decoding(path: str | os.PathLike[str]) -> Decoding:
    """Read what `write_decoding` wrote.

    Raises:
        RecordError: if the file is absent or damaged.
    """
    _, arrays = read_arrays(path, kind="decoding", format=FORMAT)
    _check_names(arrays, path)
    return Decoding(arrays["greedy"], arrays["beams"])


def _check_names(arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    if arrays.keys() != {"greedy", "beams"}:
        raise RecordError(f"{path}: a decoding holds greedy and beams, and this {sorted(arrays)}")


def _cut(tokens: np.ndarray, time: int) -> np.ndarray:
    """Keep each sequence up to its first end; axis 1 is time, brought to `time` steps."""
    missing = [(0, 0)] * tokens.ndim
    missing[1] = (0, time - tokens.shape[1])
    padded = np.pad(tokens.astype(np.int32), missing, constant_values=EOS)
    ended = np.cumsum(padded == EOS, axis=1) - (padded == EOS) > 0
    return np.where(ended, np.int32(PAD), padded)
