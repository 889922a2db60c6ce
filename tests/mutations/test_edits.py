"""Every seeded fault still fits its port, and says what it needs to. No framework."""

from __future__ import annotations

import collections

import pytest

from oracle.bridge.sites import find_sites
from oracle.errors import OracleError, UsageError
from oracle.selftest.fault import FAMILIES, PORTS, Edit, Fault, FaultError, edit_source
from oracle.selftest.faults import FAULTS, choose_faults, find_fault
from oracle.selftest.places import find_places
from oracle.selftest.subjects import SUBJECTS, draw_subject, find_subject
from oracle.spec import AttentionNMT, encode

IDS = [fault.name for fault in FAULTS]


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 60
    assert {fault.family for fault in FAULTS} == set(FAMILIES)


def test_names_are_unique() -> None:
    assert not [name for name, count in collections.Counter(IDS).items() if count > 1]


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_every_edit_applies_and_changes_the_source(fault: Fault) -> None:
    source = edit_source(fault)
    compile(source, fault.name, "exec")
    assert source != (PORTS / f"{fault.module}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_a_fault_is_seeded_in_ports_of_its_module(fault: Fault) -> None:
    assert fault.subjects
    for name in fault.subjects:
        assert find_subject(name).port.partition("/")[0] == fault.module
    assert fault.places


SEAMS = {"handoff", "memory", "feeding", "loss"}
TENSORS = {"state/encoder", "output/encoder", "output/decoder", "output/prediction", "batch/target"}
EMBEDDED = {"embedded/source", "embedded/target"}


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_a_place_is_one_that_the_model_has_and_no_half_of_it(fault: Fault) -> None:
    for name in fault.subjects:
        spec = find_subject(name).spec
        sites = [site.path for site in find_sites(spec, "keras")]
        layers = {*sites, *(path.partition("/forward/")[0] for path in sites)}
        for place in find_places(fault.places, spec):
            bare = place.removeprefix("gradient/")
            named = bare in SEAMS | TENSORS | EMBEDDED
            assert named or any(f"{bare}/".startswith(f"{layer}/") for layer in layers), place


def test_two_faults_are_not_one_edit() -> None:
    sources = collections.Counter((fault.module, edit_source(fault)) for fault in FAULTS)
    assert max(sources.values()) == 1


def test_the_subjects_cover_the_models() -> None:
    specs = [subject.spec for subject in SUBJECTS.values()]
    translators = [spec for spec in specs if isinstance(spec, AttentionNMT)]
    assert {spec.attention.mechanism for spec in translators} == {
        "luong",
        "bahdanau",
        "luong_monotonic",
        "bahdanau_monotonic",
    }
    assert {spec.cell for spec in translators} == {"lstm", "gru"}
    assert {spec.layers for spec in translators} == {1, 2}
    assert {spec.loss for spec in translators} == {"tokens", "steps", "rows"}
    used = {name for fault in FAULTS for name in fault.subjects}
    assert used >= set(SUBJECTS) - {"luong-lstm-2"}


def test_an_edit_that_fits_nowhere_is_refused() -> None:
    fault = Fault("lost", "loss", "explicit_state", ("pair",), (Edit("no such line", ""),), (), ("loss",))
    with pytest.raises(FaultError, match="0 times, not once"):
        edit_source(fault)


def test_an_edit_that_fits_twice_must_say_where() -> None:
    old = "self.cell = tf.keras.layers.LSTMCell(units, dtype=self.dtype_policy)"
    options = ("twice", "cells", "explicit_state", ("pair",))
    with pytest.raises(FaultError, match="2 times, not once"):
        edit_source(Fault(*options, (Edit(old, "pass"),), (), ("loss",)))
    with pytest.raises(OracleError, match="number 2 is meant"):
        edit_source(Fault(*options, (Edit(old, "pass", 2),), (), ("loss",)))
    first, second = (
        edit_source(Fault(*options, (Edit(old, "pass", place),), (), ("loss",))) for place in (0, 1)
    )
    assert first.index("pass\n") < second.index("pass\n")
    assert first.count(old) == second.count(old) == 1


def test_faults_are_chosen_by_a_part_of_the_name_or_the_family() -> None:
    assert find_fault("state-exchanged") in choose_faults("exchanged")
    assert {fault.family for fault in choose_faults("dropout")} == {"dropout"}
    assert choose_faults("") == FAULTS
    with pytest.raises(UsageError, match="no seeded fault"):
        choose_faults("zzz")
    with pytest.raises(UsageError, match="zzz"):
        find_fault("zzz")
    with pytest.raises(UsageError, match="there is pair"):
        find_subject("zzz")


def test_right_ports_are_drawn_anew_for_each_number_and_again_for_the_same() -> None:
    drawn = [draw_subject(3, number) for number in range(60)]
    assert drawn == [draw_subject(3, number) for number in range(60)]
    assert len({str(encode(subject.spec)) for subject in drawn}) > 55
    assert {subject.port.partition("/")[0] for subject in drawn} == {
        "explicit_state",
        "dynamic_rnn",
        "attention_nmt",
    }
