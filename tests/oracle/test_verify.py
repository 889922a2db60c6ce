"""Records verified without TensorFlow: by leaves, by variables, by a mapping, by a loss of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import pytest

from oracle import recorder
from oracle import spec as spec_module
from oracle.bridge.mapping import write_weights
from oracle.bridge.mapping_file import parse_mapping
from oracle.bridge.sites import find_sites
from oracle.case import Case, digest_case, random_case
from oracle.commands.record import verify
from oracle.compare import Comparison
from oracle.errors import BridgeError, CaseError, RecordError, UsageError
from oracle.pair import Pair
from oracle.record import Failure, Record, digest_inputs, read_record, write_record
from oracle.run_jax import run_oracle
from oracle.spec import LSTM, EncoderDecoder
from oracle.verify import verify_record
from tests.oracle.cases import SMALL, small_case

pytestmark = pytest.mark.jax


def as_port(case: Case, dtype="float64") -> Record:
    """What a right port would record: the oracle's own numbers, said to be a port's."""
    computed = run_oracle(case, model="right", dtype=dtype)
    origin = msgspec.structs.replace(computed.origin, side="port", framework="tensorflow")
    return replace(computed, origin=origin, weights=case.weights, batch=case.batch)


def as_variables(record: Record, names) -> Record:
    """The same by TensorFlow's names of variables: the weights in float64, and no other tensors."""
    gradients = {name: record.tensors[f"gradient/{leaf}"] for leaf, name in names.items()}
    weights = {name: record.weights[leaf].astype(np.float64) for leaf, name in names.items()}
    tensors = {"loss": record.tensors["loss"]} | {f"gradient/{n}": g for n, g in gradients.items()}
    origin = msgspec.structs.replace(record.origin, case=digest_inputs(weights, record.batch))
    return replace(record, spec=None, origin=origin, tensors=tensors, weights=weights, naming="variable")


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ("explicit_state/full", "float64"),
        ("explicit_state/full", "float32"),
        ("attention_nmt/lstm", "float64"),
    ],
)
def test_a_record_of_leaves_verifies_through_a_file(tmp_path: Path, model: str, dtype) -> None:
    case = small_case(model, seed=3)
    write_record(as_port(case, dtype), tmp_path / "r")
    record = read_record(tmp_path / "r")
    assert record.origin.case == digest_case(case)
    comparison = verify_record(record)
    assert isinstance(comparison, Comparison)
    assert comparison.matches, comparison.findings
    assert len(comparison.rows) == len(record.tensors)
    name = next(name for name in record.tensors if name.startswith("gradient/encoder"))
    wrong = record.tensors[name] * np.float32(1.001)
    found = verify_record(replace(record, tensors={**record.tensors, name: wrong.astype(dtype)}))
    assert [row.name for row in found.findings] == [name]


def test_weights_in_float64_are_not_rounded() -> None:
    """A record's weights may be no float32 numbers, as a case's always are."""
    record = as_port(random_case(SMALL, seed=1))
    moved = {name: array * (1 + 1e-7) for name, array in record.weights.items()}
    weights = {name: array.astype(np.float64) * (1 + 1e-9) for name, array in moved.items()}
    origin = msgspec.structs.replace(record.origin, case=digest_inputs(weights, record.batch))
    other = replace(record, weights=weights, origin=origin)
    comparison = verify_record(other)
    assert not comparison.matches
    assert max(row.rel_l2 for row in comparison.rows if row.rel_l2) < 1e-5


UNSHIFTED = EncoderDecoder(3, 2, LSTM(5, forget_bias=0.0), LSTM(5, forget_bias=0.0))
"""Without a forget bias a leaf is the same number as Keras' variable."""

LEAVES = {leaf: f"model/{leaf}" for leaf in random_case(SMALL).weights}


def test_names_may_lie_under_a_scope_and_lengths_are_seen_in_the_batch() -> None:
    spec = msgspec.structs.replace(UNSHIFTED, lengths=True)
    record = as_variables(as_port(random_case(spec, seed=2)), LEAVES)
    # Keras' bias holds the forget bias; of 0 here, the leaf is the variable less 1.
    comparison = verify_record(record)
    assert comparison.matches, comparison.findings
    assert "lengths" in comparison.port.flags["notes"]
    assert verify_record(record, spec=spec).matches


def test_tf1_names_need_the_right_forget_bias() -> None:
    spec = EncoderDecoder(3, 2, LSTM(5, forget_bias=0.5), LSTM(5, forget_bias=0.5))
    case = random_case(spec, seed=2)
    record = as_port(case)
    sites = find_sites(spec, "tf1")
    weights = write_weights(sites, {k: a.astype(np.float64) for k, a in case.weights.items()})
    gradients = write_weights(sites, {k: record.tensors[f"gradient/{k}"] for k in case.weights})
    tensors = {"loss": record.tensors["loss"], **{f"gradient/{k}": g for k, g in gradients.items()}}
    origin = msgspec.structs.replace(record.origin, case=digest_inputs(weights, case.batch))
    record = replace(record, spec=None, tensors=tensors, weights=weights, naming="variable", origin=origin)
    inferred = verify_record(record)
    assert not inferred.matches
    assert "assumed: forget_bias 1" in inferred.port.flags["notes"]
    assert verify_record(record, spec=spec).matches


