"""Finding loops and conds in a graph, without TensorFlow."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.frames import Branch, ControlFlow, Frame, find_control_flow
from oracle.legacy_graph.graph import read_graph
from oracle.legacy_graph.model_file import read_model_file
from tests.oracle.legacy_graph.golden import FILES, GRAPHS
from tests.oracle.legacy_graph.graph_bytes import field, loop, node


def read(data: bytes) -> ControlFlow:
    return find_control_flow(read_graph(data, where="test"), where="test")


def read_golden(name: str) -> ControlFlow:
    (meta,) = read_model_file(GRAPHS / name).meta_graphs
    return find_control_flow(read_graph(meta.graph, where=name), where=name)


def test_a_loop() -> None:
    flow = read(loop())
    (found,) = flow.loops.values()
    assert found.frame == "f"
    assert found.condition == "cond"
    assert found.is_bounded
    assert found.constants == ("bound",)
    (variable,) = found.variables
    assert variable.enter == "enter"
    assert variable.merge == "merge"
    assert variable.switch == "switch"
    assert variable.body == "body"
    assert variable.next_iteration == "next"
    assert variable.exit == "exit"
    inside = {name for name, context in flow.contexts.items() if context == Frame("f")}
    assert inside == {"enter", "bound", "merge", "less", "cond", "switch", "body", "twice", "next", "exit"}


def test_a_pruned_exit() -> None:
    (found,) = read(loop(exit=None)).loops.values()
    assert found.variables[0].exit is None


def test_an_exit_after_an_identity() -> None:
    """The loops of gradients, which a training graph holds, are left so."""
    changed = {"out": node("out", "Identity", ["switch"], T=1), "exit": node("exit", "Exit", ["out"], T=1)}
    (found,) = read(loop(**changed)).loops.values()
    assert found.variables[0].exit == "exit"


def test_a_pruned_switch() -> None:
    """Only the condition reads the second variable, so a pruned graph has no Switch of it."""
    second = {
        "less": node("less", "Less", ["second", "bound"], T=1),
        "start": node("start", "Enter", ["x"], T=1, frame_name="f"),
        "second": node("second", "Merge", ["start", "again"], T=1),
        "again": node("again", "NextIteration", ["twice"], T=1),
    }
    (found,) = read(loop(**second)).loops.values()
    one, other = found.variables
    assert one.switch == "switch"
    assert (other.switch, other.body, other.exit) == (None, None, None)


def test_a_cond() -> None:
    data = node("p", "Placeholder", dtype=10) + node("x", "Placeholder", dtype=1)
    data += node("s", "Switch", ["x", "p"], T=1)
    data += (
        node("a", "Neg", ["s"], T=1) + node("b", "Tanh", ["s:1"], T=1) + node("m", "Merge", ["a", "b"], T=1)
    )
    flow = read(data)
    assert flow.contexts["a"] == Branch(("p", 0), 0, None)
    assert flow.contexts["b"] == Branch(("p", 0), 1, None)
    # One Switch serves both branches, so it is in neither.
    assert flow.contexts["s"] is None
    assert flow.contexts["m"] is None


@pytest.mark.parametrize(
    ("name", "loops", "depth", "conds"),
    [
        ("attention-decoder", 2, 2, 2),
        ("bidirectional", 2, 1, 0),
        ("frozen-loops.pb", 2, 3, 1),
        ("frozen-lstm.pb", 1, 1, 0),
        ("hub-module", 1, 1, 0),
        ("loop-in-cond", 1, 2, 1),
        ("loop-in-loop", 2, 3, 1),
        ("meta-lstm.meta", 1, 1, 0),
        ("stacked-gru", 1, 1, 0),
        ("stacked-lstm", 1, 1, 0),
    ],
)
def test_kept_files(name: str, loops: int, depth: int, conds: int) -> None:
    flow = read_golden(name)
    assert len(flow.loops) == loops
    assert max(len(flow.path(context)) for context in flow.contexts.values()) == depth
    assert len({branch.predicate for branch in flow.branches}) == conds


def test_nesting_is_read_from_the_graph() -> None:
    flow = read_golden("loop-in-loop")
    assert flow.parents == {
        "while/while_context": None,
        "while/while/while_context": Frame("while/while_context"),
    }
    flow = read_golden("loop-in-cond")
    assert flow.parents == {"cond/while/while_context": Branch(("deep", 0), 1, None)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"next": None}, "'merge' .Merge. reads 'next', which is not in the graph"),
        ({"cond": node("cond", "Identity", ["less"], T=10)}, "1 loop variables and 0 conditions"),
        ({"enter": node("enter", "Enter", ["x"], T=1)}, "names no frame"),
        ({"enter": node("enter", "Enter", ["x", "x"], T=1, frame_name="f")}, "does not read one value"),
        (
            {"bound": node("bound", "Identity", ["limit"], T=1)},
            "'less' .Less. is in the loop 'f' and reads 'bound'",
        ),
        (
            {"bound": node("bound", "Enter", ["limit"], T=1, frame_name="g", is_constant=True)},
            "0 loop variables",
        ),
        ({"again": node("again", "Exit", ["switch"], T=1)}, "is read by 2 Exit"),
        ({"stray": node("stray", "Exit", ["x"], T=1)}, "part of a loop whose other parts are missing"),
        (
            {
                "twice": node("twice", "Add", ["body", "late"], T=1),
                "late": node("late", "Neg", ["twice"], T=1),
            },
            "cycle",
        ),
        ({"switch": node("switch", "Switch", ["merge"], T=1)}, "does not read a value and a predicate"),
        ({"enter": node("enter", "Enter", ["exit"], T=1, frame_name="f")}, "cycle"),
        ({"merge": node("merge", "Merge", ["enter", "next", "next"], T=1)}, "does not read one Enter"),
        ({"second": node("second", "Merge", ["x", "next"], T=1)}, "reads 0 Enter beside a NextIteration"),
        ({"cond": node("cond", "LoopCond")}, "does not read one value"),
    ],
)
def test_malformed_frames(changed: dict[str, bytes | None], message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        read(loop(**changed))
    assert caught.value.code in ("G302", "G303")
    assert "\n" not in str(caught.value)


def test_a_loop_that_cannot_end() -> None:
    unchanged = {"next": node("next", "NextIteration", ["body"], T=1)}
    constant = {
        "cond": node("cond", "LoopCond", ["forever"]),
        "forever": node("forever", "Const", ["^merge"], dtype=10),
    }
    for changed in (unchanged, constant):
        (found,) = read(loop(**changed)).loops.values()
        assert not found.is_bounded


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello world",
        node("a", "NoOp") + node("a", "NoOp"),
        node("", "NoOp"),
        node("a", ""),
        node("a", "Identity", ["a:x"]),
        node("a", "Identity", ["a:99999999999"]),
        node("a" * 5000, "NoOp"),
        field(1, b"\xff" * 20),
        node("a", "Add", ["b"]),
    ],
)
def test_no_graph(data: bytes) -> None:
    with pytest.raises(GraphError) as caught:
        read_graph(data, where="test")
    assert caught.value.code in ("G301", "G302")


def test_damaged_files_are_refused_or_read() -> None:
    """Whatever is in a file, the answer is control flow or one clear error."""
    rng = random.Random(0)
    whole = (GRAPHS / "frozen-loops.pb").read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.randrange(1, 5)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        error = None
        try:
            read(bytes(data))
        except GraphError as caught:
            error = caught
        refused += error is not None
        assert "\n" not in str(error)
    assert refused > 100


def test_every_kept_file_without_tensorflow() -> None:
    code = (
        "import sys\n"
        "from oracle.legacy_graph.diagnosis import diagnose\n"
        "for path in sys.argv[1:]: assert diagnose(path)\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, *(str(GRAPHS / name) for name in FILES)], check=True)
