"""The codes, their pages, and the messages that they explain."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from oracle.errors import UsageError
from oracle.legacy_graph.codes import CODES, find_code, match_error, render_code

ROOT = Path(__file__).parents[3]


def test_every_code_has_its_page() -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "codes").glob("*.md")}
    assert pages == {code.code: render_code(code) for code in CODES.values()}


def test_every_code_that_is_raised_is_explained() -> None:
    folders = [ROOT / "oracle" / "legacy_graph", ROOT / "oracle" / "live_diagnosis"]
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py")]
    named = {code for text in texts for code in re.findall(r'"(G\d{3})"', text)}
    assert named <= set(CODES)
    # The others are of errors that TensorFlow, or what we write, raises without us.
    assert all(CODES[code].messages for code in set(CODES) - named)


@pytest.mark.parametrize("code", [code for code in CODES.values() if code.example])
def test_examples_exist(code: object) -> None:
    module, _, function = code.example.partition(":")
    spec = importlib.util.find_spec(module)
    assert f"def {function}(" in Path(spec.origin).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("AttributeError: 'NoneType' object has no attribute 'outer_context'", "G001"),
        (
            "WARNING:tensorflow:Unable to create a python object for variable <tf.Variable 'k:0' shape=(8, 20) "
            "dtype=float32_ref> because it is a reference variable. It may not be visible",
            "G002",
        ),
        (
            "Tensors in list passed to 'inputs' of 'Merge' Op have types [resource, float32] that don't all match.",
            "G006",
        ),
        ("LookupError: No gradient defined for operation 'Bincount' (op type: Bincount).", "G201"),
        ("error: G307: x/variables.index has no variables.data-... beside it", "G307"),
        (
            "TypeError: <tf.Tensor 'LuongAttention/memory_layer/Tensordot:0' shape=(5, 7, 4) dtype=float32> is out of "
            "scope and cannot be used here.",
            "G102",
        ),
        (
            "TypeError: <tf.Tensor 'add:0' shape=() dtype=float32> is out of scope and cannot be used here.",
            "G105",
        ),
        ("ValueError: Cannot query the attention before the setup of memory", "G102"),
        ("ValueError: tf.function only supports singleton tf.Variables created on the first call.", "G106"),
        ("NotImplementedError: numpy() is only available when eager execution is enabled.", "G025"),
        (
            "NotImplementedError: Cannot convert a symbolic tf.Tensor (add:0) to a numpy array.",
            "G025",
        ),
        (
            "WARNING:tensorflow:Gradients do not exist for variables ['kernel:0'] when minimizing the loss.",
            "G026",
        ),
        ("ValueError: No gradients provided for any variable: (['kernel:0'],).", "G012"),
        ("ValueError: shapes (3,) and (4,) not aligned", None),
    ],
)
def test_messages(text: str, code: str | None) -> None:
    found = match_error(text)
    assert (found.code if found else None) == code


def test_unknown_code() -> None:
    assert find_code("g001").code == "G001"
    with pytest.raises(UsageError, match="no such code"):
        find_code("G999")
