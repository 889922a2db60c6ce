"""Real texts, translated by a port and by the oracle, greedily and by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oracle import zoo
from oracle.batch import check_vocabularies
from oracle.case import Case, check_seed
from oracle.check import load_weights
from oracle.decoding import DecodeOptions, Decoding
from oracle.errors import UsageError
from oracle.runner import Runner
from oracle.spec import AttentionNMT
from oracle.text import EOS, TextPair, Vocabularies, encode_batch, hold_out, load_texts, read_pairs


@dataclass(frozen=True)
class TranslationRequest:
    """What is to be translated.

    Args:
        model: one translator, `attention_nmt/lstm`.
        texts: the sources; none to draw pairs that the translator was not trained on.
        rows: how many pairs are drawn.
        weights: the prefix of a TensorFlow checkpoint, or `random`; None for the trained weights.
        data: a TSV file of pairs to draw from.
        seed: the seed of every random choice.
        mode: how TensorFlow decodes; see `oracle.zoo.DECODING_MODES`.
        beam_width: how many beams the search keeps.
        length_penalty_weight: the exponent of the length penalty; 0 for none.
        maximum_length: how many characters at most; None for one more than the longest target and its end.
    """

    model: str = "attention_nmt/lstm"
    texts: tuple[str, ...] = ()
    rows: int = 8
    weights: str | None = None
    data: str | None = None
    seed: int = 0
    mode: str | None = None
    beam_width: int = 4
    length_penalty_weight: float = 0.0
    maximum_length: int | None = None


@dataclass(frozen=True)
class Translation:
    """One source and what both sides made of it.

    Args:
        source: the text.
        expected: its right translation, or an empty text if that is not known.
        greedy: by the port and by the oracle.
        beams: of the port and of the oracle, the best first.
        unknown: the characters of the source that the translator does not know.
        differs: the first token in which the two sides differ, for people; empty if they gave the same
            tokens, greedily and in every beam.
    """

    source: str
    expected: str
    greedy: tuple[str, str]
    beams: tuple[tuple[str, ...], tuple[str, ...]]
    unknown: str
    differs: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the two sides gave the same tokens, greedily and in every beam."""
        return not self.differs


@dataclass(frozen=True)
class Translations:
    """All translations of a request.

    Args:
        model: the port's whole name.
        mode: how TensorFlow decoded.
        weights: where the weights are from.
        data: where the texts are from.
        seed: the seed of every random choice.
        options: how both sides decoded.
        rows: one a text.
    """

    model: str
    mode: str
    weights: str
    data: str
    seed: int
    options: DecodeOptions
    rows: tuple[Translation, ...]

    @property
    def agree(self) -> bool:
        """Whether the two sides gave the same tokens everywhere."""
        return all(row.agrees for row in self.rows)


def translate(request: TranslationRequest, runner: Runner) -> Translations:
    """Translate texts on both sides, in float64, with the same weights.

    Raises:
        UsageError: if there is no such translator, or a number is out of range.
        CaseError: if the data or a text cannot be used.
        BridgeError: if the weights do not fit.
    """
    check_seed(request.seed)
    choice = zoo.choose_translator(request.model)
    mode = zoo.choose_decoding_mode(request.mode)
    spec = choice.variant.spec
    assert isinstance(spec, AttentionNMT)
    shipped, vocabularies = load_texts(choice.variant.data)
    check_vocabularies(spec, vocabularies)
    pairs, data_from = _choose_pairs(request, shipped, choice.variant.data)
    longest = max(len(pair.target) for pair in shipped)
    options = DecodeOptions(
        maximum_iterations=longest + 2 if request.maximum_length is None else request.maximum_length,
        beam_width=request.beam_width,
        length_penalty_weight=request.length_penalty_weight,
    )
    weights, weights_from = load_weights(choice.variant, weights=request.weights, seed=request.seed)
    batch = encode_batch(pairs, vocabularies)
    case = Case(spec, request.seed, weights, batch, weights_from, data_from)
    by_port, by_oracle = (
        runner.decode(side, case, model=choice.name, mode=mode, options=options) for side in ("tf", "jax")
    )
    rows = _pair_up(pairs, by_port.result(), by_oracle.result(), vocabularies)
    return Translations(choice.name, mode, weights_from, data_from, request.seed, options, rows)


def _choose_pairs(
    request: TranslationRequest, shipped: Sequence[TextPair], name: str
) -> tuple[tuple[TextPair, ...], str]:
    if request.texts:
        if "" in request.texts:
            raise UsageError("one of the texts is empty; give at least one character")
        known = {pair.source: pair.target for pair in shipped}
        return tuple(TextPair(text, known.get(text, ""), "") for text in request.texts), "the command line"
    if request.rows < 1:
        raise UsageError(f"rows {request.rows}: nothing to translate; give at least 1")
    if request.data is None:
        _, pairs = hold_out(shipped)
        name = f"{name}, held out"
    else:
        pairs, name = read_pairs(request.data), request.data
    if request.rows > len(pairs):
        raise UsageError(f"rows {request.rows}: there are {len(pairs)} pairs; give at most that")
    places = np.random.default_rng([request.seed, 1]).choice(len(pairs), request.rows, replace=False)
    return tuple(pairs[place] for place in places), name


def _pair_up(
    pairs: Sequence[TextPair], by_port: Decoding, by_oracle: Decoding, vocabularies: Vocabularies
) -> tuple[Translation, ...]:
    """Read the tokens of both sides as texts, a row each."""
    rows, vocabulary = [], vocabularies.target
    for row, pair in enumerate(pairs):
        sides = (by_port, by_oracle)
        greedy = [vocabulary.decode(side.greedy[row].tolist()) for side in sides]
        beams = [tuple(vocabulary.decode(beam) for beam in side.beams[row].T.tolist()) for side in sides]
        unknown = "".join(dict.fromkeys(c for c in pair.source if c not in vocabularies.source.characters))
        texts = (greedy[0], greedy[1]), (beams[0], beams[1])
        differs = tell_difference(by_port, by_oracle, row)
        rows.append(Translation(pair.source, pair.target, *texts, unknown, differs))
    return tuple(rows)


def tell_difference(by_port: Decoding, by_oracle: Decoding, row: int) -> str:
    """Where two decodings of a row first differ: `beam 2, token 5, where Flax's ends`; empty if nowhere.

    What follows a sequence's end plays no part.
    """
    ports = [by_port.greedy[row], *by_port.beams[row].T]
    oracles = [by_oracle.greedy[row], *by_oracle.beams[row].T]
    for number, (port, oracle) in enumerate(zip(ports, oracles, strict=True)):
        if np.array_equal(port, oracle):
            continue
        token = int(np.argmax(port != oracle))
        where = f"{f'beam {number}' if number else 'greedily'}, token {token + 1}"
        for side, tokens in (("TensorFlow", port), ("Flax", oracle)):
            if tokens[token] == EOS:
                where += f", where {side}'s ends"
        return where
    return ""
