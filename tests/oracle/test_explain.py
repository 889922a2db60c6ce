"""The search for causes, on records of the oracle with faults turned on, and of real ports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracle.case import Case, cast_case, weight_shapes
from oracle.causes import CAUSES
from oracle.causes.cause import Cause
from oracle.causes.checking import check_cause, differs, make_port
from oracle.errors import RecordError, UsageError
from oracle.explain import explain_record
from oracle.explanation import Explanation
from oracle.record import Record, record_port, write_record
from oracle.steps.counterfactual import Evaluator
from tests.oracle.cases import small_case

pytestmark = pytest.mark.jax

PORTS = (
    ("dynamic_rnn/lengths", 0),
    ("explicit_state/full", 1),
    ("attention_nmt/gru", 2),
    ("attention_nmt/stacked", 3),
)

Tensor = np.ndarray | None


class Bench:
    """A case, the oracle's record of it, and what turns its knobs."""

    def __init__(self, port: str, seed: int) -> None:
        from oracle.run_jax import run_oracle

        self.case: Case = small_case(port, seed=seed)
        self.weights, self.batch = cast_case(self.case, "float64")
        self.evaluator = Evaluator(self.case.spec, self.weights, self.batch)
        self.truth = run_oracle(self.case, model=port)
        self.tensors = {name: np.asarray(tensor) for name, tensor in self.truth.tensors.items()}
        self.gradients = [f"gradient/{path}" for path in weight_shapes(self.case.spec)]

    def explain(self, tensors: Mapping[str, Any] | Record) -> Explanation:
        port = tensors if isinstance(tensors, Record) else record_port(self.case, tensors, model="a port")
        return explain_record(port, self.truth, self.evaluator)

    def change(self, change: Any, names: list[str] | None = None) -> dict[str, Tensor]:
        chosen = self.gradients if names is None else names
        return {
            name: change(name, tensor) if name in chosen else tensor for name, tensor in self.tensors.items()
        }

    def norm(self) -> float:
        return float(np.sqrt(sum(np.sum(np.square(self.tensors[name])) for name in self.gradients)))


@pytest.fixture(scope="module", params=PORTS, ids=[port for port, _ in PORTS])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(*request.param)


@pytest.fixture(scope="module")
def small() -> Bench:
    return Bench("dynamic_rnn/lengths", 0)


def turning(bench: Bench) -> list[Cause]:
    return [
        one
        for _, one in sorted(CAUSES.items())
        if one.kind == "turns" and one.applies(bench.case.spec, bench.batch)
    ]


@pytest.mark.slow
def test_every_cause_that_turns_knobs_explains_its_own_port(bench: Bench) -> None:
    generator = np.random.default_rng(bench.case.seed)
    for one in turning(bench):
        settings = list(one.propose(bench.evaluator.neutral, bench.case.spec, bench.batch))
        # Of a stack each explanation takes seconds.
        count = 1 if getattr(bench.case.spec, "layers", 1) > 1 else 2
        for index in sorted(set(generator.integers(0, len(settings), count))):
            port = make_port(bench.case, settings[index])
            if not differs(port, bench.truth):
                continue
            explanation = bench.explain(port)
            assert explanation.best is not None, (one.code, settings[index].name)
            assert explanation.kind == "explained", (one.code, settings[index].name)
            assert explanation.best.codes == (one.code,), (one.code, settings[index].name)
            assert explanation.best.distance < 1e-12
            assert one.advise(settings[index]) in explanation.lines


@pytest.mark.slow
def test_pairs_are_found(bench: Bench) -> None:
    generator = np.random.default_rng(bench.case.seed)
    # A second cause would take the place of the first, not come to it, within one of these groups.
    causes = [one for one in turning(bench) if one.code not in ("C608", "C305")]
    found, made = 0, 0
    while made < 10:
        first, second = (causes[i] for i in generator.choice(len(causes), 2, replace=False))
        if first.code[:2] == second.code[:2]:
            continue
        parts, knobs = [], bench.evaluator.neutral
        for one in (first, second):
            settings = list(one.propose(knobs, bench.case.spec, bench.batch))
            parts.append(settings[int(generator.integers(len(settings)))])
            knobs = parts[-1].knobs
        explanation = bench.explain(make_port(bench.case, parts[-1]))
        made += 1
        assert explanation.kind == "explained", (first.code, second.code)
        assert explanation.best is not None
        found += set(explanation.best.codes) == {first.code, second.code}
    assert found >= 8


