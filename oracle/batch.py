"""A batch: what tensors a spec's has, and how one is drawn, cut from a series, or made of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oracle.errors import CaseError
from oracle.series import Series, cut_windows
from oracle.spec import AttentionNMT, EncoderDecoder, Spec
from oracle.text import BOS, EOS, PAD, UNK, TextPair, Vocabularies, draw_batch

SOURCE_TIME, TARGET_TIME = 22, 10
"""The default window: two solar cycles of about eleven years are read, and ten years predicted. No size of
the default batch equals another, so that no exchange of axes can hide."""


@dataclass(frozen=True)
class BatchTensor:
    """One tensor of a batch: its axes, which are float32, or int32 within bounds that may be reached.

    Args:
        shape: the size of each axis.
        bounds: of whole numbers, the least and the greatest; None for float32.
    """

    shape: tuple[int, ...]
    bounds: tuple[int, int] | None = None

    @property
    def dtype(self) -> np.dtype:
        """The tensor's dtype."""
        return np.dtype(np.float32 if self.bounds is None else np.int32)


def batch_tensors(spec: Spec, batch_size: int, source_time: int, target_time: int) -> dict[str, BatchTensor]:
    """What a spec's batch consists of, by name.

    Of an `EncoderDecoder`: `source` [batch, src_time, source_features] and `target` [batch, 1 + tgt_time,
    target_features]; with lengths, `source_length` and `target_length` [batch]; with a given initial
    state, `initial_state/c` and `initial_state/h` [batch, units].

    Of an `AttentionNMT`, tokens: `source` [batch, src_time] and `target` [batch, 1 + tgt_time], and always
    the lengths, which are at least 1: there is nothing to attend to in an empty source.
    """
    if isinstance(spec, AttentionNMT):
        return {
            "source": BatchTensor((batch_size, source_time), (0, spec.source_vocab - 1)),
            "target": BatchTensor((batch_size, 1 + target_time), (0, spec.target_vocab - 1)),
            "source_length": BatchTensor((batch_size,), (1, source_time)),
            "target_length": BatchTensor((batch_size,), (1, target_time)),
        }
    tensors = {
        "source": BatchTensor((batch_size, source_time, spec.source_features)),
        "target": BatchTensor((batch_size, 1 + target_time, spec.target_features)),
    }
    if spec.lengths:
        tensors["source_length"] = BatchTensor((batch_size,), (0, source_time))
        tensors["target_length"] = BatchTensor((batch_size,), (0, target_time))
    if spec.initial_state == "given":
        state = BatchTensor((batch_size, spec.encoder.units))
        tensors |= {"initial_state/c": state, "initial_state/h": state}
    return tensors


def random_batch(
    spec: Spec, *, seed: int, batch_size: int, source_time: int, target_time: int
) -> dict[str, np.ndarray]:
    """Draw a batch: standard normal numbers, or tokens that are no padding up to each row's length."""
    generator = np.random.default_rng([seed, 1])
    if isinstance(spec, AttentionNMT):
        return _draw_tokens(spec, generator, batch_size, source_time, target_time)
    tensors = batch_tensors(spec, batch_size, source_time, target_time)
    batch = {
        name: generator.standard_normal(tensor.shape).astype(np.float32)
        for name, tensor in tensors.items()
        if tensor.bounds is None
    }
    if spec.lengths:
        batch |= _draw_lengths(generator, batch_size, source_time, target_time)
    return batch


