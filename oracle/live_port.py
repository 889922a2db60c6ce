"""A live port: a person's own TensorFlow model, compared by its mirror.

A module of theirs has a function without arguments that makes a `LivePort`: the model's objects, a batch,
the loss as TensorFlow computes it and, where the model has a call of its own, the same loss composed of the
mirror's pieces in JAX. `oracle compare my_port.py:build` runs both sides and compares them as it compares
the models that come with the project.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import msgspec
import numpy as np

from oracle.case import Dtype, check_seed, choose_dtypes
from oracle.compare import Comparison, compare_records
from oracle.errors import CaseError, RecordError, UsageError
from oracle.explanation import Explanation
from oracle.frameworks import import_tensorflow
from oracle.judgement import Judgement, WitnessWhen
from oracle.localisation import Localisation
from oracle.record import Record, read_record, write_record
from oracle.storage import write_bytes
from oracle.tolerance import FLOAT32_RUNS, FLOAT64_RUNS
from oracle.user_code import load_factory

if TYPE_CHECKING:
    from oracle.bridge.mirror.run_port_side import PortRun

MODES = ("eager", "function", "xla")
"""How TensorFlow can run a live port."""


@dataclass(frozen=True)
class LivePort:
    """What a person's module gives to the comparison.

    Args:
        models: the live objects by name: Keras layers and models, decoders of tfa, cells, modules. Between
            them they hold every weight that the loss reads.
        batch: NumPy arrays by name. Floating-point arrays are cast to the precision of the run.
        loss: `loss(batch)` of TensorFlow tensors, which gives the scalar loss, or the pair of it and a
            dictionary of named outputs to compare too. Or a loss of Keras, for a single model that is
            called on `batch["x"]` and held to `batch["y"]` (with `batch["sample_weight"]`, if it is there).
        reference: `reference(mirror, params, batch)` gives the same in JAX, composed of the mirror's pieces:
            `mirror.encoder.apply(batch["source"], params=params["encoder"])`. None where the loss is Keras'.
        name: what to call the port in the report.
        weights: `random` to draw every weight anew for the comparison, normal numbers by which nothing
            vanishes, or `own` for the model's as they are. A model as Keras makes it has biases of zero and
            small embeddings, by which some gradients are mostly rounding and some faults do not show.
        gradients: the person's own train step as far as the optimizer: `gradients(batch)` gives the pair of
            the loss and of pairs (gradient, variable), as `optimizer.apply_gradients` takes them. What a
            comparison and a diagnosis judge is then this function with its own tape. Without it, `loss` is
            differentiated under a tape of ours, which sees no fault of the person's. It must not change the
            weights.

    Raises:
        CaseError: if there is no model, or the batch is empty or not finite.
    """

    models: Mapping[str, Any]
    batch: Mapping[str, np.ndarray]
    loss: Any
    reference: Callable[[Any, Any, Mapping[str, Any]], Any] | None = None
    name: str = "live"
    weights: Literal["random", "own"] = "random"
    gradients: Callable[[Mapping[str, Any]], tuple[Any, Iterable[tuple[Any, Any]]]] | None = None

    def __post_init__(self) -> None:
        if not self.models or not all(isinstance(name, str) and name.isidentifier() for name in self.models):
            raise CaseError(
                f"{self.name}: models are live objects by name ({{'encoder': ...}}), at least one"
            )
        if not self.batch:
            raise CaseError(f"{self.name}: the batch is empty; give NumPy arrays by name")
        if not callable(self.loss):
            raise CaseError(
                f"{self.name}: the loss is a {type(self.loss).__name__}; give a function of the batch"
            )
        if self.gradients is not None and not callable(self.gradients):
            raise CaseError(
                f"{self.name}: gradients is a {type(self.gradients).__name__}; give a function of the batch"
            )
        if self.weights not in ("own", "random"):
            raise CaseError(f"{self.name}: weights is {self.weights!r}; give 'own' or 'random'")
        arrays = {name: np.asarray(array) for name, array in self.batch.items()}
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub" or array.size == 0:
                raise CaseError(
                    f"{self.name}: batch[{name!r}] is {array.dtype} {list(array.shape)}; give numbers, "
                    "at least one"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise CaseError(
                    f"{self.name}: batch[{name!r}] is not finite, so no gradient of it means anything"
                )
        object.__setattr__(self, "batch", arrays)


Build = Callable[[], LivePort]

Recorder = Callable[..., "LiveRecords"]
"""What makes and runs a live port: `record_live` here, or `oracle.runner.LiveProcess.record`."""


@dataclass(frozen=True)
class LiveRecords:
    """What both sides computed.

    Args:
        port: the port's record.
        oracle: the oracle's.
        yardstick: in float32, the oracle's in float32.
        spread: where something differs, the oracle's under roundings, in float32 with sums in sequence.
        witness: who is wrong, if the witness was asked.
        localisation: where the port leaves the oracle, if that was asked.
        explanation: why it does, if that was asked.
    """

    port: Record
    oracle: Record
    yardstick: tuple[Record, ...] = ()
    spread: tuple[Record, ...] = ()
    witness: Judgement | None = None
    localisation: Localisation | None = None
    explanation: Explanation | None = None

    def compare(self) -> Comparison:
        """Hold them against each other."""
        comparison = compare_records(self.port, self.oracle, yardstick=self.yardstick, spread=self.spread)
        return msgspec.structs.replace(
            comparison,
            witness=self.witness,
            localisation=self.localisation,
            explanation=self.explanation,
        )


def compare_live(
    target: str | Build,
    *,
    dtype: Dtype = "float64",
    mode: str | None = None,
    seed: int = 0,
    witness: WitnessWhen = "never",
    localise: bool = False,
    explain: bool = False,
) -> Comparison:
    """Make, mirror, run and compare a live port.

    Args:
        target: `package.module:function` or `path/to/file.py:function`, or the function itself.
        dtype: the precision of the port, `tf.keras.backend.floatx` while it is made and run.
        mode: how TensorFlow runs it: `eager` (the default), `function` or `xla`.
        seed: of every random choice of TensorFlow and NumPy, and so of the initial weights.
        witness: when to find out who is wrong. A float64 comparison only.
        localise: whether to find out where a port that does not match leaves the oracle; in float64 only.
        explain: whether to find out why; in float64 only.

    Raises:
        UsageError: if there is no such function or mode, or it or the reference raises.
        CaseError: if what it gives cannot be run.
        MirrorError: if a part of the model has no counterpart, or the loss reads a weight of no model.
    """
    questions: dict[str, Any] = {"witness": witness, "localise": localise, "explain": explain}
    return record_live(target, dtype=dtype, mode=mode, seed=seed, **questions).compare()


def check_live(
    targets: Iterable[str],
    *,
    precision: Literal["f64", "f32", "both"] = "f64",
    mode: str | None = None,
    seed: int = 0,
    witness: WitnessWhen = "on-finding",
    localise: bool = False,
    explain: bool = False,
    record: Recorder | None = None,
    on_done: Callable[[str], None] = lambda _: None,
) -> Iterator[Comparison]:
    """Compare live ports one after the other, each in every precision asked for.

    Args:
        targets: as `compare_live` takes them, by name.
        precision: what the ports compute in.
        mode: how TensorFlow runs them.
        seed: of every random choice.
        witness: when to find out who is wrong.
        localise: whether to find out where a port that does not match leaves the oracle; in float64 only.
        explain: whether to find out why; in float64 only.
        record: what makes and runs a port; by default `record_live`, in this process.
        on_done: called with a line for people when something is done.

    Raises:
        OracleError: as `compare_live`.
    """
    check_seed(seed)
    record = record or record_live
    dtypes = choose_dtypes(precision)
    options: dict[str, Any] = {"mode": mode, "seed": seed, "witness": witness}
    options |= {name: True for name, asked in (("localise", localise), ("explain", explain)) if asked}
    for target in targets:
        for dtype in dtypes:
            comparison = record(target, dtype=dtype, **options).compare()
            on_done(f"{target} in {dtype}")
            yield comparison


def record_live(
    target: str | Build,
    *,
    dtype: Dtype = "float64",
    mode: str | None = None,
    seed: int = 0,
    witness: WitnessWhen = "never",
    localise: bool = False,
    explain: bool = False,
) -> LiveRecords:
    """As `compare_live`, but give the records of both sides."""
    from oracle.bridge.mirror.run_oracle_side import run_oracle_side
    from oracle.bridge.mirror.run_port_side import use_precision

    port, run = run_live(target, dtype=dtype, mode=mode, seed=seed)
    (truth,) = run_oracle_side(port, run, dtype="float64")
    yardstick = ()
    if dtype == "float32":
        yardstick = run_oracle_side(port, run, dtype="float32", jitters=range(FLOAT32_RUNS))
    records = LiveRecords(run.record, truth, yardstick)
    if records.compare().wants_more_runs:
        records = _add_runs(records, port, run, dtype)
    if dtype != "float64":
        return records
    comparison = records.compare()
    found = bool(comparison.rows) and comparison.failure is None and not comparison.matches
    with use_precision(dtype, seed):
        if comparison.wants_witness(witness):
            from oracle.bridge.mirror.hear_live import hear_live

            judgement = hear_live(port, run, truth, comparison, seed=seed)
            records = replace(records, witness=judgement)
        if found and localise:
            from oracle.bridge.mirror.localise_live import localise_live

            records = replace(records, localisation=localise_live(port, run, truth))
        if found and explain:
            from oracle.bridge.mirror.explain_live import explain_live

            records = replace(records, explanation=explain_live(port, run, truth))
    return records


def _add_runs(records: LiveRecords, port: LivePort, run: PortRun, dtype: Dtype) -> LiveRecords:
    """The records with the oracle's spread, which `oracle.compare.compare_closely` would ask for."""
    from oracle.bridge.mirror.run_oracle_side import run_oracle_side

    if dtype == "float64":
        further = run_oracle_side(port, run, dtype=dtype, jitters=range(1, FLOAT64_RUNS + 1))
    else:
        further = run_oracle_side(port, run, dtype=dtype, jitters=range(FLOAT32_RUNS), sums_in_sequence=True)
    return replace(records, spread=further)