def test_random_noise_is_not_explained(bench: Bench) -> None:
    generator = np.random.default_rng(0)
    for size in (1e-2, 1e-9):
        noise = {n: t * (1 + size * generator.standard_normal(t.shape)) for n, t in bench.tensors.items()}
        explanation = bench.explain(noise)
        assert explanation.kind == "unexplained"
        assert (
            f"Nothing in the catalogue of {sum(cause.kind != 'trains' for cause in CAUSES.values())} causes explains it"
            in explanation.lines[0]
        )
        assert explanation.tried > 50


def test_one_element_that_is_wrong_is_not_explained(small: Bench) -> None:
    name = "gradient/decoder/cell/kernel"
    wrong = small.tensors[name].copy()
    wrong[1, 3] *= 1 + 1e-6
    assert small.explain({**small.tensors, name: wrong}).kind == "unexplained"


def test_one_number_that_is_wrong_is_no_clipping(bench: Bench) -> None:
    """One that is too small could always have been clipped to what it is."""
    largest = max(bench.gradients, key=lambda name: float(np.abs(bench.tensors[name]).max()))
    wrong = bench.tensors[largest].copy()
    wrong.flat[np.abs(wrong).argmax()] *= 1 - 1e-6
    assert bench.explain({**bench.tensors, largest: wrong}).kind == "unexplained"
    longest = max(bench.gradients, key=lambda name: float(np.linalg.norm(bench.tensors[name])))
    shrunk = bench.change(lambda name, g: 0.9531 * g, [longest])
    assert bench.explain(shrunk).kind == "unexplained"


def test_an_output_that_is_zero_is_no_dropout(small: Bench) -> None:
    keep = np.ones_like(small.evaluator.neutral.cells["encoder/cell"].keep)
    keep[0, 0, 0] = 0.0
    cell = small.evaluator.neutral.cells["encoder/cell"]._replace(keep=keep)
    cells = {**small.evaluator.neutral.cells, "encoder/cell": cell}
    (tensors,) = small.evaluator.evaluate([small.evaluator.neutral._replace(cells=cells)])
    assert small.explain(tensors).kind == "unexplained"


@pytest.mark.parametrize("broken", [np.nan, np.inf, "shape"])
def test_gradients_that_cannot_be_compared_are_not_explained(bench: Bench, broken: Any) -> None:
    """Of weights, and of inputs and states."""
    for names in (bench.gradients, [name for name in bench.tensors if name.startswith("gradient/")]):
        if broken == "shape":
            wrong = bench.change(lambda name, g: np.concatenate([np.atleast_1d(g)] * 2), names)
        else:
            wrong = bench.change(lambda name, g: np.where(g == g.max(), broken, g), names[-1:])
        explanation = bench.explain(wrong)
        assert explanation.kind == "unexplained"
        assert "inf" not in " ".join(explanation.lines)


def test_one_number_alone_is_not_explained_by_one_that_is_fitted(bench: Bench) -> None:
    for factor in (1.37, 1 + 1e-7):
        assert bench.explain({"loss": bench.tensors["loss"] * factor}).kind == "unexplained"


def test_without_the_loss_a_factor_on_it_is_one_on_the_gradients(small: Bench) -> None:
    gradients = {name: 2 * t for name, t in small.tensors.items() if name.startswith("gradient/")}
    said = " ".join(small.explain(gradients).lines)
    assert "summed over the features" in said
    assert "cannot be told from" in said
    assert "it is accumulated 2 times" in said


def test_a_port_that_matches_has_nothing_to_explain(bench: Bench) -> None:
    explanation = bench.explain(bench.tensors)
    assert (explanation.kind, explanation.best, explanation.tried) == ("unexplained", None, 0)
    assert "nothing to explain" in explanation.lines[0]


def expect(bench: Bench, tensors: Mapping[str, Any], code: str, **settings: float) -> Explanation:
    explanation = bench.explain(tensors)
    assert explanation.kind == "explained"
    assert explanation.best is not None
    assert explanation.best.codes == (code,)
    for name, value in settings.items():
        assert explanation.best.settings[name] == pytest.approx(value, rel=1e-9)
    return explanation


