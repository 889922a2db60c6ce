"""The cases of the suite: what is computed, at which sizes, and which selection holds it. No framework."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from oracle import zoo
from oracle.errors import UsageError
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec

Job = Literal["gradient", "training", "beam", "bridge", "command"]
"""What a contestant does once: the loss and the gradient of every weight; that and a step of Adam; a beam
search; reading a checkpoint into the oracle's leaves; a whole command, from start to end."""

Axis = Literal["", "B", "T", "H", "layers", "vocabulary"]

SIZES = ((32, 32, 256), (64, 50, 512), (16, 200, 256))
"""Batch, time and units."""

QUICK_SIZE = SIZES[0]

FEATURES = 64
"""Width of a step of the models that read numbers, on both sides."""

VOCABULARY = 1000

BEAMS, BEAM_STEPS = 4, 24

GRU_PORT = "bench.gru_port:build"
"""The GRU without attention, which no spec describes: a live port of ours."""


@dataclass(frozen=True)
class BenchCase:
    """One case.

    Args:
        name: `gradient/lstm/32x32x256`: the job, the model, the sizes.
        job: what is done.
        spec: the model; None for a live port, a checkpoint or a command.
        batch: rows of the batch.
        time: steps of the source, and of the target that is predicted.
        axis: what a sweep varies; empty outside of sweeps.
        value: what it is here.
        memory: whether the peak memory is measured too, in a fresh process for each contestant.
        profile: whether it is found out where the fast path's time goes, in a fresh process on one CPU.
        target: a live port, as `oracle compare` takes it.
        port: a port of `oracle.zoo` whose trained weights and data are taken.
        commands: of the job `command`, the commands by contestant.
    """

    name: str
    job: Job
    spec: Spec | None = None
    batch: int = 0
    time: int = 0
    axis: Axis = ""
    value: int = 0
    memory: bool = False
    profile: bool = False
    target: str = ""
    port: str = ""
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def group(self) -> str:
        """What the case belongs to: its name without the sizes."""
        return self.name.rsplit("/", 1)[0]


def plain_spec(units: int) -> EncoderDecoder:
    """An LSTM encoder-decoder without attention."""
    return EncoderDecoder(FEATURES, FEATURES, LSTM(units), LSTM(units))


