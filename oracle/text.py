"""Real text: pairs of strings, read by the character.

Two sets ship with the project: dates as many locales write them, with their ISO form, and English names of
languages and places with their German ones. See `oracle/data/dates.README.md` for source and licence.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from oracle.errors import CaseError

PAD, BOS, EOS, UNK = range(4)
"""The tokens that are no characters: padding, start, end, and whatever the vocabulary lacks."""

HEADER = ["source", "target", "locale"]


@dataclass(frozen=True)
class TextPair:
    """A text, what it is to become, and the locale that the translation is from or to."""

    source: str
    target: str
    locale: str


@dataclass(frozen=True)
class Vocabulary:
    """Characters by token: the first has the token 4, after the tokens that are no characters.

    Raises:
        CaseError: if a character is there twice, or is none.
    """

    characters: str

    def __post_init__(self) -> None:
        if len(set(self.characters)) != len(self.characters):
            twice = sorted(c for c in set(self.characters) if self.characters.count(c) > 1)
            raise CaseError(f"vocabulary: {twice} more than once; give each character once")

    def __len__(self) -> int:
        return UNK + 1 + len(self.characters)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without start and end."""
        return [
            UNK if (place := self.characters.find(character)) < 0 else UNK + 1 + place for character in text
        ]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens up to the first end, if there is one; an unknown character is U+FFFD.

        Raises:
            CaseError: on a token outside the vocabulary.
        """
        characters = []
        for token in tokens:
            if token == EOS:
                break
            if not 0 <= token < len(self):
                raise CaseError(f"vocabulary: no token {token}; it has 0 to {len(self) - 1}")
            if token in (PAD, BOS):
                continue
            characters.append(
                "\N{REPLACEMENT CHARACTER}" if token == UNK else self.characters[token - UNK - 1]
            )
        return "".join(characters)


@dataclass(frozen=True)
class Vocabularies:
    """Those of the two sides of the pairs."""

    source: Vocabulary
    target: Vocabulary


def dates() -> tuple[TextPair, ...]:
    """Dates of many locales and their ISO form, in the order of the file, which is random."""
    return _read_resource("dates.tsv")


def names() -> tuple[TextPair, ...]:
    """English names of languages, territories, scripts and currencies, and their German ones."""
    return _read_resource("names.tsv")


def load_texts(name: str) -> tuple[tuple[TextPair, ...], Vocabularies]:
    """A set of pairs that ships with the project, `dates` or `names`, and its vocabularies."""
    pairs = {"dates": dates, "names": names}[name]()
    return pairs, build_vocabularies(pairs)


def read_pairs(path: str | os.PathLike[str]) -> tuple[TextPair, ...]:
    """Read a UTF-8 file of tab-separated columns with the header `source`, `target`, `locale`.

    Raises:
        CaseError: if the file is absent, empty or no such table, or a text is empty; the message names
            the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CaseError(f"{path}: cannot be read: {reason}; give a UTF-8 file of pairs") from error
    if lines[-1] == "":
        lines.pop()
    if not lines or lines[0].split("\t") != HEADER:
        raise CaseError(f"{path}: line 1: expected the header {' '.join(HEADER)}, with tabs between")
    if len(lines) == 1:
        raise CaseError(f"{path}: no pairs; expected a line for each after the header")
    pairs = []
    for number, line in enumerate(lines[1:], start=2):
        columns = line.split("\t")
        if len(columns) != len(HEADER):
            raise CaseError(
                f"{path}: line {number}: {len(columns)} columns, expected {len(HEADER)} with tabs between"
            )
        for name, text in zip(HEADER[:2], columns[:2], strict=True):
            if not text:
                raise CaseError(f"{path}: line {number}: the {name} is empty; remove the line or fill it in")
        pairs.append(TextPair(*columns))
    return tuple(pairs)


def build_vocabularies(pairs: Sequence[TextPair]) -> Vocabularies:
    """The characters of all sources and of all targets, each sorted.

    Raises:
        CaseError: if there are no pairs.
    """
    if not pairs:
        raise CaseError("vocabulary: no pairs to take the characters from; give at least one")
    source = {character for pair in pairs for character in pair.source}
    target = {character for pair in pairs for character in pair.target}
    return Vocabularies(Vocabulary("".join(sorted(source))), Vocabulary("".join(sorted(target))))