def run_live(target: str | Build, *, dtype: Dtype, mode: str | None, seed: int) -> tuple[LivePort, PortRun]:
    """Make a live port and run the port's side alone. The arguments are those of `compare_live`.

    Raises:
        OracleError: as `compare_live`.
    """
    from oracle.bridge.mirror.run_port_side import run_port_side, use_precision

    mode = mode or "eager"
    if mode not in MODES:
        raise UsageError(f"a live port cannot run in mode {mode!r}; it can in {', '.join(MODES)}")
    if dtype not in ("float64", "float32"):
        raise UsageError(f"a live port cannot run in {dtype!r}; it can in float64 and float32")
    # Before the port's module imports it, so that it starts quietly.
    import_tensorflow()
    build, name = (load_build(target), target) if isinstance(target, str) else (target, "")
    with use_precision(dtype, seed):
        port = call_build(build, name)
        if name and port.name == "live":
            port = replace(port, name=name)
        run = run_port_side(port, dtype=dtype, mode=mode, seed=seed)
    return port, run


def write_records(records: LiveRecords, folder: str | os.PathLike[str]) -> None:
    """Write each record to a file of its own in a folder.

    Raises:
        RecordError: if the folder cannot be written.
    """
    write_record(records.port, Path(folder) / _PORT)
    write_record(records.oracle, Path(folder) / _ORACLE)
    for number, run in enumerate(records.spread):
        write_record(run, Path(folder) / _SPREAD.format(number))
    for number, run in enumerate(records.yardstick):
        write_record(run, Path(folder) / _YARDSTICK.format(number))
    answers = {_WITNESS: records.witness, _WHERE: records.localisation, _WHY: records.explanation}
    for name, answer in answers.items():
        if answer is not None:
            # JSON has no infinity, which an error can be.
            encode = msgspec.json.encode if name == _WITNESS else msgspec.msgpack.encode
            write_bytes(Path(folder) / name, encode(answer))


