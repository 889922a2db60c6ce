"""Layers and seams held to account by themselves, in real TensorFlow ports with one fault each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from oracle.case import Case, random_case
from oracle.localisation import Check, Localisation
from oracle.localise import localise
from oracle.record import Record
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder, Spec
from oracle.tolerance import FLOAT64_BOUND
from tests.oracle.cases import SMALL

pytestmark = [pytest.mark.tf, pytest.mark.jax]

LUONG = Attention("luong", 6, layer_units=4)
STACKED = AttentionNMT(
    source_vocab=11, target_vocab=9, embedding=2, cell="lstm", units=3, layers=2, attention=LUONG
)
GRU = msgspec.structs.replace(STACKED, cell="gru", layers=1, attention=Attention("bahdanau", 5, scaled=True))

CORRECT: Mapping[str, Spec] = {
    "lstm": SMALL,
    "given": EncoderDecoder(3, 4, LSTM(4), LSTM(4), projection=False, initial_state="given"),
    "stacked": STACKED,
    "gru": GRU,
    "bahdanau_monotonic": msgspec.structs.replace(
        STACKED, layers=1, attention=Attention("bahdanau_monotonic", 5, layer_units=4)
    ),
    "luong_monotonic": msgspec.structs.replace(
        GRU, attention=Attention("luong_monotonic", 6, scaled=True), loss="rows"
    ),
}


@functools.cache
def make_case(name: str) -> Case:
    case = random_case(CORRECT[name], seed=3, batch_size=4, source_time=6, target_time=5)
    if "source_length" not in case.batch:
        return case
    # The first row is full. No row's length is another's.
    source, target = np.array([6, 4, 3, 5], np.int32), np.array([5, 2, 4, 3], np.int32)
    batch = dict(case.batch, source_length=source, target_length=target)
    generator = np.random.default_rng(8)
    for key, lengths, vocab, first in (("source", source, 11, 0), ("target", target, 9, 1)):
        tokens = generator.integers(1, vocab, case.batch[key].shape, dtype=np.int32)
        batch[key] = tokens * (np.arange(tokens.shape[1]) < lengths[:, None] + first)
    return dataclasses.replace(case, batch=batch)


@functools.cache
def trace_truth(name: str) -> Record:
    from oracle.run_jax import trace_oracle

    return trace_oracle(make_case(name), model=name)


class Found(NamedTuple):
    """What was found of a port."""

    record: Record
    checks: list[Check]
    localisation: Localisation

    @property
    def guilty(self) -> set[tuple[str, str]]:
        return {(check.layer, check.direction) for check in self.checks if not check.output_agrees}

    def where(self, layer: str) -> str:
        (check,) = [one for one in self.checks if one.layer == layer and not one.output_agrees]
        return check.where


def examine(name: str, build: Callable[..., Any] | None = None, *, dtype: Any = "float64") -> Found:
    """Trace a port of a case, by default the right one, and hold it to account."""
    from oracle.run_tf import trace_built
    from oracle.steps.layers import check_layers
    from tf_models import attention_nmt, explicit_state

    case, truth = make_case(name), trace_truth(name)
    right = attention_nmt.build if isinstance(case.spec, AttentionNMT) else explicit_state.build
    port = trace_built(case, build or right, model=name, dtype=dtype)
    assert port.failure is None, port.failure.traceback
    checks = check_layers(case.spec, case.weights, case.batch, port.tensors, oracle_trace=truth.tensors)
    return Found(port, checks, localise(port, truth, case=case, checks=checks))


def change(alter: Callable[[Any], None]) -> Callable[..., Any]:
    """Make a port of the translator and alter it."""

    def build(spec: AttentionNMT, *, variant: str, dtype: Any) -> Any:
        from tf_models.attention_nmt import AttentionNMT as Port

        del variant
        port = Port(spec, dtype)
        alter(port)
        return port

    return build


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.endswith("monotonic")) for name in CORRECT]
)
def test_a_right_port_has_nothing_wrong_anywhere(name: str) -> None:
    found = examine(name)
    assert found.guilty == set()
    assert all(check.input_agrees for check in found.checks)
    assert max(check.error for check in found.checks) < FLOAT64_BOUND / 20
    assert found.localisation.lines == ("every layer at every step is the oracle's, forward and backward",)
    assert (found.localisation.forward, found.localisation.backward, found.localisation.maps) == (
        None,
        None,
        (),
    )
    # Every layer, every seam and both passes are there.
    sites = {check.layer for check in found.checks if check.direction == "forward"}
    leaves = {
        path.rpartition("/")[0].replace("/memory_layer", "").replace("/query_layer", "")
        for path in make_case(name).weights
    }
    assert leaves <= sites
    assert {"handoff", "loss"} <= sites
    assert {"memory", "feeding"} <= sites or name in ("lstm", "given")


def test_a_right_port_in_float32_has_nothing_wrong(tf: Any) -> None:
    found = examine("stacked", dtype="float32")
    assert (found.guilty, found.localisation.forward, found.localisation.backward) == (set(), None, None)
    assert max(check.error for check in found.checks) > 1e-9


def swap_layers(port: Any) -> None:
    start = port.decoder.start
    port.decoder.start = lambda states: start(states[::-1])


def attend_to_padding(port: Any) -> None:
    set_up = port.decoder.attention_mechanism.setup_memory
    port.decoder.attention_mechanism.setup_memory = lambda memory, **_: set_up(memory)


def forget_mask(port: Any) -> None:
    call = port.encoder.layers[0].call
    port.encoder.layers[0].call = lambda inputs, mask=None, **options: call(inputs, **options)


def shift_backward(port: Any) -> None:
    import tensorflow as tf

    layer = port.encoder.layers[0].backward_layer
    call = layer.call
    layer.call = lambda inputs, **options: call(tf.roll(inputs, 1, axis=1), **options)


def change_activation(port: Any) -> None:
    import tensorflow as tf

    class Soft(tf.keras.layers.LSTM):
        def __init__(self, units: int, **options: Any) -> None:
            super().__init__(units, activation="softsign", **options)

    old = port.encoder.layers[1]
    options = {"return_sequences": True, "return_state": True, "dtype": tf.float64}
    new = tf.keras.layers.Bidirectional(
        tf.keras.layers.LSTM(3, **options),
        backward_layer=Soft(3, go_backwards=True, **options),
        dtype=tf.float64,
    )
    assert type(old) is type(new)
    port.encoder.layers = [port.encoder.layers[0], new]


def starve(port: Any) -> None:
    import tensorflow as tf

    port.decoder.wrapper._cell_input_fn = lambda inputs, attention: tf.concat(
        [inputs, tf.zeros_like(attention)], axis=-1
    )


def average_again(port: Any) -> None:
    from tf_models import attention_nmt

    step = port.step

    def halved(batch: Any) -> Any:
        right = attention_nmt.masked_loss
        attention_nmt.masked_loss = lambda *arguments: right(*arguments) / 2
        try:
            return step(batch)
        finally:
            attention_nmt.masked_loss = right

    port.step = halved


def test_states_of_the_wrong_layers_are_a_fault_of_the_handoff() -> None:
    found = examine("stacked", change(swap_layers))
    assert found.guilty >= {("handoff", "forward")}
    assert {layer for layer, _ in found.guilty} == {"handoff"}
    (check,) = [one for one in found.checks if (one.layer, one.direction) == ("handoff", "forward")]
    assert check.where == "step 0 of all rows"
    place = found.localisation.forward
    assert place is not None
    assert (place.tensor, place.step, place.row) == ("step/decoder/cells_0/state_c", 0, 0)
    assert found.localisation.lines[0].startswith(
        "forward: everything agrees up to decoder/cells_0; its first state is not the encoder's final state"
    )


def test_another_activation_is_a_fault_of_that_layer_alone() -> None:
    found = examine("stacked", change(change_activation))
    site = "encoder/layers_1/backward/cell"
    assert found.guilty == {(site, "forward"), (site, "backward"), (f"{site}/weights", "backward")}
    place = found.localisation.forward
    assert place is not None
    assert (place.layer, place.step, place.row) == (site, 0, 0)


def test_a_mask_that_is_ignored_shows_in_the_rows_with_padding_only() -> None:
    found = examine("stacked", change(forget_mask))
    place = found.localisation.forward
    assert place is not None
    # Row 1 is the first with padding, and what is read backward begins with it.
    assert (place.tensor, place.step, place.row) == ("step/encoder/layers_0/backward/cell/input", 0, 1)
    (check,) = [
        one
        for one in found.checks
        if (one.layer, one.direction) == ("encoder/layers_0/backward/cell/input", "forward")
    ]
    assert not check.output_agrees
    assert check.where.endswith("rows 1, 2 and 3")


def test_a_shifted_backward_direction_is_a_fault_of_what_that_layer_reads() -> None:
    found = examine("stacked", change(shift_backward))
    name = "encoder/layers_0/backward/cell/input"
    assert {layer for layer, direction in found.guilty if direction == "forward"} == {name}
    assert {layer for layer, _ in found.guilty} == {name}
    place = found.localisation.forward
    assert place is not None
    assert (place.tensor, place.step) == (f"step/{name}", 0)


def test_memory_without_its_mask_is_a_fault_of_the_mechanism() -> None:
    found = examine("stacked", change(attend_to_padding))
    assert ("decoder/attention_mechanism", "forward") in found.guilty
    assert {layer for layer, _ in found.guilty} <= {
        "decoder/attention_mechanism",
        "decoder/attention_mechanism/weights",
        "memory",
    }
    place = found.localisation.forward
    assert place is not None
    assert (place.tensor, place.step, place.row) == ("step/decoder/attention_mechanism/alignments", 0, 1)
    assert "padding" in place.note
    (check,) = [
        c for c in found.checks if c.layer == "decoder/attention_mechanism" and c.direction == "forward"
    ]
    assert check.where == "every step of rows 1, 2 and 3"


def test_attention_that_is_not_fed_is_a_fault_of_the_feeding_from_step_1_on() -> None:
    found = examine("stacked", change(starve))
    assert {layer for layer, _ in found.guilty} == {"feeding"}
    (check,) = [c for c in found.checks if c.layer == "feeding" and c.direction == "forward"]
    assert check.where == "steps >= 1 of all rows"


def test_a_loss_of_half_the_size_is_a_fault_of_the_loss() -> None:
    found = examine("stacked", change(average_again))
    assert found.guilty == {("loss", "forward"), ("loss", "backward")}
    assert found.localisation.forward is not None
    assert found.localisation.forward.tensor == "loss"


def stop_at_handoff(port: Any) -> None:
    import tensorflow as tf

    start = port.decoder.start
    port.decoder.start = lambda states: start(tf.nest.map_structure(tf.stop_gradient, states))


def stop_at_memory(port: Any) -> None:
    import tensorflow as tf

    set_up = port.decoder.attention_mechanism.setup_memory
    port.decoder.attention_mechanism.setup_memory = lambda memory, **o: set_up(tf.stop_gradient(memory), **o)


def stop_at_feeding(port: Any) -> None:
    import tensorflow as tf

    port.decoder.wrapper._cell_input_fn = lambda inputs, attention: tf.concat(
        [inputs, tf.stop_gradient(attention)], axis=-1
    )


def stop_through_time(port: Any) -> None:
    import tensorflow as tf

    cell = port.decoder.cells[1]
    call = cell.call
    cell.call = lambda inputs, states, **o: call(inputs, [tf.stop_gradient(states[0]), states[1]], **o)


def double_a_gradient(port: Any) -> None:
    step = port.step

    def doubled(batch: Any) -> Any:
        result = step(batch)
        name = "decoder/attention_layer/kernel"
        result.variable_gradients[name] = 2 * result.variable_gradients[name]
        return result

    port.step = doubled


@pytest.mark.parametrize(
    ("alter", "guilty", "where"),
    [
        (stop_at_handoff, {"handoff"}, "some of steps >= 2 of all rows"),
        (stop_at_memory, {"memory"}, ""),
        (stop_at_feeding, {"feeding"}, "some of steps 0 to 3 of all rows"),
        (double_a_gradient, {"decoder/attention_layer/weights"}, ""),
    ],
)
def test_a_gradient_that_is_stopped_or_changed_is_found_where_it_is(
    alter: Callable[[Any], None], guilty: set[str], where: str
) -> None:
    found = examine("stacked", change(alter))
    assert found.guilty == {(layer, "backward") for layer in guilty}
    assert found.where(*guilty).startswith(where)
    assert found.localisation.forward is None
    assert found.localisation.backward is not None
    assert found.localisation.lines[-1] == "forward: every layer at every step is the oracle's"
    assert [heat.direction for heat in found.localisation.maps] == ["backward"]


def test_a_gradient_that_is_stopped_within_a_cell_is_a_fault_of_the_cell() -> None:
    found = examine("stacked", change(stop_through_time))
    assert {layer for layer, _ in found.guilty} == {"decoder/cells_1/state", "handoff"}


def test_an_encoder_outside_of_the_tape_has_adjoints_that_are_none() -> None:
    from tf_models.implicit_state import build

    found = examine("lstm", functools.partial(build_variant, build, "outside_tape"))
    assert found.guilty == {("handoff", "backward")}
    assert found.record.tensors["gradient/step/encoder/cell/h"] is None
    assert found.localisation.lines[0] == (
        "backward: the adjoint of encoder/cell's h is None from the last step on: nothing connects it to the loss"
    )


def build_variant(build: Callable[..., Any], name: str, spec: Spec, *, variant: str, dtype: Any) -> Any:
    del variant
    return build(spec, variant=name, dtype=dtype)


@pytest.fixture(scope="module")
def tf() -> Any:
    from oracle.frameworks import import_tensorflow

    return import_tensorflow()
