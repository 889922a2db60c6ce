"""A person's own code is found as pytest and gunicorn find it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from oracle.errors import UsageError
from oracle.recorder import RecorderError, load_target
from oracle.recorder import main as recorder_main
from oracle.user_code import is_target, load_factory, load_object

CODE = """
import beside_{n}
def make(*arguments, **options):
    return arguments, options
class Holder:
    constant = 5
    class Inner:
        @staticmethod
        def build(units=1):
            return units * beside_{n}.FACTOR
def broken():
    raise ValueError("no")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, with another beside it, both of names that are used once."""
    number = len([name for name in sys.modules if name.startswith("beside_")])
    (tmp_path / f"beside_{number}.py").write_text("FACTOR = 2\n")
    (tmp_path / f"user_module_{number}.py").write_text(CODE.format(n=number))
    (tmp_path / "package").mkdir()
    monkeypatch.chdir(tmp_path)
    # The recorder, a script, leaves the search path as it made it.
    monkeypatch.setattr(sys, "path", list(sys.path))
    return f"user_module_{number}"


def test_functions_by_module_file_and_dotted_path(module: str, tmp_path: Path) -> None:
    for place in (module, f"{module}.py", str(tmp_path / f"{module}.py")):
        assert load_factory(f"{place}:make")() == ((), {})
        assert load_factory(f"{place}:Holder.Inner.build")() == 2
        assert load_target(f"{place}:Holder.Inner.build")() == 2
    assert load_object(f"{module}:Holder.constant") == 5


def test_arguments_are_literals(module: str) -> None:
    expected = (("x", 3, [1.5, None]), {"a": {"b": True}})
    target = f'{module}:make("x", 3, [1.5, None], a={{"b": True}})'
    assert load_object(target) == load_factory(target)() == load_target(target)() == expected
    assert load_object(f"{module}:Holder.Inner.build(units=4)") == 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "explicit_state/full",
        "module",
        "module:",
        ":f",
        "m:f(",
        "m:f(__import__('os'))",
        "m:f(x)",
        "m:f()()",
        "m:f[0]",
    ],
)
def test_what_is_no_target_is_refused_and_nothing_is_evaluated(text: str) -> None:
    assert not is_target(text)
    with pytest.raises(UsageError, match="names no function"):
        load_factory(text)
    with pytest.raises(RecorderError, match="names no function"):
        load_target(text)


def test_what_is_not_there_is_said_with_the_nearest(module: str) -> None:
    for target, said in (
        ("absent_module_x:f", "no module 'absent_module_x'"),
        ("absent.py:f", "absent.py: no such file"),
        (f"{module}:mkae", "has no function 'mkae'; did you mean 'make'"),
        (f"{module}:Holder.Iner", "Holder has no function 'Iner'; did you mean 'Inner'"),
        (f"{module}:Holder.constant(3)", "is a int; give a function"),
        (f"{module}:broken()", "calling it raised ValueError: no"),
    ):
        with pytest.raises(UsageError, match=said.replace("(", r"\(")):
            load_object(target)


def test_a_module_that_raises_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import not_there_at_all")
    with pytest.raises(UsageError, match="importing it raised ModuleNotFoundError"):
        load_object(f"{tmp_path / 'bad.py'}:f")
    assert "user_code_bad" not in sys.modules


def test_code_that_exits_is_no_success(tmp_path: Path) -> None:
    """`sys.exit(0)` in a person's code must not end the command with 0."""
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "made.py").write_text("import sys\n\ndef make():\n    sys.exit(0)\n")
    with pytest.raises(UsageError, match="importing it raised SystemExit"):
        load_object(f"{tmp_path / 'leaves.py'}:f")
    with pytest.raises(UsageError, match="calling it raised SystemExit"):
        load_object(f"{tmp_path / 'made.py'}:make()")
    assert recorder_main([f"{tmp_path / 'leaves.py'}:f", "-o", str(tmp_path / "r")]) == 2
    assert not (tmp_path / "r").exists()