def read_records(folder: str | os.PathLike[str]) -> LiveRecords:
    """Read what `write_records` wrote.

    Raises:
        RecordError: if a file is absent or damaged.
    """
    folder = Path(folder)
    return LiveRecords(
        read_record(folder / _PORT),
        read_record(folder / _ORACLE),
        _read_runs(folder, _YARDSTICK),
        _read_runs(folder, _SPREAD),
        _read_answer(folder / _WITNESS, Judgement, "what the witness said"),
        _read_answer(folder / _WHERE, Localisation, "where a port leaves the oracle"),
        _read_answer(folder / _WHY, Explanation, "why a port leaves the oracle"),
    )


_PORT, _ORACLE, _YARDSTICK = "port.safetensors", "oracle.safetensors", "yardstick-{}.safetensors"
_SPREAD = "spread-{}.safetensors"
_WITNESS, _WHERE, _WHY = "witness.json", "localisation.msgpack", "explanation.msgpack"

Answer = TypeVar("Answer")


def _read_runs(folder: Path, name: str) -> tuple[Record, ...]:
    count = len(list(folder.glob(name.format("*"))))
    return tuple(read_record(folder / name.format(number)) for number in range(count))


def _read_answer(path: Path, kind: type[Answer], what: str) -> Answer | None:
    if not path.is_file():
        return None
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.msgpack.decode
    try:
        return decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise RecordError(f"{path}: not {what}: {error}; record it anew") from error