def test_scales_of_gradients_are_found(bench: Bench) -> None:
    adjoints = [name for name in bench.tensors if name.startswith("gradient/")]
    expect(bench, bench.change(lambda name, g: 3 * g), "C611", times=3)
    expect(bench, bench.change(lambda name, g: 2 * g, adjoints), "C611", times=2)
    expect(bench, bench.change(lambda name, g: g / 4), "C612", parts=4)
    expect(bench, bench.change(lambda name, g: -g), "C617", scale=-1)
    expect(bench, bench.change(lambda name, g: 1.37 * g, [*adjoints, "loss"]), "C616", scale=1.37)


def test_clipping_is_found(bench: Bench) -> None:
    norm = bench.norm()
    largest = max(float(np.abs(bench.tensors[name]).max()) for name in bench.gradients)
    expect(bench, bench.change(lambda name, g: 0.37 * g), "C613", norm=0.37 * norm, whole=norm)
    expect(bench, bench.change(lambda name, g: g * (0.25 / norm)), "C613", norm=0.25)
    expect(
        bench, bench.change(lambda name, g: np.clip(g, -largest / 2, largest / 2)), "C614", clip=largest / 2
    )
    own = 0.9 * sorted(float(np.linalg.norm(bench.tensors[name])) for name in bench.gradients)[-2]
    clipped = bench.change(lambda name, g: g * min(1.0, own / float(np.linalg.norm(g))))
    expect(bench, clipped, "C615", norm=own)


def test_regularisation_is_found_with_its_rate_and_whether_the_loss_holds_it(bench: Bench) -> None:
    weights = bench.weights
    kernels = [name for name in bench.gradients if name.endswith(("kernel", "embedding"))]
    every = bench.change(lambda name, g: g + 0.01 * weights[name.removeprefix("gradient/")])
    assert "does not hold it" in expect(bench, every, "C621", rate=0.01).lines[0]
    squares = sum(float(np.sum(np.square(array))) for array in weights.values())
    every["loss"] = bench.tensors["loss"] + 0.005 * squares
    assert "all weights" in (said := expect(bench, every, "C621", rate=0.01).lines[0])
    assert "does not hold" not in said
    some = bench.change(lambda name, g: g + 0.02 * weights[name.removeprefix("gradient/")], kernels)
    assert "all kernels" in expect(bench, some, "C621", rate=0.02).lines[0]
    signs = bench.change(lambda name, g: g + 0.02 * np.sign(weights[name.removeprefix("gradient/")]), kernels)
    expect(bench, signs, "C622", rate=0.02)


def test_regularisation_of_a_bias_that_holds_the_forget_bias_is_found(small: Bench) -> None:
    def term(name: str) -> np.ndarray:
        array = small.weights[name.removeprefix("gradient/")].copy()
        if name.endswith("cell/bias"):
            array[5:10] += 1.0
        return array

    expect(small, small.change(lambda name, g: g + 0.01 * term(name)), "C621", rate=0.01)


def test_lost_gradients_are_named(bench: Bench) -> None:
    name = bench.gradients[1]
    none = expect(bench, {**bench.tensors, name: None}, "C631")
    assert f"{name.removeprefix('gradient/')} is None" in none.lines[0]
    zero = expect(bench, {**bench.tensors, name: np.zeros_like(bench.tensors[name])}, "C631")
    assert f"{name.removeprefix('gradient/')} is zero" in zero.lines[0]


def test_exchanged_and_reordered_gradients_are_found(bench: Bench) -> None:
    shapes: dict[tuple[int, ...], str] = {}
    for name in bench.gradients:
        other = shapes.setdefault(bench.tensors[name].shape, name)
        if other != name:
            swapped = {**bench.tensors, name: bench.tensors[other], other: bench.tensors[name]}
            expect(bench, swapped, "C632")
            break
    name = next(name for name in bench.gradients if name.endswith("cell/kernel") or "/cells_0/kernel" in name)
    blocks = np.split(bench.tensors[name], 4 if bench.tensors[name].shape[1] % 4 == 0 else 3, axis=1)
    blocks[1], blocks[2] = blocks[2], blocks[1]
    expect(bench, {**bench.tensors, name: np.concatenate(blocks, axis=1)}, "C633")