def test_a_mapping_says_what_names_do_not() -> None:
    names = {leaf: f"v{number}" for number, leaf in enumerate(LEAVES)}
    record = as_variables(as_port(random_case(SMALL, seed=2)), names)
    with pytest.raises(BridgeError, match="say which they are with --mapping"):
        verify_record(record)
    parts = [
        {
            "path": path,
            "layout": "array",
            "shape": list(record.weights[names[path]].shape),
            "variables": names,
        }
        for path in names
    ]
    for part in parts:
        path, _, leaf = part["path"].rpartition("/")
        part |= {"path": path, "variables": {leaf: names[part["path"]]}}
    cells = [
        {
            "path": f"{scope}/cell",
            "layout": "keras_lstm_cell",
            "features": features,
            "units": 5,
            "variables": {
                leaf: names[f"{scope}/cell/{leaf}"] for leaf in ("kernel", "recurrent_kernel", "bias")
            },
        }
        for scope, features in (("encoder", 3), ("decoder", 2))
    ]
    dense = {"path": "projection", "layout": "keras_dense", "features": 5, "units": 2}
    dense["variables"] = {leaf: names[f"projection/{leaf}"] for leaf in ("kernel", "bias")}
    sites = parse_mapping({"site": [*cells, dense]}, where="mapping")
    comparison = verify_record(record, sites=sites)
    assert comparison.matches, comparison.findings
    with pytest.raises(BridgeError, match="the mapping"):
        verify_record(record, sites=sites[:2], spec=SMALL)


class TestModule:
    """A loss of one's own in JAX."""

    def make(self, tmp_path: Path, *, dtype="f8", scale=1.0, frozen=None) -> Record:
        generator = np.random.default_rng(5)
        w, b = generator.standard_normal((3, 2)).astype(dtype), generator.standard_normal(2).astype(dtype)
        x, ids = generator.standard_normal((4, 3)).astype(dtype), np.array([1, 0, 1, 2])
        y = np.tanh(x[ids] @ w + b)
        delta = (2 * y * (1 - y * y)).astype(dtype)
        with recorder.recording(str(tmp_path / "r")) as r:
            r.weights({"dense/w": w, "dense/b": b, **(frozen or {})})
            r.inputs(x=x, ids=ids)
            r.outputs(y=y, other=y)
            r.loss(np.sum(y * y).astype(dtype))
            r.gradients({"dense/w": (scale * x[ids].T @ delta).astype(dtype), "dense/b": delta.sum(0)})
        return read_record(tmp_path / "r")

    @staticmethod
    def loss(params, batch):
        import jax.numpy as jnp

        y = jnp.tanh(batch["x"][batch["ids"]] @ params["dense/w"] + params["dense/b"])
        return jnp.sum(y * y), {"y": y}

    @pytest.mark.parametrize("dtype", ["f8", "f4"])
    def test_gradients_of_a_function(self, tmp_path: Path, dtype: str) -> None:
        comparison = verify_record(self.make(tmp_path, dtype=dtype), module=self.loss)
        assert isinstance(comparison, Comparison)
        assert comparison.matches, comparison.findings
        assert [row.name for row in comparison.rows] == [
            "output/y",
            "loss",
            "gradient/dense/w",
            "gradient/dense/b",
        ]
        assert "no tensor of that name: output/other" in comparison.port.flags["notes"]
        wrong = verify_record(self.make(tmp_path, dtype=dtype, scale=1.0001), module=self.loss)
        assert [row.name for row in wrong.findings] == ["gradient/dense/w"]

    def test_what_cannot_be_traced_is_held_to_the_runs_there_are(self, tmp_path: Path) -> None:
        """A mask of values: JAX takes it op by op, and cannot give its sums another order."""

        def loss(params, batch):
            value, outputs = self.loss(params, batch)
            return value + 0 * outputs["y"][batch["x"][batch["ids"], 0] < 10].sum(), outputs

        assert verify_record(self.make(tmp_path, dtype="f4"), module=loss).matches
        wrong = verify_record(self.make(tmp_path, dtype="f4", scale=1.0001), module=loss)
        assert [row.name for row in wrong.findings] == ["gradient/dense/w"]

    @pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16])
    def test_half_precision_is_held_to_an_assumed_bound(self, tmp_path: Path, dtype) -> None:
        found = verify_record(self.make(tmp_path, dtype=dtype), module=self.loss)
        assert isinstance(found, Pair)
        assert found.matches, found.findings
        assert (found.basis, found.names) == ("assumed", ("the port", "the oracle"))
        tight = verify_record(self.make(tmp_path, dtype=dtype), module=self.loss, tolerance=1e-9)
        assert (tight.matches, tight.basis) == (False, "given")
        with pytest.raises(UsageError, match="a float64 record may err is measured"):
            verify_record(self.make(tmp_path), module=self.loss, tolerance=1e-9)
        wrong = verify_record(self.make(tmp_path, dtype=dtype, scale=1.5), module=self.loss)
        assert [row.name for row in wrong.findings] == ["gradient/dense/w"]

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
    def test_a_gradient_that_is_zero_on_both_sides_proves_nothing(self, tmp_path: Path, dtype) -> None:
        """In whatever precision: a port that has lost it would match."""

        def loss(params, batch):
            value, outputs = self.loss(params, batch)
            return value + 0 * params["dense/w"].sum() - value, outputs

        with pytest.raises(RecordError, match="zero throughout on this case"):
            verify_record(self.make(tmp_path, dtype=dtype, scale=0.0), module=loss)

    def test_a_weight_that_has_no_gradient_is_missing(self, tmp_path: Path) -> None:
        def loss(params, batch):
            value, outputs = self.loss(params, batch)
            return value + params["extra"][0], outputs

        found = verify_record(self.make(tmp_path, frozen={"extra": np.ones(1)}), module=loss)
        assert {row.name: row.status for row in found.findings}["gradient/extra"] == "missing"
        record = replace(self.make(tmp_path, frozen={"extra": np.zeros(1)}), frozen=("extra",))
        comparison = verify_record(record, module=loss)
        assert comparison.matches, comparison.findings
        assert comparison.port.flags["frozen"] == "extra"

    def test_leaves_are_nested(self, tmp_path: Path) -> None:
        def loss(params, batch):
            return self.loss({f"dense/{name}": array for name, array in params["dense"].items()}, batch)

        assert verify_record(replace(self.make(tmp_path), naming="leaf"), module=loss).matches

    def test_what_cannot_be_used_is_said(self, tmp_path: Path) -> None:
        record = self.make(tmp_path)
        for loss, said in (
            (lambda params, batch: params["dense/b"], "expected a scalar"),
            (lambda params, batch: params["W"], "raised KeyError: 'W'"),
            ("no_such_module_here:loss", "no module"),
            ("json:decoder", "is a module; give a function"),
        ):
            with pytest.raises(UsageError, match=said):
                verify_record(record, module=loss)