def split_pairs(
    pairs: Sequence[TextPair], *, held_out: int, seed: int = 0
) -> tuple[tuple[TextPair, ...], tuple[TextPair, ...]]:
    """Draw `held_out` pairs that are not trained on. Returns the others and them, in their order.

    Raises:
        CaseError: if that leaves nothing on either side.
    """
    if not 1 <= held_out < len(pairs):
        raise CaseError(f"held_out {held_out} of {len(pairs)} pairs; choose from 1 to {len(pairs) - 1}")
    chosen = set(np.random.default_rng([seed, 3]).choice(len(pairs), held_out, replace=False).tolist())
    others = tuple(pair for place, pair in enumerate(pairs) if place not in chosen)
    return others, tuple(pairs[place] for place in sorted(chosen))


HELD_OUT = 10
"""One pair of so many is not trained on."""


def hold_out(pairs: Sequence[TextPair]) -> tuple[tuple[TextPair, ...], tuple[TextPair, ...]]:
    """The pairs that translators are trained on, and those that they are not: always the same.

    Raises:
        CaseError: if there is only one pair.
    """
    if len(pairs) < 2:
        raise CaseError("pairs: only one, and one of them is held out of training; give at least two")
    return split_pairs(pairs, held_out=max(1, len(pairs) // HELD_OUT))


def encode_batch(
    pairs: Sequence[TextPair],
    vocabularies: Vocabularies,
    *,
    source_time: int | None = None,
    target_time: int | None = None,
) -> dict[str, np.ndarray]:
    """The pairs as a batch of int32.

    Args:
        pairs: one for each row.
        vocabularies: of the two sides.
        source_time: steps of the source, by default those of the longest.
        target_time: steps that are predicted, by default those of the longest target and its end.

    Returns:
        `source` [batch, source_time] and `source_length` [batch]; `target` [batch, 1 + target_time],
        which begins with BOS, and `target_length` [batch], which counts the predicted tokens, the end
        included. What follows is padding.

    Raises:
        CaseError: if there are no pairs, or a text does not fit the time.
    """
    if not pairs:
        raise CaseError("batch: no pairs; give at least one")
    sources = [vocabularies.source.encode(pair.source) for pair in pairs]
    targets = [[BOS, *vocabularies.target.encode(pair.target), EOS] for pair in pairs]
    source, source_length = _pad(sources, source_time, "source")
    target, target_length = _pad(targets, None if target_time is None else 1 + target_time, "target")
    return {
        "source": source,
        "source_length": source_length,
        "target": target,
        "target_length": target_length - np.int32(1),
    }


def draw_batch(
    pairs: Sequence[TextPair],
    vocabularies: Vocabularies,
    *,
    seed: int,
    batch_size: int,
    source_time: int | None = None,
    target_time: int | None = None,
) -> dict[str, np.ndarray]:
    """A batch, as `encode_batch` gives it, of `batch_size` different pairs drawn by the seed.

    Raises:
        CaseError: if there are fewer pairs, or a text does not fit the time.
    """
    if not 1 <= batch_size <= len(pairs):
        raise CaseError(f"batch size {batch_size} of {len(pairs)} pairs; choose from 1 to {len(pairs)}")
    places = np.random.default_rng([seed, 1]).choice(len(pairs), batch_size, replace=False)
    drawn = [pairs[place] for place in places]
    return encode_batch(drawn, vocabularies, source_time=source_time, target_time=target_time)


def _pad(rows: Sequence[list[int]], time: int | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(row) for row in rows], np.int32)
    if time is None:
        time = int(lengths.max())
    if lengths.max() > time:
        raise CaseError(f"batch: a {name} of {lengths.max()} tokens, more than the {time} steps there are")
    padded = np.full((len(rows), time), PAD, np.int32)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded, lengths


def _read_resource(name: str) -> tuple[TextPair, ...]:
    with resources.as_file(resources.files("oracle") / "data" / name) as path:
        return read_pairs(path)
