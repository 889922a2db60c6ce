"""A real TensorFlow 1.15.5 beside: the golden files made again, and what we write restored by it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from oracle.bridge.formats.reading import read_weight_file
from oracle.bridge.formats.writing import write_weight_file
from tests.golden.install_tf115 import find_interpreter
from tests.oracle.bridge.golden_files import GOLDEN, same_bits

INTERPRETER = find_interpreter()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        INTERPRETER is None,
        reason="needs TensorFlow 1.15.5 on CPython 3.7: python -m tests.golden.install_tf115",
    ),
]

RESTORE = """
import sys
import numpy as np
import tensorflow as tf
reader = tf.train.NewCheckpointReader(sys.argv[1])
names = sorted(reader.get_variable_to_shape_map())
np.savez(sys.argv[2], **{str(index): reader.get_tensor(name) for index, name in enumerate(names)})
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    kernel = tf.compat.v1.get_variable("encoder/rnn/basic_lstm_cell/kernel", [8, 12])
    tf.compat.v1.train.Saver([kernel]).restore(session, sys.argv[1])
    assert (session.run(kernel) == reader.get_tensor(kernel.op.name)).all()
"""


def test_the_golden_files_can_be_made_again(tmp_path: Path) -> None:
    script = GOLDEN / "make_tf115.py"
    subprocess.run([str(INTERPRETER), str(script), str(tmp_path / "made")], check=True, capture_output=True)
    with np.load(tmp_path / "made" / "expected.npz") as file:
        expected = {name: file[name] for name in file.files}
    for name in (
        "saver-v1.ckpt",
        "saver-v2.ckpt",
        "cells.ckpt",
        "dtypes-v1.ckpt",
        "dtypes-v2.ckpt",
        "saved-model",
    ):
        read = read_weight_file(tmp_path / "made" / name).everything()
        own = {
            key.partition("|")[2]: array for key, array in expected.items() if key.partition("|")[0] == name
        }
        assert read.keys() == own.keys() == read_weight_file(GOLDEN / "tf115" / name).everything().keys()
        assert all(same_bits(read[key], array) for key, array in own.items())


@pytest.mark.tf_any
def test_it_restores_a_checkpoint_that_we_wrote(tmp_path: Path) -> None:
    weights = read_weight_file(GOLDEN / "tf115" / "saver-v1.ckpt")
    write_weight_file(weights, tmp_path / "m.ckpt", format="tf1-checkpoint")
    command = [str(INTERPRETER), "-c", RESTORE, str(tmp_path / "m.ckpt"), str(tmp_path / "read.npz")]
    subprocess.run(command, check=True, capture_output=True)
    everything = weights.everything()
    with np.load(tmp_path / "read.npz") as file:
        assert len(file.files) == len(everything)
        for index, name in enumerate(sorted(everything)):
            assert file[str(index)].tobytes() == everything[name].tobytes()
