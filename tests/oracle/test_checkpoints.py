"""Weights from genuine TensorFlow checkpoints, by name, every variable once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from oracle import zoo
from oracle.bridge.checkpoints import read_checkpoint
from oracle.bridge.mapping import read_weights, write_weights
from oracle.bridge.sites import find_sites
from oracle.case import weight_shapes
from oracle.errors import BridgeError, CaseError, UsageError
from oracle.series import sunspots
from oracle.spec import LSTM, EncoderDecoder

pytestmark = pytest.mark.tf

SPEC = EncoderDecoder(13, 12, LSTM(3), LSTM(3))


def test_scoped_optimizers_are_set_apart(tmp_path: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    prefix = tmp_path / "m.ckpt"
    with tf.Graph().as_default():
        kernel = v1.get_variable("encoder/kernel", [2, 3])
        with v1.variable_scope("train"):
            v1.train.AdamOptimizer().minimize(tf.reduce_sum(kernel**2))
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(prefix))
    checkpoint = read_checkpoint(prefix)
    assert list(checkpoint.variables) == ["encoder/kernel"]
    assert sorted(checkpoint.counters) == ["train/beta1_power", "train/beta2_power"]
    assert sorted(checkpoint.slots) == ["train/encoder/kernel/Adam", "train/encoder/kernel/Adam_1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A TF1 Saver checkpoint and a TF2 checkpoint, each with its optimizer's slots."""
    from tf_models.training import train

    folder = tmp_path_factory.mktemp("trained")
    prefixes = {model: folder / f"{model}.ckpt" for model in ("dynamic_rnn", "explicit_state")}
    for model, prefix in prefixes.items():
        losses = train(model, SPEC, sunspots(), steps=4, output=prefix, batch_size=5, seed=1)
        assert len(losses) == 4
    return prefixes


def test_tf1_checkpoint_is_sorted_into_variables_slots_and_counters(trained: dict[str, Path]) -> None:
    checkpoint = read_checkpoint(trained["dynamic_rnn"])
    assert checkpoint.convention == "tf1"
    assert sorted(checkpoint.variables) == [
        "decoder/rnn/basic_lstm_cell/bias",
        "decoder/rnn/basic_lstm_cell/kernel",
        "encoder/rnn/basic_lstm_cell/bias",
        "encoder/rnn/basic_lstm_cell/kernel",
        "projection/bias",
        "projection/kernel",
    ]
    assert len(checkpoint.slots) == 12
    assert sorted(checkpoint.counters) == ["beta1_power", "beta2_power", "global_step"]
    assert checkpoint.counters["global_step"] == 4


def test_tf2_checkpoint_is_sorted_into_variables_slots_and_counters(trained: dict[str, Path]) -> None:
    checkpoint = read_checkpoint(trained["explicit_state"])
    assert checkpoint.convention == "keras"
    assert len(checkpoint.variables) == 8
    assert "encoder/cell/recurrent_kernel" in checkpoint.variables
    assert len(checkpoint.slots) >= 16


@pytest.mark.parametrize("model", ["dynamic_rnn", "explicit_state"])
def test_weights_go_to_the_oracle_and_back_bit_for_bit(trained: dict[str, Path], model: str) -> None:
    checkpoint = read_checkpoint(trained[model])
    spec = SPEC
    if checkpoint.convention == "keras":
        # Keras holds the forget bias in its bias; nothing is added at run time.
        spec = EncoderDecoder(13, 12, LSTM(3, forget_bias=0.0), LSTM(3, forget_bias=0.0))
    sites = find_sites(spec, checkpoint.convention)
    weights = read_weights(sites, checkpoint.variables, where=checkpoint.path)
    assert {path: leaf.shape for path, leaf in weights.items()} == weight_shapes(spec)
    back = write_weights(sites, weights)
    assert back.keys() == checkpoint.variables.keys()
    for name, array in back.items():
        assert np.array_equal(array, checkpoint.variables[name]), name
        assert array.dtype == np.float32


def test_the_trained_weights_that_ship_are_those_of_the_default_models() -> None:
    checkpoint = read_checkpoint(zoo.TRAINED_WEIGHTS)
    for name in zoo.DEFAULT_MODELS:
        (choice,) = zoo.choose(name)
        sites = find_sites(choice.variant.spec, checkpoint.convention)
        weights = read_weights(sites, checkpoint.variables, where=checkpoint.path)
        assert all(np.isfinite(leaf).all() for leaf in weights.values())


