"""Each example of a fault gives its code and no other; repaired, it gives none."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from oracle.legacy_graph.diagnosis import Finding
from oracle.live_diagnosis import diagnose_live

pytestmark = [pytest.mark.filterwarnings("ignore")]

GRADIENTS = [
    ("outside_tape", "G021", "StridedSlice", "encoded = encoder"),
    ("rounded", "G022", "Cast", "tf.int32"),
    ("stopped", "G023", "StopGradient", "between("),
    ("in_python", "G024", "for a function of Python", "tf.numpy_function"),
    ("read_as_numpy", "G025", "taken as NumPy", "encoded.numpy()"),
    ("read_as_array", "G025", "a constant changes with it", "between("),
    ("unused", "G026", "bridge.kernel, bridge.bias", 'models["bridge"]('),
    ("left_out", "G027", "encoder.cell.kernel", ""),
    ("used_twice", "G011", "A non-persistent GradientTape can only", "tape.gradient(value"),
    ("saturated", "G013", "backward pass of Minimum", "tf.minimum"),
    ("undefined", "G014", "backward pass of Sqrt", "tf.sqrt"),
]

STATE = [
    ("dropped_state", "G101", "encoder: nothing that it gives reaches the loss; decoder starts", "encoder("),
    ("dropped_state_with_attention", "G101", "encoder: its final state", "encoder("),
    ("kept_tensor", "G105", "keys was computed here in an earlier call", "tf.tanh(table)"),
    ("new_variables", "G106", "4 variables are made anew", "step("),
]

MEMORY = [
    ("stale", "G103", "mechanism.", "setup_memory"),
    ("constant_memory", "G103", "mechanism.", "setup_memory"),
    ("while_made", "G102", "mechanism.", "setup_memory"),
    ("before_tape", "G102", "memory_layer.kernel", "setup_memory"),
    ("other_function", "G102", "keeps a tensor of a function that has ended", "setup_memory"),
    ("cached_embedding", "G104", "sampler.embedding_fn", "convert_to_tensor"),
]


def check(module: str, name: str, code: str, said: str, line: str) -> None:
    """Diagnose an example as it is and repaired."""
    build = getattr(importlib.import_module(f"tf_models.legacy.{module}"), name)
    (finding,) = diagnose_live(build)
    assert finding.code == code, finding
    assert said in finding.what
    assert line in read_line(finding)
    assert diagnose_live(partial(build, repaired=True)) == []


def read_line(finding: Finding) -> str:
    """The line of code that a finding names, or nothing."""
    place = finding.where.partition(": ")[2]
    if not place:
        return ""
    file, _, number = place.rpartition(":")
    with open(file, encoding="utf-8") as source:
        return source.read().splitlines()[int(number) - 1]


@pytest.mark.tf_any
@pytest.mark.parametrize(("name", "code", "said", "line"), GRADIENTS)
def test_gradients(name: str, code: str, said: str, line: str) -> None:
    check("live_gradients", name, code, said, line)


@pytest.mark.tf_any
@pytest.mark.parametrize(("name", "code", "said", "line"), STATE)
def test_state(name: str, code: str, said: str, line: str) -> None:
    check("live_state", name, code, said, line)


@pytest.mark.tf
@pytest.mark.parametrize(("name", "code", "said", "line"), MEMORY)
def test_memory(name: str, code: str, said: str, line: str) -> None:
    check("live_memory", name, code, said, line)


@pytest.mark.tf_any
def test_a_loaded_model_of_tf1(tmp_path: Any) -> None:
    """It shows no variables, and its gradient fails for the loop that lost its context, not for another None."""
    from tf_models.legacy.live_gradients import lost_context

    hidden, raised = diagnose_live(lambda: lost_context(str(tmp_path / "model")))
    assert (hidden.code, raised.code) == ("G002", "G001")
    assert "2 reference variables" in hidden.what
    assert "'outer_context'; it is the gradient of " in raised.what


@pytest.mark.tf_any
@pytest.mark.slow
def test_no_jax_is_needed() -> None:
    """TensorFlow imports JAX by itself where there is one, so it is kept from everyone."""
    code = (
        "import sys; sys.modules.update(jax=None, flax=None); from oracle.live_diagnosis import diagnose_live; "
        "print([f.code for f in diagnose_live('tf_models.legacy.live_gradients:unused')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['G026']\n"


@pytest.mark.tf_any
def test_variables_made_in_a_function() -> None:
    from tf_models.legacy.live_state import new_variables_in_function

    (finding,) = diagnose_live(new_variables_in_function)
    assert finding.code == "G106"
    assert "tf.Variable(2.0)" in read_line(finding)
