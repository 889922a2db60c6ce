"""What the neutral knobs of a spec are, and which cells could be one by mistake."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from oracle.case import random_case, weight_shapes
from oracle.knobs import LOSS_FORMS, SEAMS, handoff_slots, neutral_knobs, shared_cells
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder

SEQUENCE = EncoderDecoder(3, 2, LSTM(5, 0.7), LSTM(5), lengths=True)
TRANSLATOR = AttentionNMT(8, 7, 5, "gru", 3, 2, Attention("luong", 6, True, 9))


@pytest.mark.parametrize("spec", [SEQUENCE, TRANSLATOR])
def test_there_is_a_knob_for_every_cell_slot_seam_and_pair(spec) -> None:
    case = random_case(spec, batch_size=4, source_time=6, target_time=5)
    knobs = neutral_knobs(spec, case.batch)
    shapes = weight_shapes(spec)
    kind = "encoder-decoder" if isinstance(spec, EncoderDecoder) else "attention-nmt"
    cells = {path.removesuffix("/recurrent_kernel") for path in shapes if path.endswith("recurrent_kernel")}
    assert set(knobs.cells) == cells
    assert knobs.handoff.shape == (len(handoff_slots(spec)),) * 2
    assert tuple(knobs.passes) == SEAMS[kind]
    assert tuple(knobs.share) == shared_cells(spec)
    assert len(knobs.loss_form) == len(LOSS_FORMS[kind])
    for pair in knobs.share:
        later, earlier = (shapes[f"{cell}/recurrent_kernel"] for cell in pair.split("<-"))
        assert later == earlier
    for site, cell in knobs.cells.items():
        time = 6 if site.startswith("encoder") else 5
        units = shapes[f"{site}/recurrent_kernel"][0]
        assert cell.gates.shape == (shapes[f"{site}/kernel"][1] // units,) * 2
        assert cell.keep.shape == (4, time, units)
        assert cell.order_in.shape == cell.order_out.shape == (4, time)
        assert cell.order_in.dtype == cell.order_out.dtype == cell.lengths.dtype == np.int32


def test_a_backward_cell_reads_each_row_from_its_end_and_gives_it_from_its_start() -> None:
    case = random_case(TRANSLATOR, batch_size=4, source_time=6, target_time=5)
    cell = neutral_knobs(TRANSLATOR, case.batch).cells["encoder/layers_0/backward/cell"]
    for row, length in enumerate(case.batch["source_length"]):
        wanted = [*range(length - 1, -1, -1), *range(length, 6)]
        assert cell.order_in[row].tolist() == wanted
        assert cell.order_out[row].tolist() == wanted


def test_a_loss_of_features_weighs_every_step_alike() -> None:
    case = random_case(SEQUENCE, batch_size=4, source_time=6, target_time=5)
    assert np.array_equal(neutral_knobs(SEQUENCE, case.batch).loss_weights, np.full((4, 5), 1 / 20))


@pytest.mark.parametrize(
    ("loss", "weights"),
    [
        ("tokens", [[1 / 4, 1 / 4, 1 / 4, 0], [1 / 4, 0, 0, 0]]),
        ("steps", [[1 / 2, 1, 1, 0], [1 / 2, 0, 0, 0]]),
        ("rows", [[1 / 2, 1 / 2, 1 / 2, 0], [1 / 2, 0, 0, 0]]),
    ],
)
def test_a_loss_of_tokens_weighs_no_padding(loss, weights) -> None:
    spec = msgspec.structs.replace(TRANSLATOR, loss=loss)
    batch = dict(random_case(spec, batch_size=2, source_time=6, target_time=4).batch)
    batch["target_length"] = np.array([3, 1], np.int32)
    assert np.array_equal(neutral_knobs(spec, batch).loss_weights, weights)


@pytest.mark.parametrize(
    ("handoff", "matrix", "passes"),
    [
        ("state", [[1, 0], [0, 1]], 1),
        ("zeros", [[0, 0], [0, 0]], 1),
        ("exchanged", [[0, 1], [1, 0]], 1),
        ("stopped", [[1, 0], [0, 1]], 0),
    ],
)
def test_a_specs_handoff_is_in_its_neutral_knobs(handoff, matrix, passes) -> None:
    spec = msgspec.structs.replace(SEQUENCE, handoff=handoff)
    knobs = neutral_knobs(spec, random_case(spec).batch)
    assert knobs.handoff.tolist() == matrix
    assert knobs.passes["handoff"] == passes
