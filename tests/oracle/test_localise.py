"""Where a record leaves the oracle: the first place in the order of computation, and how it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from oracle.case import Case
from oracle.localisation import Localisation, Place
from oracle.localise import localise
from oracle.place_lines import describe_localisation
from oracle.places import describe_places, find_lengths, name_steps
from oracle.record import Failure, Record
from oracle.steps.accounts import Accounts
from tests.oracle.cases import small_case

CELL = "encoder/layers_0/backward/cell"


@pytest.fixture(scope="module")
def case() -> Case:
    """4 rows, 6 source steps, 7 target steps. Lengths of the source: 6, 6, 6, 4; of the target: 7, 7, 1, 1."""
    return small_case("attention_nmt/lstm")


@pytest.fixture(scope="module")
def truth(case: Case) -> Record:
    from oracle.run_jax import trace_oracle

    return trace_oracle(case, model="attention_nmt/lstm")


@pytest.fixture(scope="module")
def find(case: Case, truth: Record) -> Callable[..., Localisation]:
    """Localise a record that has the oracle's numbers, but for some that are changed."""

    def find(changes: dict[str, tuple[tuple, float] | None], *, ordinary: bool = False) -> Localisation:
        tensors = {name: None if a is None else a.copy() for name, a in truth.tensors.items()}
        for name, changed in changes.items():
            if changed is None:
                tensors[name] = None
                continue
            array = tensors[name]
            assert array is not None
            array[changed[0]] += changed[1]
        if ordinary:
            tensors = {name: tensor for name, tensor in tensors.items() if "step/" not in name}
        port = dataclasses.replace(
            truth, tensors=tensors, origin=msgspec.structs.replace(truth.origin, side="port")
        )
        return localise(port, truth, case=case)

    return find


def place_of(place: Place | None) -> tuple:
    assert place is not None
    return place.tensor, place.step, place.row, place.unit


pytestmark = pytest.mark.jax


def test_nothing_is_found_of_the_oracles_own_numbers(find: Callable[..., Localisation]) -> None:
    found = find({"step/decoder/cells_0/h": ((1, 3, 2), 1e-14)})
    assert (found.forward, found.backward, found.maps) == (None, None, ())
    assert find({}, ordinary=True).lines == ("every recorded tensor is the oracle's, forward and backward",)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # A layer before another, though its step is a later one.
        (
            {"step/encoder/layers_0/forward/cell/h": ((0, 5, 1), 1e-9), f"step/{CELL}/h": ((0, 0, 0), 1)},
            ("step/encoder/layers_0/forward/cell/h", 5, 0, (1,)),
        ),
        # Within one loop an earlier step of a later layer, since its attention is fed to the next step.
        (
            {"step/decoder/cells_0/c": ((0, 3, 0), 1), "step/decoder/attention_layer/output": ((2, 2, 4), 1)},
            ("step/decoder/attention_layer/output", 2, 2, (4,)),
        ),
        # Within one step the state that enters, then c, then h.
        (
            {"step/decoder/cells_0/h": ((0, 3, 0), 1), "step/decoder/cells_0/state_c": ((3, 3, 2), 1)},
            ("step/decoder/cells_0/state_c", 3, 3, (2,)),
        ),
        # The memory is there before the decoder's first step.
        (
            {
                "step/decoder/attention_mechanism/memory": ((1, 5, 0), 1),
                "step/decoder/cells_0/c": ((0, 0, 0), 1),
            },
            ("step/decoder/attention_mechanism/memory", 5, 1, (0,)),
        ),
        ({"loss": ((), 1e-9)}, ("loss", None, None, ())),
        ({"output/logits": ((2, 4, 1), 1.0)}, ("output/logits", 4, 2, (1,))),
    ],
)
def test_forward_is_the_order_of_computation(find: Callable[..., Localisation], changes, expected) -> None:
    found = find(changes)
    assert place_of(found.forward) == expected
    assert found.backward is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # From the loss: the last step of the last layer first.
        (
            {
                "gradient/step/decoder/output_layer/output": ((0, 2, 1), 1),
                "gradient/step/decoder/cells_0/h": ((1, 4, 3), 1),
            },
            ("gradient/step/decoder/cells_0/h", 4, 1, (3,)),
        ),
        # Within one step the layer that is nearer to the loss.
        (
            {
                "gradient/step/decoder/attention_layer/input": ((0, 4, 1), 1),
                "gradient/step/decoder/cells_0/h": ((1, 4, 3), 1),
            },
            ("gradient/step/decoder/attention_layer/input", 4, 0, (1,)),
        ),
        (
            {f"gradient/step/{CELL}/h": ((0, 1, 2), 1), f"gradient/step/{CELL}/c": ((0, 5, 3), 1)},
            (f"gradient/step/{CELL}/c", 5, 0, (3,)),
        ),
        (
            {"gradient/decoder/cells_0/kernel": ((2, 1), 1)},
            ("gradient/decoder/cells_0/kernel", None, None, (2, 1)),
        ),
    ],
)
def test_backward_is_from_the_loss(find: Callable[..., Localisation], changes, expected) -> None:
    found = find(changes)
    assert place_of(found.backward) == expected
    assert found.forward is None


