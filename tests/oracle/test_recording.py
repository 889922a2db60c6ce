"""`oracle record` and `oracle recorder` in the environment that is here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from oracle import recorder as recorder_module
from oracle.case import digest_case
from oracle.commands.record import record, recorder, verify
from oracle.compare import Comparison
from oracle.errors import RecordError, UsageError
from oracle.record import digest_inputs, read_record
from oracle.verify import verify_record

LIVE = """
import numpy as np
import tensorflow as tf
import oracle

def build(units=2):
    dense = tf.keras.layers.Dense(units, activation="tanh", name="dense")
    batch = {"x": np.linspace(-1, 1, 12).reshape(4, 3)}
    return oracle.LivePort(
        models={"dense": dense},
        batch=batch,
        loss=lambda batch: tf.reduce_sum(dense(batch["x"]) ** 2),
        reference=lambda mirror, params, batch: None,
    )

def wrong():
    return {"batch": {}}
"""

REFERENCE = """
import jax.numpy as jnp

def make_loss(power):
    def loss(params, batch):
        dense = params["dense"]
        return jnp.sum(jnp.tanh(batch["x"] @ dense["kernel"] + dense["bias"]) ** power)
    return loss
"""


def test_the_recorder_is_printed_exactly(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert recorder() == 0
    assert capfdbinary.readouterr().out == Path(recorder_module.__file__).read_bytes()


@pytest.mark.tf_any
@pytest.mark.jax
def test_a_port_by_name_is_recorded_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r"
    assert record("dynamic_rnn/full", output=path, mode="v1", seed=2, batch_size=2, precision="f32") == 0
    assert "dynamic_rnn/full (v1, float32): 20 tensors, 8 weights" in capsys.readouterr().out
    made = read_record(path)
    assert (made.origin.dtype, made.origin.mode, made.origin.seed) == ("float32", "v1", 2)
    assert digest_inputs(made.weights, made.batch) == made.origin.case
    assert verify(path, quiet=True) == 0
    assert capsys.readouterr().out.startswith("PASS dynamic_rnn/full (v1, float32): all 20 tensors match")


@pytest.mark.tf
@pytest.mark.jax
def test_a_live_port_is_recorded_and_verified_by_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recorded_live_port.py").write_text(LIVE)
    (tmp_path / "recorded_reference.py").write_text(REFERENCE)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r"
    assert record("recorded_live_port:build(units=5)", output=path, mode="function", quiet=True) == 0
    made = read_record(path)
    assert made.weights["dense/kernel"].shape == (3, 5)
    with pytest.raises(RecordError, match="--module my_flax:loss"):
        verify_record(made)
    right = verify_record(made, module="recorded_reference.py:make_loss(2)")
    assert isinstance(right, Comparison)
    assert right.matches, right.findings
    assert len(right.rows) == 3
    assert not verify_record(made, module="recorded_reference:make_loss(power=4)").matches
    with pytest.raises(UsageError, match="gave a dict; expected an oracle.LivePort"):
        record("recorded_live_port:wrong", output=path)
    sys.modules.pop("recorded_live_port", None)


def test_what_cannot_be_recorded_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"several ports, and a record is of one; choose from implicit_state/"
    ):
        record("implicit_state", output=tmp_path / "r")
    with pytest.raises(UsageError, match="cannot be written"):
        record("explicit_state/full", output=tmp_path / "no" / "r")
    with pytest.raises(UsageError, match="seed -1"):
        record("explicit_state/full", output=tmp_path / "r", seed=-1)
    assert not list(tmp_path.iterdir())


def test_digest_is_that_of_a_case() -> None:
    from tests.oracle.cases import small_case

    case = small_case("attention_nmt/lstm")
    assert digest_inputs(case.weights, case.batch) == digest_case(case)