def attention_spec(
    cell: Literal["lstm", "gru"],
    mechanism: Literal["luong", "bahdanau"],
    units: int,
    *,
    layers: int = 1,
    vocabulary: int = VOCABULARY,
) -> AttentionNMT:
    """A translator whose decoder has `units`, which its encoder's two directions share."""
    attention = Attention(mechanism, units, layer_units=units)
    return AttentionNMT(vocabulary, vocabulary, units // 2, cell, units // 2, layers, attention)


def _model_specs(units: int) -> dict[str, Spec | None]:
    return {
        "lstm": plain_spec(units),
        "lstm-luong": attention_spec("lstm", "luong", units),
        "lstm-bahdanau": attention_spec("lstm", "bahdanau", units),
        "gru": None,
        "gru-luong": attention_spec("gru", "luong", units),
        "gru-bahdanau": attention_spec("gru", "bahdanau", units),
    }


def model_cases() -> list[BenchCase]:
    """Every model at every size: the gradient step, and of some the step of Adam."""
    cases = []
    for batch, time, units in SIZES:
        for model, spec in _model_specs(units).items():
            name = f"{model}/{batch}x{time}x{units}"
            target = "" if spec else f"{GRU_PORT}({batch}, {time}, {units})"
            sizes = {"spec": spec, "batch": batch, "time": time, "target": target}
            told = {"memory": True, "profile": model.startswith("lstm")}
            cases.append(BenchCase(f"gradient/{name}", "gradient", **told, **sizes))
            if spec is not None:
                cases.append(BenchCase(f"training/{name}", "training", **sizes))
    return cases


def sweep_cases() -> list[BenchCase]:
    """One size varied, the others held."""
    cases = []
    for time in (64, 256, 1024, 4096):
        told = {"memory": time == 4096, "profile": time in (64, 4096)}
        cases.append(_sweep("T", time, "lstm", plain_spec(128), 16, time, **told))
    for time in (64, 256, 1024):
        cases.append(_sweep("T", time, "lstm-luong", attention_spec("lstm", "luong", 64), 4, time))
    for batch in (8, 32, 128, 512):
        cases.append(_sweep("B", batch, "lstm", plain_spec(128), batch, 32))
    for units in (64, 128, 256, 512, 1024):
        cases.append(_sweep("H", units, "lstm", plain_spec(units), 32, 32))
    for layers in (1, 2, 4):
        spec = attention_spec("lstm", "bahdanau", 128, layers=layers)
        cases.append(_sweep("layers", layers, "lstm-bahdanau", spec, 32, 32))
    for vocabulary in (100, 1000, 10_000):
        spec = attention_spec("lstm", "luong", 128, vocabulary=vocabulary)
        cases.append(_sweep("vocabulary", vocabulary, "lstm-luong", spec, 32, 32))
    return cases


def _sweep(axis: Axis, value: int, model: str, spec: Spec, batch: int, time: int, **told: bool) -> BenchCase:
    return BenchCase(f"sweep-{axis}/{model}/{value}", "gradient", spec, batch, time, axis, value, **told)


def other_cases() -> list[BenchCase]:
    """Decoding, the bridge, and the commands."""
    cases = []
    for port in ("attention_nmt/lstm", "attention_nmt/gru"):
        spec = zoo.choose(port)[0].variant.spec
        name = f"beam/{port.split('/')[1]}/{64}x{BEAMS}"
        cases.append(BenchCase(name, "beam", spec, 64, BEAM_STEPS, port=port))
    cases.append(BenchCase("bridge/dynamic_rnn", "bridge", port="dynamic_rnn/full"))
    cases.append(BenchCase("bridge/attention_nmt", "bridge", port="attention_nmt/lstm"))
    python = ("{python}",)
    oracle = (*python, "-m", "oracle")
    commands = {
        "help": {
            "oracle --help": (*oracle, "--help"),
            "python -c pass": (*python, "-c", "pass"),
        },
        "verify": {
            "oracle verify": (*oracle, "verify", "{record}", "--quiet"),
            "import jax, flax.linen": (*python, "-c", "import jax, flax.linen"),
        },
        "compare": {
            "oracle compare": (*oracle, "compare", "--quiet"),
            "import tensorflow_addons": (*python, "-c", "import tensorflow_addons"),
        },
    }
    cases += [
        BenchCase(f"latency/{name}", "command", commands=tuple(each.items()))
        for name, each in commands.items()
    ]
    return cases


def all_cases() -> list[BenchCase]:
    """Every case, in the order of the report."""
    return [*model_cases(), *sweep_cases(), *other_cases()]


def choose_cases(
    *, selection: str = "default", patterns: Sequence[str] = (), memory: bool = False
) -> list[BenchCase]:
    """The cases of a selection, or of patterns as the shell has them, among all there are.

    Args:
        selection: `quick` for one size of the LSTM, `default` for every model and command without the
            sweeps, `full` for all.
        patterns: as `gradient/lstm*/32x32x256`; they go before the selection.
        memory: whether the peak memory is measured too, of the models' cases. That of the longest sequence,
            which is there for it, always is.

    Raises:
        UsageError: if a pattern names none, or there is no such selection.
    """
    cases = all_cases()
    if patterns:
        chosen = [case for case in cases if any(fnmatch.fnmatchcase(case.name, each) for each in patterns)]
        for each in patterns:
            if not any(fnmatch.fnmatchcase(case.name, each) for case in cases):
                groups = ", ".join(dict.fromkeys(case.group for case in cases))
                raise UsageError(f"no case {each!r}; there are those of {groups}, each with its sizes behind")
    elif selection == "quick":
        size = "x".join(map(str, QUICK_SIZE))
        names = {f"gradient/{model}/{size}" for model in ("lstm", "lstm-luong", "lstm-bahdanau")}
        chosen = [case for case in cases if case.name in names]
    elif selection == "default":
        chosen = [case for case in cases if not case.axis]
    elif selection == "full":
        chosen = cases
    else:
        raise UsageError(f"no selection {selection!r}; choose from quick, default, full")
    return [case if memory or case.axis else replace(case, memory=False) for case in chosen]


def live_case(target: str, *, memory: bool = False) -> BenchCase:
    """A person's own live port, as a case."""
    return BenchCase(f"gradient/{target}", "gradient", memory=memory, target=target)
