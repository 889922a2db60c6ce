"""The models that can be compared by name, with their variants. No framework is imported here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oracle.errors import UsageError
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec

_CHECKPOINTS = Path(__file__).parent.parent / "tf_models" / "checkpoints"

TRAINED_WEIGHTS = _CHECKPOINTS / "sunspots-lstm-256"
"""A TF1 Saver checkpoint that `oracle train dynamic_rnn` wrote: the weights of a default run."""

Data = Literal["sunspots", "dates", "names"]
"""The data that ship with the project: a series of numbers, and two sets of pairs of texts."""

MODES = ("eager", "function", "xla", "v1")
"""How TensorFlow can run a port: op by op, in `tf.function`, compiled by XLA, in a v1 session."""


@dataclass(frozen=True)
class Variant:
    """One port of a model.

    Args:
        name: the variant's own name.
        summary: what it does, in one line.
        spec: the model that is meant, which the oracle computes.
        modes: how TensorFlow can run it, the default first.
        weights: the prefix of the checkpoint with the weights of a default run, which `oracle train` wrote.
        data: what a default run computes on.
    """

    name: str
    summary: str
    spec: Spec
    modes: tuple[str, ...]
    weights: Path = TRAINED_WEIGHTS
    data: Data = "sunspots"


@dataclass(frozen=True)
class Model:
    """A model: `tf_models/<name>.py` holds its ports and `jax_models/<name>.py` its oracle."""

    name: str
    summary: str
    variants: tuple[Variant, ...]
    needs_tfa: bool = True


@dataclass(frozen=True)
class Choice:
    """One port, chosen by name: `explicit_state/full`."""

    model: Model
    variant: Variant

    @property
    def name(self) -> str:
        """The port's whole name, as the command line takes it."""
        return f"{self.model.name}/{self.variant.name}"


_SUNSPOTS = EncoderDecoder(
    source_features=13, target_features=12, encoder=LSTM(units=256), decoder=LSTM(units=256)
)
_LENGTHS = EncoderDecoder(
    source_features=13,
    target_features=12,
    encoder=LSTM(units=256),
    decoder=LSTM(units=256),
    lengths=True,
)
_GIVEN = EncoderDecoder(
    source_features=13,
    target_features=12,
    encoder=LSTM(units=256),
    decoder=LSTM(units=256),
    initial_state="given",
)

# The vocabularies are those of the data: see `oracle.text`.
_DATES_LSTM = AttentionNMT(
    source_vocab=74,
    target_vocab=15,
    embedding=32,
    cell="lstm",
    units=48,
    layers=1,
    attention=Attention("bahdanau", 48, scaled=True, layer_units=64),
)
_DATES_GRU = AttentionNMT(
    source_vocab=74,
    target_vocab=15,
    embedding=32,
    cell="gru",
    units=48,
    layers=1,
    attention=Attention("luong", 96, scaled=True, layer_units=64),
)
_NAMES_STACKED = AttentionNMT(
    source_vocab=90,
    target_vocab=95,
    embedding=32,
    cell="lstm",
    units=48,
    layers=2,
    attention=Attention("bahdanau_monotonic", 48, layer_units=64),
)

_NAMES_MONOTONIC = AttentionNMT(
    source_vocab=90,
    target_vocab=95,
    embedding=32,
    cell="gru",
    units=48,
    layers=1,
    attention=Attention("luong_monotonic", 96, scaled=True),
)

_TF1_MODES = ("v1", "function", "xla")
_TF2_MODES = ("function", "eager", "xla", "v1")