def test_rows_of_an_embedding_that_are_not_summed_are_found() -> None:
    bench = Bench("attention_nmt/gru", 2)
    name = "gradient/encoder/embedding/embedding"
    table = np.zeros_like(bench.tensors[name])
    adjoint = bench.tensors["gradient/embedded/source"]
    for row, ids in enumerate(bench.batch["source"]):
        for step, token in enumerate(ids):
            table[token] = adjoint[row, step]
    assert "only the last one counts" in expect(bench, {**bench.tensors, name: table}, "C634").lines[0]


def test_label_smoothing_is_inferred() -> None:
    bench = Bench("attention_nmt/gru", 2)
    knobs = bench.evaluator.neutral._replace(label_smoothing=np.float64(0.123))
    (tensors,) = bench.evaluator.evaluate([knobs])
    expect(bench, tensors, "C522", smoothing=0.123)


@pytest.mark.parametrize("shared", [False, True])
def test_dropout_is_read_off_the_outputs(bench: Bench, shared: bool) -> None:
    generator = np.random.default_rng(1)
    knobs = bench.evaluator.neutral
    top = [path for path in knobs.cells if path.startswith("encoder/")][-2:]
    cells = dict(knobs.cells)
    for path in top if len(top) == 2 else ["encoder/cell", "decoder/cell"]:
        mask = (generator.random(cells[path].keep.shape) < 0.7) / 0.7
        mask = np.broadcast_to(mask[:, :1], mask.shape).copy() if shared else mask
        cells[path] = cells[path]._replace(keep=mask)
    (tensors,) = bench.evaluator.evaluate([knobs._replace(cells=cells)])
    expect(bench, tensors, "C702" if shared else "C701", kept=0.7)


def test_a_cause_and_what_is_done_to_its_gradients_are_found_together(small: Bench) -> None:
    knobs = small.evaluator.neutral
    (zeros,) = small.evaluator.evaluate([knobs._replace(handoff=np.zeros_like(knobs.handoff))])
    gone = {f"gradient/{path}" for path in small.weights if path.startswith("encoder/")}
    tripled = {name: 3 * t if name in small.gradients else t for name, t in zeros.items()}
    explanation = small.explain({name: None if name in gone else t for name, t in tripled.items()})
    assert explanation.best is not None
    assert (explanation.kind, explanation.best.codes) == ("explained", ("C101", "C611"))
    assert "starts from zeros" in explanation.lines[0]
    assert "3 times what it should be" in explanation.lines[0]


def test_tensors_that_the_port_lacks_are_not_compared(small: Bench) -> None:
    setting = next(CAUSES["C102"].propose(small.evaluator.neutral, small.case.spec, small.batch))
    port = make_port(small.case, setting)
    few = {name: port.tensors[name] for name in ("loss", "gradient/encoder/cell/kernel")}
    expect(small, few, "C102")
    with pytest.raises(RecordError, match="gives no tensor that the oracle has"):
        small.explain({"output/mine": np.zeros(3)})


def test_a_wrong_shape_cannot_agree(small: Bench) -> None:
    explanation = small.explain({**small.tensors, "loss": np.zeros(3)})
    assert explanation.kind == "unexplained"


def test_a_port_in_float32_is_explained_by_the_measured_noise(small: Bench) -> None:
    setting = next(CAUSES["C105"].propose(small.evaluator.neutral, small.case.spec, small.batch))
    (tensors,) = Evaluator(small.case.spec, small.weights, small.batch, dtype="float32").evaluate(
        [setting.knobs]
    )
    explanation = expect(small, tensors, "C105")
    assert "within the roundings of float32" in explanation.lines[0]
    small_fault = {n: t * np.float32(1 + 1e-3) if n == "loss" else t for n, t in tensors.items()}
    assert small.explain(small_fault).kind == "unexplained"


def test_what_cannot_be_explained_is_refused(small: Bench) -> None:
    port = record_port(small.case, small.tensors, model="a port")
    with pytest.raises(RecordError, match="holds no weights or no batch"):
        small.explain(Record(port.spec, port.origin, port.tensors))


def test_an_oracle_of_other_weights_is_refused(small: Bench) -> None:
    other = Bench("dynamic_rnn/lengths", 7)
    with pytest.raises(RecordError, match="of these weights and this batch"):
        explain_record(record_port(small.case, small.tensors, model="a port"), small.truth, other.evaluator)