def text_batch(
    spec: AttentionNMT,
    pairs: Sequence[TextPair],
    vocabularies: Vocabularies,
    *,
    seed: int,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Draw pairs of texts, each at most once, as a batch of tokens. See `oracle.text.encode_batch`.

    The first target is whole. The others are cut at places drawn, the last one for certain if it has more
    than a token: ISO dates are all of one length, and a loss that counts the padding would not show.

    Raises:
        CaseError: if there are fewer pairs, or the spec has other numbers of tokens than the vocabularies.
    """
    check_vocabularies(spec, vocabularies)
    batch = draw_batch(pairs, vocabularies, seed=seed, batch_size=batch_size)
    generator, whole = np.random.default_rng([seed, 4]), batch["target_length"]
    lengths = generator.integers(1, whole, endpoint=True).astype(np.int32)
    lengths[-1] = min(lengths[-1], max(1, whole[-1] - 1))
    lengths[0] = whole[0]
    kept = np.arange(batch["target"].shape[1]) <= lengths[:, None]
    return batch | {"target": np.where(kept, batch["target"], PAD).astype(np.int32), "target_length": lengths}


def check_vocabularies(spec: AttentionNMT, vocabularies: Vocabularies) -> None:
    """Raise CaseError unless the spec has as many tokens as the vocabularies."""
    for name, tokens, vocabulary in (
        ("source_vocab", spec.source_vocab, vocabularies.source),
        ("target_vocab", spec.target_vocab, vocabularies.target),
    ):
        if tokens != len(vocabulary):
            raise CaseError(f"spec: {name} is {tokens}, the pairs need {len(vocabulary)}; give that")


def series_batch(
    spec: EncoderDecoder,
    series: Series,
    *,
    seed: int,
    batch_size: int,
    source_time: int = SOURCE_TIME,
    target_time: int = TARGET_TIME,
) -> dict[str, np.ndarray]:
    """Cut a batch from a series: the encoder reads the past, the decoder predicts what follows.

    With lengths, a row keeps the last `source_length` steps of its past and the first `target_length`
    steps of its future, moved to the front and padded with zeros. A given initial state is drawn with
    deviation 0.1, since zeros would hide an exchange of c and h.

    Raises:
        CaseError: if the series does not fit the spec or the sizes.
    """
    if series.values.shape[1] != spec.source_features:
        raise CaseError(
            f"{series.name}: {series.values.shape[1]} columns of numbers, but the model reads "
            f"{spec.source_features}; give a table with {spec.source_features} columns after the label"
        )
    generator = np.random.default_rng([seed, 1])
    windows = cut_windows(
        series,
        source_time=source_time,
        target_time=target_time,
        target_features=spec.target_features,
        batch_size=batch_size,
        generator=generator,
    )
    source, target = windows.source, windows.target
    batch: dict[str, np.ndarray] = {}
    if spec.lengths:
        batch = _draw_lengths(generator, batch_size, source_time, target_time)
        source, target = np.zeros_like(source), np.zeros_like(target)
        for row in range(batch_size):
            past, future = batch["source_length"][row], batch["target_length"][row]
            source[row, :past] = windows.source[row, source_time - past :]
            target[row, : 1 + future] = windows.target[row, : 1 + future]
    batch |= {"source": source.astype(np.float32), "target": target.astype(np.float32)}
    if spec.initial_state == "given":
        for name in ("initial_state/c", "initial_state/h"):
            state = 0.1 * generator.standard_normal((batch_size, spec.encoder.units))
            batch[name] = state.astype(np.float32)
    return batch


def _draw_lengths(
    generator: np.random.Generator, batch_size: int, source_time: int, target_time: int
) -> dict[str, np.ndarray]:
    """Lengths from 0 to the full time; the first row is full and the last one, if another, empty."""
    lengths = {
        "source_length": generator.integers(0, source_time, batch_size, endpoint=True, dtype=np.int32),
        "target_length": generator.integers(0, target_time, batch_size, endpoint=True, dtype=np.int32),
    }
    for row_lengths in lengths.values():
        row_lengths[-1] = 0
    lengths["source_length"][0], lengths["target_length"][0] = source_time, target_time
    return lengths


def _draw_tokens(
    spec: AttentionNMT,
    generator: np.random.Generator,
    batch_size: int,
    source_time: int,
    target_time: int,
) -> dict[str, np.ndarray]:
    """Tokens up to lengths from 1 to the full time, then padding; the first row is full."""
    batch: dict[str, np.ndarray] = {}
    for name, time, vocab in (
        ("source", source_time, spec.source_vocab),
        ("target", target_time, spec.target_vocab),
    ):
        lengths = generator.integers(1, time, batch_size, endpoint=True, dtype=np.int32)
        lengths[0] = time
        # Of a vocabulary that has no other, the last token.
        least = min(UNK, vocab - 1)
        tokens = generator.integers(least, vocab, (batch_size, time), dtype=np.int32)
        if name == "target":
            tokens[np.arange(batch_size), lengths - 1] = min(EOS, vocab - 1)
        tokens *= np.arange(time) < lengths[:, None]
        if name == "target":
            start = np.full((batch_size, 1), min(BOS, vocab - 1), np.int32)
            tokens = np.concatenate([start, tokens], axis=1)
        batch |= {name: tokens, f"{name}_length": lengths}
    return batch
