"""With neutral knobs the counterfactual oracle is the oracle; every knob that means something moves it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from oracle.errors import UsageError
from oracle.knobs import AttentionKnobs, CellKnobs, Knobs
from oracle.run_jax import run_oracle
from oracle.spec import AttentionNMT, EncoderDecoder, Spec
from oracle.tolerance import FLOAT64_BOUND
from tests.oracle.steps.counterfactual_cases import (
    SEQUENCES,
    TRANSLATORS,
    build,
    draw_case,
    errors,
    evaluate,
    relative,
)

pytestmark = pytest.mark.jax

ALL = SEQUENCES | TRANSLATORS


@pytest.mark.parametrize("name", ALL)
def test_neutral_knobs_give_the_oracles_record(name: str) -> None:
    case = draw_case(ALL[name])
    evaluator = build(case)
    tensors = evaluate(evaluator, evaluator.neutral)
    record = run_oracle(case, model="any").tensors
    assert list(tensors) == list(record)
    assert {n: (t.shape, t.dtype) for n, t in tensors.items()} == {
        n: (t.shape, t.dtype) for n, t in record.items()
    }
    assert {n: e for n, e in errors(tensors, record).items() if e > FLOAT64_BOUND} == {}


@pytest.mark.parametrize("handoff", ["stopped", "zeros", "exchanged"])
def test_handoffs_are_settings_of_knobs(handoff: str) -> None:
    right = SEQUENCES["lengths-given-projection"]
    case = draw_case(right)
    evaluator = build(case)
    neutral = evaluator.neutral
    knobs = {
        "stopped": neutral._replace(passes={**neutral.passes, "handoff": np.float64(0)}),
        "zeros": neutral._replace(handoff=np.zeros((2, 2))),
        "exchanged": neutral._replace(handoff=np.eye(2)[::-1]),
    }[handoff]
    wrong = draw_case(msgspec.structs.replace(right, handoff=handoff))
    record = run_oracle(wrong, model="any").tensors
    assert max(errors(evaluate(evaluator, knobs), record).values()) < FLOAT64_BOUND
    other = build(wrong)
    assert max(errors(evaluate(other, other.neutral), record).values()) < FLOAT64_BOUND


def test_float32_is_computed_in_float32() -> None:
    case = draw_case(SEQUENCES["lengths-given-projection"])
    evaluator = build(case, dtype="float32")
    tensors = evaluate(evaluator, evaluator.neutral)
    record = run_oracle(case, model="any", dtype="float32").tensors
    truth = run_oracle(case, model="any").tensors
    assert {t.dtype for t in tensors.values()} == {np.dtype(np.float32)}
    noise = max(errors(record, truth).values())
    assert 0 < max(errors(tensors, truth).values()) < 8 * noise


def test_the_precision_of_jax_is_left_alone_between_two_settings() -> None:
    import jax.numpy as jnp

    evaluator = build(draw_case(SEQUENCES["full-implicit-bare"]))
    results = evaluator.evaluate([evaluator.neutral] * 2)
    next(results)
    assert jnp.asarray(np.zeros(1)).dtype == np.float32
    next(results)


def test_a_knob_of_another_shape_is_refused() -> None:
    evaluator = build(draw_case(SEQUENCES["full-implicit-bare"]))
    with pytest.raises(UsageError, match=r"a knob is \[3, 3\], where the neutral one is \[2, 2\]"):
        evaluate(evaluator, evaluator.neutral._replace(handoff=np.eye(3)))


def turn_cell(knobs: CellKnobs) -> Iterator[tuple[str, CellKnobs]]:
    time = knobs.order_in.shape[1]
    backward = np.tile(np.arange(time, dtype=np.int32)[::-1], (len(knobs.lengths), 1))
    mask = np.random.default_rng(0).integers(0, 2, knobs.keep.shape) * 2.0
    turned = {
        "gates": knobs.gates[::-1],
        "forget_bias": knobs.forget_bias + 0.5,
        "bias_scale": 2.0,
        "transposed": 1.0,
        "hard_sigmoid": 1.0,
        "reset_after": 0.0,
        "update_exchanged": 1.0,
        "lengths": knobs.lengths // 2,
        "zero_past": 0.0,
        "order_in": np.where((knobs.order_in == backward).all(), backward[:, ::-1], backward),
        "order_out": backward if (knobs.order_out != backward).any() else backward[:, ::-1],
        "start": knobs.start * 0.5,
        "through_time": knobs.through_time * 0.5,
        "keep": mask,
    }
    yield from ((field, knobs._replace(**{field: value})) for field, value in turned.items())
    for i in range(1, len(knobs.activation)):
        yield f"activation {i}", knobs._replace(activation=np.eye(len(knobs.activation))[i])


def turn_attention(knobs: AttentionKnobs, source_time: int) -> Iterator[tuple[str, AttentionKnobs]]:
    turned = {
        "memory_lengths": np.full_like(knobs.memory_lengths, source_time),
        "scaled": 0.0,
        "divisor": 2.0,
        "previous_query": 1.0,
        "feeding": 0.0,
        "output_attention": 0.0,
        "memory_layers": knobs.memory_layers * 0.5,
        "memory_rows": np.roll(knobs.memory_rows, 1),
    }
    yield from ((field, knobs._replace(**{field: value})) for field, value in turned.items())


def turn(knobs: Knobs, source_time: int) -> Iterator[tuple[str, Knobs]]:
    """Every knob turned by itself, by name."""
    for site, cell in knobs.cells.items():
        for field, turned in turn_cell(cell):
            yield f"{site} {field}", knobs._replace(cells={**knobs.cells, site: turned})
    if knobs.attention is not None:
        for field, turned in turn_attention(knobs.attention, source_time):
            yield f"attention {field}", knobs._replace(attention=turned)
    yield "handoff", knobs._replace(handoff=np.roll(knobs.handoff, 1, axis=0))
    for seam in knobs.passes:
        yield f"passes {seam}", knobs._replace(passes={**knobs.passes, seam: 0.5})
    for pair in knobs.share:
        yield f"share {pair}", knobs._replace(share={**knobs.share, pair: 1.0})
    yield "decoder_layers", knobs._replace(decoder_layers=knobs.decoder_layers * 0.5)
    yield "target_in", knobs._replace(target_in=np.maximum(knobs.target_in - 1, 0))
    yield "target_out", knobs._replace(target_out=knobs.target_out - 1)
    yield "loss_weights", knobs._replace(loss_weights=knobs.loss_weights * 2)
    for i in range(1, len(knobs.loss_form)):
        yield f"loss_form {i}", knobs._replace(loss_form=np.eye(len(knobs.loss_form))[i])
    yield "label_smoothing", knobs._replace(label_smoothing=0.1)
    yield "steps_lengths", knobs._replace(steps_lengths=knobs.steps_lengths - 1)


def meaningless(spec: Spec) -> set[str]:
    """The knobs that turn nothing in a model, or nothing as `turn` turns them."""
    if isinstance(spec, EncoderDecoder):
        nothing = {f"{cell}/cell {field}" for cell in ("encoder", "decoder") for field in OF_A_GRU}
        nothing |= {"decoder_layers", "label_smoothing"}
        if spec.initial_state == "implicit":
            nothing.add("encoder/cell start")
        if not spec.lengths:
            nothing |= {"encoder/cell zero_past", "decoder/cell zero_past"}
        return nothing
    assert isinstance(spec, AttentionNMT)
    nothing = set()
    encoder = [
        f"encoder/layers_{i}/{way}/cell" for i in range(spec.layers) for way in ("forward", "backward")
    ]
    decoder = [f"decoder/cells_{i}" for i in range(spec.layers)]
    for cell in encoder + decoder:
        nothing |= {f"{cell} {field}" for field in (OF_A_GRU if spec.cell == "lstm" else ("forget_bias",))}
    # The encoder starts from zeros, and the decoder's cells have no lengths of their own.
    nothing |= {f"{cell} start" for cell in encoder}
    # Outputs past the lengths are read by nothing but the memory, which is the last layer's.
    nothing |= {f"{cell} zero_past" for cell in encoder[:-2]}
    nothing |= {f"{cell} {field}" for cell in decoder for field in ("zero_past", "order_out")}
    nothing |= {f"{cell} order_in" for cell in decoder[1:]}
    if not spec.attention.scaled:
        nothing.add("attention scaled")
    if (spec.attention.layer_units or 2 * spec.units) != 2 * spec.units:
        nothing.add("attention output_attention")
    if spec.layers == 1:
        nothing.add("passes layers")
    return nothing


OF_A_GRU = ("reset_after", "update_exchanged")

TURNED = ("full-implicit-bare", "lengths-given-projection", *TRANSLATORS)


@pytest.mark.parametrize("name", TURNED)
def test_every_knob_moves_something_where_it_means_something(name: str) -> None:
    case = draw_case(ALL[name])
    evaluator = build(case)
    truth = evaluate(evaluator, evaluator.neutral)
    settings = dict(turn(evaluator.neutral, case.batch["source"].shape[1]))
    moved = set()
    for setting, tensors in zip(settings, evaluator.evaluate(list(settings.values())), strict=True):
        assert all(np.isfinite(tensor).all() for tensor in tensors.values()), setting
        if any(not np.array_equal(tensors[n], truth[n]) for n in truth):
            assert max(errors(tensors, truth).values()) > 1e-5, setting
            moved.add(setting)
    assert set(settings) - moved == meaningless(case.spec)


def test_what_passes_of_a_gradient_is_exactly_that_part() -> None:
    evaluator = build(draw_case(SEQUENCES["lengths-given-projection"]))
    neutral = evaluator.neutral
    truth = evaluate(evaluator, neutral)
    half = evaluate(evaluator, neutral._replace(passes={**neutral.passes, "handoff": 0.5}))
    for name, tensor in truth.items():
        passed = name.startswith(("gradient/encoder/", "gradient/state/", "gradient/batch/source"))
        passed |= name.startswith("gradient/batch/initial_state")
        assert np.array_equal(half[name], tensor * (0.5 if passed else 1)), name


def test_sharing_cells_gives_one_gradient_to_the_earlier() -> None:
    evaluator = build(draw_case(TRANSLATORS["lstm-2-luong"]))
    neutral = evaluator.neutral
    shared = {**neutral.share, "encoder/layers_0/backward/cell<-encoder/layers_0/forward/cell": 1.0}
    tensors = evaluate(evaluator, neutral._replace(share=shared))
    for leaf in ("kernel", "recurrent_kernel", "bias"):
        assert not tensors[f"gradient/encoder/layers_0/backward/cell/{leaf}"].any()
        assert tensors[f"gradient/encoder/layers_0/forward/cell/{leaf}"].any()


@pytest.mark.parametrize("name", ["lengths-given-projection", "lstm-2-luong", "gru-1-luong_monotonic"])
def test_gradients_under_turned_knobs_are_slopes_of_the_loss(name: str) -> None:
    case = draw_case(ALL[name])
    neutral = build(case).neutral
    generator = np.random.default_rng(1)
    cells = {}
    for site, cell in neutral.cells.items():
        cells[site] = cell._replace(
            gates=cell.gates + 0.1 * generator.standard_normal(cell.gates.shape),
            transposed=0.4,
            hard_sigmoid=0.3,
            activation=np.array([0.5, 0, 0.2, 0.1, 0.4]),
            reset_after=0.3,
            update_exchanged=0.2,
            zero_past=0.5,
            bias_scale=1.5,
            keep=generator.random(cell.keep.shape),
            start=generator.standard_normal(cell.start.shape),
        )
    knobs = neutral._replace(
        cells=cells,
        share=dict.fromkeys(neutral.share, 0.3),
        handoff=generator.standard_normal(neutral.handoff.shape),
        loss_form=np.array([0.4, 0, 0.6]) if neutral.attention is None else np.array([0.3, 0.7]),
        label_smoothing=0.2,
    )
    if neutral.attention is not None:
        knobs = knobs._replace(
            attention=neutral.attention._replace(scaled=0.6, divisor=1.7, previous_query=0.3, feeding=0.8)
        )
    weights = {path: array.astype(np.float64) for path, array in case.weights.items()}
    gradients = evaluate(build(case), knobs)
    direction = {path: generator.standard_normal(array.shape) for path, array in weights.items()}
    slope = sum(float(np.vdot(gradients[f"gradient/{path}"], step)) for path, step in direction.items())

    def loss(length: float) -> float:
        from oracle.steps.counterfactual import Evaluator

        moved = {path: array + length * direction[path] for path, array in weights.items()}
        return float(evaluate(Evaluator(case.spec, moved, case.batch), knobs)["loss"])

    step = 1e-5
    assert relative(np.array((loss(step) - loss(-step)) / (2 * step)), np.array(slope)) < 1e-7


def test_impute_finished_is_the_lengths_of_the_decoders_cells() -> None:
    case = draw_case(TRANSLATORS["lstm-2-luong"])
    evaluator = build(case)
    neutral, lengths = evaluator.neutral, case.batch["target_length"]
    cells = {
        site: cell._replace(lengths=lengths) if site.startswith("decoder") else cell
        for site, cell in neutral.cells.items()
    }
    truth = evaluate(evaluator, neutral)
    imputed = evaluate(evaluator, neutral._replace(cells=cells))
    within = np.arange(5) < lengths[:, None]
    for name in ("output/logits", "output/alignments"):
        assert np.array_equal(imputed[name], truth[name] * within[..., None])
    # The loss counts no step past the end, so that no gradient differs.
    for name, tensor in truth.items():
        if name.startswith("gradient") or name == "loss":
            assert relative(imputed[name], tensor) < 1e-14, name
    # The state is that after each row's last step: rows of the longest length have the same.
    whole = lengths == lengths.max()
    assert np.array_equal(imputed["state/decoder/1/h"][whole], truth["state/decoder/1/h"][whole])
    assert (imputed["state/decoder/1/h"][~whole] != truth["state/decoder/1/h"][~whole]).all()