def test_what_a_cell_gives_on_padding_is_no_finding_but_an_adjoint_there_is(
    find: Callable[..., Localisation],
) -> None:
    assert (
        find({f"step/{CELL}/h": ((3, 4, 0), 1.0), f"step/{CELL}/state_c": ((3, 5, 0), 1.0)}).forward is None
    )
    place = find({f"gradient/step/{CELL}/h": ((3, 4, slice(0, 2)), 1.0)}).backward
    assert place_of(place) == (f"gradient/step/{CELL}/h", 4, 3, (0,))
    assert place is not None
    assert place.note == "differs only at steps >= length, row 3"
    far = find({"step/decoder/output_layer/output": ((2, 3, 0), 1.0)}).forward
    assert far is not None
    assert far.note == "differs only at steps >= length, row 2"
    both = find({"step/decoder/output_layer/output": (([0, 2], [6, 3], 0), 1.0)}).forward
    assert both is not None
    assert both.note == "past the row's end (length 1)"
    column = find({"step/decoder/attention_mechanism/alignments": ((3, 0, 5), 1e-3)}).forward
    assert column is not None
    assert column.note == "a padded column of the memory (length 4); the port attends to padding"


def test_none_is_none_and_no_adjoint_where_there_is_none_is_right(find: Callable[..., Localisation]) -> None:
    found = find(dict.fromkeys([f"gradient/step/{CELL}/{part}" for part in ("h", "c", "input")]))
    place = found.backward
    assert place is not None
    assert (place.tensor, place.step, place.port_value) == (f"gradient/step/{CELL}/h", 5, None)
    assert found.lines[0] == (
        f"backward: the adjoint of {CELL}'s h is None from the last step on: nothing connects it to the loss"
    )
    later = find({f"gradient/step/{CELL}/h": None, "step/decoder/cells_0/h": ((0, 0, 0), 1.0)})
    assert later.lines[-1].startswith("backward")
    ordinary = find({"gradient/state/encoder/0/h": None}, ordinary=True)
    assert (
        ordinary.lines[0] == "backward: gradient/state/encoder/0/h is None: nothing connects it to the loss"
    )


def test_the_map_has_a_row_for_each_layer_and_the_memory(find: Callable[..., Localisation]) -> None:
    found = find({"step/decoder/cells_0/h": ((1, 3, 2), 1e-3)})
    (heat,) = found.maps
    assert heat.direction == "forward"
    assert heat.layers[:3] == ("encoder/embedding", "encoder/layers_0/forward/cell", CELL)
    assert {len(row) for row in heat.errors} == {7}
    row = heat.errors[heat.layers.index("decoder/cells_0")]
    assert row[3] is not None
    assert 1e-3 < row[3] < 1e-2
    assert row[:3] == (0.0, 0.0, 0.0)
    assert heat.errors[1][6] is None
    assert "decoder/attention_mechanism/memory" in heat.layers
    nowhere = find({f"gradient/step/{CELL}/h": None}).maps[0]
    assert nowhere.errors[nowhere.layers.index(CELL)][0] == float("inf")


def test_ordinary_records_have_the_steps_of_outputs_and_inputs(find: Callable[..., Localisation]) -> None:
    changes = {"output/logits": ((1, 4, 0), 1.0), "gradient/embedded/source": (([0, 3], [1, 2], 1), 1.0)}
    found = find(changes, ordinary=True)
    assert place_of(found.forward) == ("output/logits", 4, 1, (0,))
    assert place_of(found.backward) == ("gradient/embedded/source", 2, 3, (1,))
    assert [heat.layers for heat in found.maps] == [
        ("output/encoder", "output/logits", "output/alignments"),
        ("embedded/target", "embedded/source"),
    ]
    assert found.lines[0].startswith("forward: output/logits is")


def test_a_port_that_ends_early_is_right_where_the_oracle_has_nothing(case: Case, truth: Record) -> None:
    def cut(name: str, tensor: np.ndarray | None, steps: int) -> np.ndarray | None:
        is_decoders = "step/decoder/" in name and not name.endswith("memory")
        return tensor[:, :steps] if tensor is not None and is_decoders else tensor

    for steps, is_right in ((7, True), (6, False)):
        tensors = {name: cut(name, tensor, steps) for name, tensor in truth.tensors.items()}
        found = localise(dataclasses.replace(truth, tensors=tensors), truth, case=case)
        assert (found.forward is None) == is_right
    assert found.forward is not None
    assert found.forward.step == 6