def test_a_cause_is_checked_by_one_call(small: Bench) -> None:
    explanations = check_cause("C202", small.case)
    assert [one.kind for one in explanations] == ["explained"] * 3
    with pytest.raises(AssertionError, match="does not apply"):
        check_cause("C406", small.case)


def test_the_command_explains_a_record_and_codes(
    small: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from oracle.commands.explain import explain

    setting = next(CAUSES["C102"].propose(small.evaluator.neutral, small.case.spec, small.batch))
    write_record(make_port(small.case, setting), tmp_path / "port.safetensors")
    assert explain(str(tmp_path / "port.safetensors")) == 1
    printed = capsys.readouterr().out
    assert "FAIL a port with a fault" in printed
    assert "the encoder's h and c are exchanged" in printed
    assert "C102" in printed
    assert explain(str(tmp_path / "port.safetensors"), output_format="json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["explanation"]["best"]["codes"] == ["C102"]

    write_record(record_port(small.case, small.tensors, model="a port"), tmp_path / "right.safetensors")
    assert explain(str(tmp_path / "right.safetensors")) == 0
    assert "PASS" in capsys.readouterr().out

    assert explain("C101") == 0
    assert capsys.readouterr().out.startswith("# C101: the decoder starts from zeros")
    assert explain("G021") == 0
    assert capsys.readouterr().out.startswith("# G021")
    assert explain() == 0
    assert "C101  the decoder starts from zeros" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no such cause"):
        explain("C999")


@pytest.mark.parametrize("bits, code", [(7, "C711"), (10, "C712"), (23, "C714")])
def test_errors_of_a_coarser_arithmetic_are_known_by_their_size(bench: Bench, bits: int, code: str) -> None:
    dtype = "float32" if bits == 23 else "float64"
    # Other roundings than the search's own: each weight is moved by one of its own.
    generator = np.random.default_rng(0)

    def round_at_random(array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f" or bits == 23:
            return array
        return array * (1 + 2.0 ** -(bits + 1) * generator.uniform(-1, 1, array.shape))

    weights = {path: round_at_random(array) for path, array in bench.weights.items()}
    batch = {name: round_at_random(array) for name, array in bench.batch.items()}
    evaluator = Evaluator(bench.case.spec, weights, batch, dtype=dtype)
    (tensors,) = evaluator.evaluate([bench.evaluator.neutral])
    explanation = bench.explain({name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()})
    assert explanation.kind == "precision"
    assert explanation.best is not None
    assert code in {explanation.best.codes[0], *(other.codes[0] for other in explanation.others)}


def test_a_factor_is_no_precision(small: Bench) -> None:
    wrong = {name: tensor * (1 + 2.0**-9) for name, tensor in small.tensors.items()}
    assert small.explain(wrong).kind == "unexplained"


VARIANTS = {
    "outside_tape": ("C601", "tf.GradientTape"),
    "state_discarded": ("C101", "return_state=True"),
    "initial_state_none": ("C101", "initial_state=encoder_state"),
    "initial_state_zeros": ("C101", "initial_state=encoder_state"),
    "zeros_silenced": ("C101", "initial_state=encoder_state"),
    "exchanged": ("C102", "[h, c]"),
}


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_wrong_conversions_are_explained(variant: str, dtype: Any) -> None:
    from oracle.run_jax import run_oracle
    from oracle.run_tf import run_port

    case = small_case(f"implicit_state/{variant}")
    weights, batch = cast_case(case, "float64")
    port = run_port(case, model=f"implicit_state/{variant}", mode="eager", dtype=dtype)
    truth = run_oracle(case, model=port.origin.model)
    evaluator = Evaluator(case.spec, weights, batch)
    explanation = explain_record(port, truth, evaluator, weights=weights, batch=batch)
    code, remedy = VARIANTS[variant]
    assert explanation.best is not None
    assert (explanation.kind, explanation.best.codes) == ("explained", (code,))
    assert remedy in explanation.best.remedy
    said = " ".join(explanation.lines)
    assert ("return_state=False" in said) == (variant == "state_discarded")
    assert ("unconnected_gradients" in said) == (variant == "zeros_silenced")
    if variant not in ("exchanged", "zeros_silenced"):
        assert "they are None" in said
