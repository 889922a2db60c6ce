"""What faults are seeded in, and what right ports are drawn: models by name, tiny, every size another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.case import Case, random_case
from oracle.errors import UsageError
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec

EAGER = "eager"

LEAST_LENGTHS = 3
"""How many lengths the rows of a batch have at least in which faults are seeded."""


@dataclass(frozen=True)
class Subject:
    """A model with a batch's sizes, and the port that computes it.

    Args:
        port: by its whole name, `explicit_state/full`.
        spec: the model.
        batch_size, source_time, target_time: of the batch.
        mode: how TensorFlow runs it.
    """

    port: str
    spec: Spec
    batch_size: int = 3
    source_time: int = 6
    target_time: int = 5
    mode: str = EAGER

    def draw(self, seed: int) -> Case:
        """A case: weights and a batch."""
        sizes = {
            "batch_size": self.batch_size,
            "source_time": self.source_time,
            "target_time": self.target_time,
        }
        return random_case(self.spec, seed=seed, **sizes)

    def draw_uneven(self, seed: int) -> Case:
        """The first case from a seed on whose rows have three lengths, lest faults in lengths hide."""
        for number in range(1000 * seed, 1000 * (seed + 1)):
            case = self.draw(number)
            lengths = [array for name, array in case.batch.items() if name.endswith("_length")]
            if all(len(set(rows.tolist())) >= LEAST_LENGTHS for rows in lengths):
                return case
        raise UsageError(f"no case of {self.port} from seed {seed} on has rows of {LEAST_LENGTHS} lengths")


def _pair(units: int, *, features: tuple[int, int] = (3, 2), **options: Any) -> EncoderDecoder:
    bias = options.pop("forget_bias", 1.0)
    cell = LSTM(units, forget_bias=bias)
    return EncoderDecoder(*features, cell, cell, **options)


def _translator(cell: str, layers: int, attention: Attention, *, units: int = 4, **options: Any) -> Subject:
    options = {"source_vocab": 11, "target_vocab": 9, "embedding": 3, **options}
    spec = AttentionNMT(cell=cell, units=units, layers=layers, attention=attention, **options)  # pyright: ignore
    return Subject(f"attention_nmt/{cell}", spec)


SUBJECTS: dict[str, Subject] = {
    "pair": Subject("explicit_state/full", _pair(5, initial_state="given")),
    "pair-bare": Subject("explicit_state/full", _pair(5, features=(3, 5), projection=False)),
    "pair-wide": Subject("explicit_state/full", _pair(24, features=(13, 12)), 4, 8, 7),
    "loop": Subject("dynamic_rnn/full", _pair(5, forget_bias=0.5), mode="v1"),
    "loop-lengths": Subject("dynamic_rnn/lengths", _pair(5, lengths=True), 4, 6, 5, mode="v1"),
    "luong": _translator("lstm", 1, Attention("luong", 8, scaled=True, layer_units=6)),
    "luong-gru": _translator("gru", 1, Attention("luong", 8), loss="steps"),
    "luong-even": _translator("lstm", 1, Attention("luong", 8, layer_units=8)),
    "bahdanau": _translator("lstm", 1, Attention("bahdanau", 7, scaled=True, layer_units=6), loss="rows"),
    "bahdanau-gru-2": _translator("gru", 2, Attention("bahdanau", 7, layer_units=6)),
    "luong-lstm-2": _translator("lstm", 2, Attention("luong", 8, layer_units=6), loss="steps"),
    "luong-monotonic": _translator("gru", 1, Attention("luong_monotonic", 8, scaled=True), loss="rows"),
    "bahdanau-monotonic-2": _translator(
        "lstm", 2, Attention("bahdanau_monotonic", 7, scaled=True, layer_units=6)
    ),
    "bahdanau-wide": _translator(
        "gru", 1, Attention("bahdanau", 13, layer_units=10), units=12, source_vocab=31, target_vocab=29
    ),
}
"""What faults are seeded in, by name. `luong-even` has an attention as wide as the decoder's output."""


def find_subject(name: str) -> Subject:
    """The subject of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in SUBJECTS:
        raise UsageError(f"no subject {name!r}; there is {', '.join(SUBJECTS)}")
    return SUBJECTS[name]


def draw_subject(seed: int, number: int) -> Subject:
    """Draw what a right port computes: the kind of model, its sizes, its loss, and the batch's sizes."""
    generator = np.random.default_rng([seed, 7, number])

    def whole(low: int, high: int) -> int:
        return int(generator.integers(low, high, endpoint=True))

    def flag() -> bool:
        return bool(generator.integers(2))

    # Of a source of one step, recurrent kernels have no gradient, and no port can be judged.
    sizes = (whole(1, 5), whole(2, 9), whole(1, 8))
    kind = whole(0, 9)
    if kind < 5:
        units, projection = whole(1, 20), flag()
        features = (whole(1, 7), whole(1, 6) if projection else units)
        if kind < 3:
            spec = _pair(
                units,
                features=features,
                projection=projection,
                initial_state="given" if flag() else "implicit",
            )
            return Subject("explicit_state/full", spec, *sizes)
        bias = round(float(generator.uniform(-1, 2)), 2)
        spec = _pair(units, features=features, projection=projection, lengths=flag(), forget_bias=bias)
        name = "dynamic_rnn/lengths" if spec.lengths else "dynamic_rnn/full"
        return Subject(name, spec, *sizes, mode="v1")
    units, mechanism = (
        whole(1, 9),
        ("luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic")[whole(0, 3)],
    )
    attention = Attention(
        mechanism,
        2 * units if mechanism.startswith("luong") else whole(1, 9),
        scaled=flag(),
        layer_units=whole(1, 9) if flag() else None,
    )
    spec = AttentionNMT(
        source_vocab=whole(4, 20),
        target_vocab=whole(4, 20),
        embedding=whole(1, 8),
        cell="lstm" if flag() else "gru",
        units=units,
        layers=2 if whole(0, 3) == 0 else 1,
        attention=attention,
        loss=("tokens", "steps", "rows")[whole(0, 2)],
    )
    return Subject(f"attention_nmt/{spec.cell}", spec, *sizes)