def test_another_shape_and_a_missing_layer_are_told(case: Case, truth: Record) -> None:
    name = "step/decoder/attention_layer/output"
    tensors = dict(truth.tensors, **{name: np.ones((4, 7, 3))})
    found = localise(dataclasses.replace(truth, tensors=tensors), truth, case=case)
    assert found.forward is not None
    assert found.forward.note == "the port's shape is [4, 7, 3], the oracle's [4, 7, 8]"
    del tensors[name]
    found = localise(dataclasses.replace(truth, tensors=tensors), truth, case=case)
    assert found.forward is not None
    assert (found.forward.tensor, found.forward.port_value) == (name, None)
    assert "the port's record does not have it" in found.lines[0]
    failure = Failure("ValueError", "no", "")
    assert localise(dataclasses.replace(truth, tensors={}, failure=failure), truth, case=case).lines == (
        "the port raised ValueError, so that there is nothing to localise",
    )


def test_float32_is_held_to_the_yardstick_where_there_is_one(case: Case, truth: Record) -> None:
    from oracle.run_jax import run_oracle

    rounded = {
        name: None if tensor is None else tensor.astype(np.float32) for name, tensor in truth.tensors.items()
    }
    port = dataclasses.replace(truth, tensors=rounded)
    yardstick = [run_oracle(case, model="attention_nmt/lstm", dtype="float32")]
    assert localise(port, truth, case=case, yardstick=yardstick).forward is None
    logits = rounded["output/logits"]
    assert logits is not None
    logits *= np.float32(1 + 1e-4)
    found = localise(port, truth, case=case, yardstick=yardstick)
    assert found.forward is not None
    assert found.forward.tensor == "output/logits"


def test_places_are_told_in_a_few_words() -> None:
    wrong = np.zeros((4, 6), bool)
    assert describe_places(wrong) == ""
    wrong[2:, 5] = True
    assert describe_places(wrong) == "step 5 of rows 2 and 3"
    wrong[2:, 3:] = True
    assert describe_places(wrong) == "steps >= 3 of rows 2 and 3"
    assert describe_places(wrong, lengths=np.array([6, 6, 3, 2])) == "steps >= length, rows 2 and 3"
    wrong[2, 3] = False
    assert describe_places(wrong) == "some of steps >= 3 of rows 2 and 3"
    wrong[:] = False
    wrong[:, [0, 2, 4]] = True
    assert describe_places(wrong) == "steps 0, 2 and 4 of all rows"
    many = np.zeros((20, 30), bool)
    many[::2, ::3] = True
    assert describe_places(many) == "10 steps from 0 on of rows 0, 2, 4, 6, 8, 10 and so on (10 of 20)"
    assert find_lengths(None, {"source_length": np.ones(2)}, "gradient/step/encoder/cell/h") is not None
    assert find_lengths(None, {"source_length": np.ones(2)}, "gradient/step/decoder/cells_0/h") is None


def test_steps_named_by_variables_are_named_by_leaves(case: Case) -> None:
    from oracle.bridge.sites import find_sites

    sites = find_sites(case.spec, "keras")
    ones = np.ones((1, 1, 1))
    named = name_steps(
        {"step/encoder/layers/0/forward_layer/cell/h": ones, "loss": ones, "step/other/h": ones}, sites
    )
    assert list(named) == ["step/encoder/layers_0/forward/cell/h", "loss", "step/other/h"]


def test_the_fewest_parts_whose_lack_explains_an_adjoint_are_at_fault() -> None:
    accounts = Accounts(1e-12, lambda name: True)
    parts = [np.random.default_rng(seed).standard_normal((2, 3, 4)) for seed in range(3)]
    named = [(name, f"reader_{name}/input", part) for name, part in zip("abc", parts, strict=True)]
    given = sum(parts)
    given[:, 1] -= parts[1][:, 1]
    accounts.hold_sum("cell/h", named, given, noise=0.0)
    found = {check.layer: check for check in accounts.list_checks(["cell"])}
    assert {name: check.output_agrees for name, check in found.items()} == {"a": True, "b": False, "c": True}
    assert found["b"].where == "step 1 of all rows"
    accounts.hold_sum("cell/h", named, sum(parts) * 1.5, noise=0.0)
    assert {check.layer for check in accounts.list_checks(["cell"]) if not check.output_agrees} == {
        "b",
        "cell/h",
    }


def test_lines_without_checks_and_without_places_say_that_all_agrees() -> None:
    assert describe_localisation(None, None, (), lost=(), has_steps=True) == (
        "every layer at every step is the oracle's, forward and backward",
    )