def test_what_cannot_be_verified_is_said() -> None:
    from oracle.bridge.mirror.spec import MirroredPart, MirrorSpec

    case = random_case(SMALL, seed=2)
    record = as_port(case)
    with pytest.raises(RecordError, match="this is the oracle's record"):
        verify_record(run_oracle(case, model="m"))
    with pytest.raises(RecordError, match="does not hold the weights"):
        verify_record(replace(record, weights={}))
    with pytest.raises(RecordError, match="does not hold the batch"):
        verify_record(replace(record, batch={}))
    with pytest.raises(RecordError, match="--module my_flax:loss"):
        verify_record(replace(record, spec=MirrorSpec(MirroredPart("Dense", leaves={"kernel": (2, 2)}))))
    with pytest.raises(RecordError, match="give --spec or --module"):
        verify_record(replace(record, spec=None))
    with pytest.raises(CaseError, match="the batch needs `source`"):
        verify_record(replace(record, batch={"x": case.batch["source"]}))
    with pytest.raises(CaseError, match="weight"):
        verify_record(replace(record, weights={"decoder/cell/bias": case.weights["decoder/cell/bias"]}))


def test_a_port_that_raised_fails_with_what_it_said() -> None:
    record = replace(
        as_port(random_case(SMALL)), tensors={}, failure=Failure("ValueError", "no", "Traceback")
    )
    comparison = verify_record(record)
    assert (comparison.matches, comparison.failure) == (False, record.failure)


def test_the_command_exits_as_it_should(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = as_variables(as_port(random_case(UNSHIFTED, seed=2)), LEAVES)
    path, spec = tmp_path / "r", tmp_path / "spec.json"
    write_record(record, path)
    assert verify(path) == 0
    said = capsys.readouterr().out
    assert said.startswith("note: spec inferred")
    assert "PASS right (jit, float64): all 9 tensors match" in said
    spec.write_text(json.dumps(spec_module.encode(UNSHIFTED)))
    assert verify(path, spec=spec, quiet=True) == 0
    assert capsys.readouterr().out.startswith("PASS")
    assert verify(path, output_format="json") == 0
    assert json.loads(capsys.readouterr().out)["matches"]
    wrong = {name: None if name.endswith("bias") else array for name, array in record.tensors.items()}
    write_record(replace(record, tensors=wrong), path)
    assert verify(path, output=tmp_path / "out.xml", output_format="junit") == 1
    assert 'failures="3"' in (tmp_path / "out.xml").read_text()
    spec.write_text("{")
    with pytest.raises(Exception, match=r"spec.json: not JSON"):
        verify(path, spec=spec)
    with pytest.raises(UsageError, match="give one"):
        verify(path, spec=spec, module="a:b")