def load_build(target: str) -> Build:
    """Import the function that a target names, with the target's arguments.

    Raises:
        UsageError: if there is no such module, file or function, or importing it raises.
    """
    return cast("Build", load_factory(target))


def call_build(build: Build, name: str) -> LivePort:
    """Make the port.

    Raises:
        CaseError: if the port cannot be run.
        UsageError: if making it raises, or it is no `LivePort`.
    """
    try:
        port = build()
    except CaseError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name or 'the port'}: making it raised {type(error).__name__}: {error}") from error
    if not isinstance(port, LivePort):
        raise UsageError(f"{name or 'the port'}: gave a {type(port).__name__}; expected an oracle.LivePort")
    return port


def split_outputs(result: Any, where: str) -> tuple[Any, dict[str, Any]]:
    """A loss, or a pair of a loss and named outputs, as a pair.

    Raises:
        UsageError: if it is neither.
    """
    loss, outputs = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(outputs, Mapping) or tuple(np.shape(loss)) != ():
        raise UsageError(
            f"{where}: gives a {type(result).__name__}; expected a scalar, or (scalar, outputs by name)"
        )
    return loss, dict(outputs)


def split_gradients(result: Any, where: str) -> tuple[Any, list[tuple[Any, Any]]]:
    """What a port's own `gradients` gives, as a loss and pairs (gradient, variable).

    Raises:
        UsageError: if it gives something else.
    """
    try:
        loss, pairs = result
        pairs = [(gradient, variable) for gradient, variable in pairs]
    except (TypeError, ValueError):
        raise UsageError(
            f"{where}: gradients gives a {type(result).__name__}; expected the loss and pairs of gradient "
            "and variable, as in (loss, zip(gradients, variables))"
        ) from None
    if tuple(np.shape(loss)) != ():
        raise UsageError(f"{where}: the loss of gradients has shape {np.shape(loss)}; expected a scalar")
    if strange := [variable for _, variable in pairs if not hasattr(variable, "assign")]:
        raise UsageError(
            f"{where}: gradients pairs a gradient with a {type(strange[0]).__name__}; expected a tf.Variable"
        )
    return loss, pairs