MODELS = (
    Model(
        "dynamic_rnn",
        "the TF1 original: compat.v1 dynamic_rnn over BasicLSTMCell, its first state implicit",
        (
            Variant("full", "every row of full length", _SUNSPOTS, _TF1_MODES),
            Variant("lengths", "rows with sequence_length, one of them 0", _LENGTHS, _TF1_MODES),
        ),
        needs_tfa=False,
    ),
    Model(
        "explicit_state",
        "the right conversion to tfa.seq2seq: the encoder returns its state, the decoder starts from it",
        (Variant("full", "every row of full length", _GIVEN, _TF2_MODES),),
    ),
    Model(
        "implicit_state",
        "wrong conversions: the encoder's state never reaches the decoder as it should",
        (
            Variant("outside_tape", "the encoder is called outside the gradient tape", _SUNSPOTS, _TF2_MODES),
            Variant(
                "state_discarded",
                "the encoder is built with return_state=False, so there is nothing to pass on",
                _SUNSPOTS,
                _TF2_MODES,
            ),
            Variant(
                "initial_state_none",
                "the decoder is called with initial_state=None",
                _SUNSPOTS,
                _TF2_MODES,
            ),
            Variant("initial_state_zeros", "the decoder is given zeros", _SUNSPOTS, _TF2_MODES),
            Variant(
                "zeros_silenced",
                "as initial_state_zeros, the None gradients turned to zeros by unconnected_gradients",
                _SUNSPOTS,
                _TF2_MODES,
            ),
            Variant("exchanged", "h and c are exchanged on the way", _SUNSPOTS, _TF2_MODES),
        ),
    ),
    Model(
        "attention_nmt",
        "a translator on tfa.seq2seq: bidirectional encoder, attention, input feeding, beam search",
        (
            Variant(
                "lstm",
                "dates in many languages to ISO dates",
                _DATES_LSTM,
                _TF2_MODES,
                weights=_CHECKPOINTS / "dates-nmt-lstm",
                data="dates",
            ),
            Variant(
                "gru",
                "dates in many languages to ISO dates",
                _DATES_GRU,
                _TF2_MODES,
                weights=_CHECKPOINTS / "dates-nmt-gru",
                data="dates",
            ),
            Variant(
                "monotonic",
                "English names to German ones, without an attention layer",
                _NAMES_MONOTONIC,
                _TF2_MODES,
                weights=_CHECKPOINTS / "names-nmt-monotonic",
                data="names",
            ),
            Variant(
                "stacked",
                "English names of languages, places and currencies to German ones",
                _NAMES_STACKED,
                _TF2_MODES,
                weights=_CHECKPOINTS / "names-nmt-stacked",
                data="names",
            ),
        ),
    ),
)

DEFAULT_MODELS = ("dynamic_rnn/full", "explicit_state/full")
"""What `oracle compare` compares when no model is named: the original, and its right conversion."""


def choose(name: str) -> list[Choice]:
    """Find the ports that a name means: a model's every variant, or `model/variant`; `-` does for `_`.

    Raises:
        UsageError: if there is none of that name; the message suggests the nearest.
    """
    meant = name.replace("-", "_")
    found = [choice for choice in choices() if meant in (choice.name, choice.model.name)]
    if not found:
        known = [model.name for model in MODELS] + [choice.name for choice in choices()]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"no model {name!r}; {hint}`oracle models` lists them all")
    return found


def choices() -> list[Choice]:
    """Every port there is, in the order of the models."""
    return [Choice(model, variant) for model in MODELS for variant in model.variants]


def choose_mode(variant: Variant, mode: str | None, *, port: str) -> str:
    """The mode to run a port in: the asked one, or the port's default.

    Raises:
        UsageError: if TensorFlow cannot run the port in that mode.
    """
    if mode is None:
        return variant.modes[0]
    if mode not in variant.modes:
        raise UsageError(f"{port} cannot run in mode {mode!r}; it can in {', '.join(variant.modes)}")
    return mode


def choose_translator(name: str) -> Choice:
    """Find the one translator that a name means.

    Raises:
        UsageError: if it means none, or several.
    """
    found = choose(name)
    translators = [choice.name for choice in choices() if isinstance(choice.variant.spec, AttentionNMT)]
    if found[0].name not in translators:
        raise UsageError(f"{found[0].name} is no translator; choose from {', '.join(translators)}")
    if len(found) > 1:
        raise UsageError(f"{name} is several translators; choose one of {', '.join(translators)}")
    return found[0]


DECODING_MODES = ("function", "eager")
"""How TensorFlow can decode. tfa's beam search has no kernel for XLA."""


def choose_decoding_mode(mode: str | None) -> str:
    """The mode to decode in: the asked one, or the first of `DECODING_MODES`.

    Raises:
        UsageError: if there is no decoding in that mode.
    """
    if mode is not None and mode not in DECODING_MODES:
        raise UsageError(f"no decoding in mode {mode!r}; there is in {', '.join(DECODING_MODES)}")
    return mode or DECODING_MODES[0]