def test_a_path_may_be_the_index_file_or_a_directory(trained: dict[str, Path], tmp_path: Path) -> None:
    prefix = trained["dynamic_rnn"]
    names = read_checkpoint(prefix).variables.keys()
    assert read_checkpoint(f"{prefix}.index").variables.keys() == names
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(BridgeError, match="no `checkpoint` file"):
        read_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    assert read_checkpoint(tmp_path).variables.keys() == names


def test_missing_and_damaged_checkpoints_are_refused(trained: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="no checkpoint there"):
        read_checkpoint(tmp_path / "none.ckpt")
    prefix = trained["dynamic_rnn"]
    for path in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copy(path, tmp_path)
    copy = tmp_path / prefix.name
    data = tmp_path / f"{prefix.name}.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(BridgeError, match="not a whole checkpoint"):
        read_checkpoint(copy)
    data.write_bytes(bytes([*content[:100], content[100] ^ 1, *content[101:]]))
    with pytest.raises(BridgeError, match="not a whole checkpoint"):
        read_checkpoint(copy)
    data.unlink()
    with pytest.raises(BridgeError, match=r"has no .*\.data-"):
        read_checkpoint(copy)
    Path(f"{copy}.index").write_bytes(b"no table at all")
    data.write_bytes(content)
    with pytest.raises(BridgeError, match="not a whole checkpoint"):
        read_checkpoint(copy)


def test_a_checkpoint_of_another_architecture_is_refused_with_both_sides(trained: dict[str, Path]) -> None:
    checkpoint = read_checkpoint(trained["dynamic_rnn"])
    with pytest.raises(BridgeError) as error:
        read_weights(
            find_sites(EncoderDecoder(13, 12, LSTM(4), LSTM(4)), "tf1"), checkpoint.variables, where="x.ckpt"
        )
    assert "x.ckpt: 'encoder/rnn/basic_lstm_cell/kernel' is [16, 12], the spec wants [17, 16]" in str(
        error.value
    )


def test_leftovers_and_gaps_are_refused_and_the_likely_mate_is_named(trained: dict[str, Path]) -> None:
    variables = dict(read_checkpoint(trained["dynamic_rnn"]).variables)
    variables["enc/rnn/basic_lstm_cell/kernel"] = variables.pop("encoder/rnn/basic_lstm_cell/kernel")
    with pytest.raises(BridgeError) as error:
        read_weights(find_sites(SPEC, "tf1"), variables, where="x.ckpt")
    message = str(error.value)
    assert "no variable 'encoder/rnn/basic_lstm_cell/kernel' [16, 12]" in message
    assert "maybe 'enc/rnn/basic_lstm_cell/kernel' [16, 12], which is left over, is meant" in message
    assert "'enc/rnn/basic_lstm_cell/kernel' [16, 12] has no place in the spec" in message


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    from tf_models.training import train

    spec = EncoderDecoder(13, 12, LSTM(24), LSTM(24))
    losses = train("dynamic_rnn", spec, sunspots(), steps=60, output=tmp_path / "m.ckpt", batch_size=100)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_training_that_cannot_be_done_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tf_models.training import train

    with pytest.raises(UsageError, match="cannot be trained"):
        train("implicit_state", SPEC, sunspots(), steps=1, output=tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match=r"cannot read a checkpoint with one of \* \? \["):
        train("dynamic_rnn", SPEC, sunspots(), steps=1, output=tmp_path / "m[1]")
    with pytest.raises(BridgeError, match="for a pattern"):
        read_checkpoint(tmp_path / "m[1]")
    (tmp_path / "old.ckpt.index").touch()
    with pytest.raises(UsageError, match="is there already"):
        train("dynamic_rnn", SPEC, sunspots(), steps=1, output=tmp_path / "old.ckpt")
    (tmp_path / "old.ckpt.index").unlink()
    with pytest.raises(UsageError, match="at least 1"):
        train("dynamic_rnn", SPEC, sunspots(), steps=0, output=tmp_path / "m.ckpt")
    with pytest.raises(UsageError, match="not a directory"):
        train("dynamic_rnn", SPEC, sunspots(), steps=1, output=tmp_path / "no" / "m.ckpt")

    def stop(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            "dynamic_rnn", SPEC, sunspots(), steps=2, output=tmp_path / "m.ckpt", batch_size=3, on_step=stop
        )
    assert not list(tmp_path.iterdir())


def test_not_finite_weights_are_refused() -> None:
    from oracle.case import Case, random_case

    case = random_case(SPEC)
    weights = {**case.weights, "projection/bias": np.full(12, np.nan, np.float32)}
    with pytest.raises(CaseError, match="weight projection/bias is not finite"):
        Case(SPEC, 0, weights, case.batch, "x.ckpt", "random")
