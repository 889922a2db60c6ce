"""The codes of findings and refusals: what each means, why it happens, and what to do.

`python -m oracle.legacy_graph.codes FOLDER` writes a page for each.
"""

from __future__ import annotations

import difflib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from oracle.errors import UsageError


@dataclass(frozen=True)
class Code:
    """A code.

    Args:
        code: as `G001`. Never reused for something else.
        title: what it says, in a line.
        why: why it happens.
        remedy: what to do.
        messages: regular expressions of the errors that it is behind.
        example: what shows it: a function in `tf_models/legacy`, or empty.
    """

    code: str
    title: str
    why: str
    remedy: str
    messages: tuple[str, ...] = ()
    example: str = ""


CODES = {
    code.code: code
    for code in (
        Code(
            "G001",
            "a TF1 loop that TensorFlow cannot differentiate: it has lost its WhileContext",
            "TF1 builds a loop from Enter, Merge, Switch, NextIteration and Exit. `dynamic_rnn` and "
            "`dynamic_decode` build such loops. To differentiate one, TensorFlow needs a Python object, the "
            "WhileContext, which says what the loop's variables are, where it ends, and which loop it lies "
            "in. The object is not part of a GraphDef. `tf.saved_model.load`, the import of a frozen "
            "graph and "
            "`prune` make a graph without it, so the forward pass works and every gradient fails with "
            "`AttributeError: 'NoneType' object has no attribute 'outer_context'`. It has nothing to do with "
            "the state of a cell, and no setting of TensorFlow 2 brings the object back.",
            "`oracle repair SRC DST` rebuilds the contexts from the graph and writes a TF2 SavedModel that "
            "`tf.GradientTape` differentiates; in Python, `oracle.repair(SRC)`. A MetaGraph keeps the "
            "contexts, so in TF1 style `tf.compat.v1.train.import_meta_graph` differentiates too.",
            (r"'NoneType' object has no attribute 'outer_context'",),
            "tf_models.legacy.loops:save_loop",
        ),
        Code(
            "G002",
            "a SavedModel that shows no variables: they are TF1 reference variables",
            "`tf.saved_model.load` makes Python objects for resource variables only. For a reference "
            "variable (VariableV2), which TF1 makes by default, it logs a warning and leaves it out, so "
            "`.variables` is empty and nothing can be trained, though the values are there.",
            "`oracle repair SRC DST` makes an ordinary `tf.Variable` of each. Or save the model "
            "again from TF1 "
            "after `tf.enable_resource_variables()`.",
            (r"because it is a reference variable",),
            "tf_models.legacy.loops:save_loop",
        ),
        Code(
            "G003",
            "TF1 loops within the functions of a TF2 SavedModel",
            "A TF1 SavedModel that was loaded in TensorFlow 2 and saved again has its loops in functions, "
            "whose bodies keep no contexts, and its collections are gone. Every gradient fails as in G001, "
            "unless custom gradients were saved with it: what `oracle repair` writes is such a model.",
            "Repair the TF1 model that it was made from.",
            (),
            "tf_models.legacy.loops:save_again",
        ),
        Code(
            "G004",
            "a frozen graph: what were variables are constants",
            "`convert_variables_to_constants` and `freeze_graph` put values in the place of variables, so "
            "nothing is left to train. They also prune what the outputs do not need, the exits of loop "
            "variables among it.",
            "`oracle repair SRC DST --trainable REGEX` makes variables of the constants whose names match.",
            (),
            "tf_models.legacy.loops:freeze_loop",
        ),
        Code(
            "G005",
            "a TF1 cond outside loops: it differentiates by itself",
            "Gradients of Switch and Merge outside loops need no CondContext as long as no resource variable "
            "goes into a branch (G006): TensorFlow 2 differentiates such a SavedModel as TF1 does.",
            "None is needed. Within a loop, the cond's context is rebuilt with the loop's.",
            (),
            "tf_models.legacy.loops:save_cond",
        ),
        Code(
            "G006",
            "a TF1 cond that reads a resource variable: TensorFlow 2 cannot differentiate it",
            "The variable's resource goes into the branch through a Switch. Without its CondContext, "
            "which the "
            "loaded graph has lost, the Switch's gradient is made of a resource and a number, and fails: "
            "`Tensors in list passed to 'inputs' of 'Merge' Op have types [resource, float32] that don't all "
            "match`, sometimes under an error on the binding of inputs.",
            "`oracle repair SRC DST` rebuilds the contexts.",
            (r"'inputs' of 'Merge' Op have types \[[^]]*resource",),
            "tf_models.legacy.loops:save_cond",
        ),
        Code(
            "G011",
            "the gradient raises",
            "Building or running the gradient failed for a reason other than a lost context; the finding "
            "quotes it.",
            "If the reason has a code of its own, `oracle diagnose --error TEXT` finds it.",
        ),
        Code(
            "G012",
            "the gradient is None: no differentiable path leads from the output to the input or variable",
            "Either the output does not depend on it at all, or every path passes an operation without a "
            "gradient: a cast to integers, argmax, a comparison, stop_gradient, py_function. The finding "
            "names the last operation that the source still reaches.",
            "Take the named operation off the path, or replace it by one with a gradient.",
            (r"No gradients provided for any variable",),
            "tf_models.legacy.connections:save_broken_paths",
        ),
        Code(
            "G013",
            "the gradient is zero everywhere",
            "It exists and is exactly zero: a saturated clip, relu or mask, a factor that is zero, or inputs "
            "on which nothing depends on it.",
            "Try other inputs (`--inputs`). If it stays zero, look for what multiplies it by zero.",
            (),
            "tf_models.legacy.connections:save_zero",
        ),
        Code(
            "G014",
            "the gradient is not finite",
            "An infinite or undefined derivative, as of a square root or a logarithm at zero, or of a "
            "`where` whose discarded side is undefined.",
            "Keep the argument away from the point (`sqrt(x + eps)`), or apply `where` to the argument too.",
            (),
            "tf_models.legacy.connections:save_infinite",
        ),
        Code(
            "G201",
            "an operation has no gradient",
            "TensorFlow has registered none for it, or none of the outputs is floating.",
            "Choose other outputs, or export a model that does not use the operation.",
            (r"No gradient defined for operation", r"[Gg]radient registry has no entry"),
        ),
        Code(
            "G202",
            "TensorFlow cannot import the graph",
            "An operation is not known to this TensorFlow, as those of a custom library or of tf.contrib, or "
            "its attributes are not what they should be.",
            "Import the library that defines the operation first, or export the model without it.",
            (r"Op type not registered",),
        ),
        Code(
            "G203",
            "the graph changes or keeps state",
            "Assignments, queues and iterators make the outputs depend on more than inputs and variables.",
            "Export a signature for inference.",
        ),
        Code(
            "G204",
            "the graph draws random numbers",
            "A repaired model computes the forward pass again for the gradient, and would draw other "
            "numbers.",
            "Export the model with dropout and sampling off, or with the noise as an input.",
        ),
        Code(
            "G205",
            "the graph needs a lookup table",
            "Tables are resources that are filled from files when a model is loaded.",
            "Export a signature that begins after the lookup, with ids for inputs.",
        ),
        Code(
            "G206",
            "the graph calls Python code",
            "`py_func` is a call into the process that built the graph; the file does not hold the code.",
            "Export the model without it.",
        ),
        Code(
            "G207",
            "the graph calls functions of TensorFlow 2",
            "`oracle repair` is for graphs of TF1. Functions are TensorFlow 2's.",
            "Give the TF1 model that it was made from.",
        ),
        Code(
            "G208",
            "a loop that never ends",
            "Nothing that the loop does changes its condition, or a run had not finished after a minute.",
            "Export the loop with a condition that a step can change, or give inputs for which it ends.",
        ),
        Code(
            "G209",
            "a loop whose gradient its author switched off",
            "It was built with `back_prop=False`, as decoding loops often are. TF1 gives it no "
            "gradient either.",
            "Build it with `back_prop=True`; for a decoder, use the training graph.",
        ),
        Code(
            "G210",
            "the repaired model does not agree with the original",
            "An output differs in a bit, a gradient differs from TF1's own or from directional differences "
            "of the forward pass, or the differences cannot tell. Nothing was written.",
            "Try other inputs (`--inputs`), away from kinks. Please report it with the model if it stays.",
        ),
        Code(
            "G211",
            "a second derivative of a repaired model",
            "A repaired model's gradient is a graph of TF1 loops of its own, whose gradient is not built.",
            "Use first derivatives only; do not take a gradient within another tape.",
            (r"has first derivatives only",),
        ),
        Code(
            "G301",
            "not a graph, or a damaged one",
            "The file is none of a SavedModel, a GraphDef and a MetaGraph, or it was cut short.",
            "Copy or export it again.",
        ),
        Code(
            "G302",
            "a node reads what is not in the graph",
            "The graph was cut or edited by hand.",
            "Export it anew.",
        ),
        Code(
            "G303",
            "malformed control flow",
            "A loop lacks a part, a node joins values of two loops, or frames contain themselves.",
            "Export the graph anew.",
            (r"Invalid loop structure", r"has inputs from different frames"),
        ),
        Code(
            "G304",
            "several signatures, or none of that name",
            "A SavedModel may hold several; which one is meant must be said.",
            "Give `--signature NAME`.",
        ),
        Code(
            "G305",
            "an input or output that is not in the graph, or cannot be one",
            "A name is wrong, a tensor is sparse, or the outputs need a placeholder that is no input.",
            "Name the tensors with `--input` and `--output`.",
        ),
        Code(
            "G306",
            "--trainable matches nothing",
            "No floating constant outside loops has a name that the expression matches.",
            "Choose among the names that the message lists.",
        ),
        Code(
            "G307",
            "a variable has no value",
            "The checkpoint is missing, a shard of it is, or it lacks the variable, or is of another model.",
            "Copy every file of the checkpoint: the index and all of its data files.",
        ),
        Code(
            "G308",
            "no inputs to verify on",
            "Inputs are drawn from the shapes and dtypes; a model may refuse all of them, and strings and "
            "unknown ranks cannot be drawn.",
            "Give `--inputs FILE.npz`, an array for each input.",
        ),
        Code(
            "G309",
            "the target cannot be written",
            "It is there already, or its folder cannot be written. The source is never touched.",
            "Give a folder that does not exist yet.",
        ),
        Code(
            "G310",
            "a checkpoint without a graph",
            "A checkpoint holds values only; gradients are a matter of the graph.",
            "Give the `.meta` file that was saved with it, or the SavedModel; `oracle inspect` lists "
            "its values.",
        ),
    )
}
"""Every code. G0: findings. G2: what cannot be repaired. G3: what is wrong with what was given."""


def find_code(name: str) -> Code:
    """A code by its name.

    Raises:
        UsageError: if there is none.
    """
    found = CODES.get(name.upper())
    if found is None:
        near = difflib.get_close_matches(name.upper(), CODES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CODES)}"
        raise UsageError(f"{name}: no such code; {hint}")
    return found


def match_error(text: str) -> Code | None:
    """The code behind an error message, or None if it is not a known one. A code in the text counts."""
    for code in CODES.values():
        if any(re.search(message, text) for message in code.messages):
            return code
    named = re.search(r"\bG\d{3}\b", text)
    return CODES.get(named.group()) if named else None


def render_code(code: Code) -> str:
    """A code's page, in Markdown."""
    lines = [f"# {code.code}: {code.title}", "", code.why, "", f"**What to do.** {code.remedy}"]
    if code.messages:
        shown = [message.replace("[Gg]", "g") for message in code.messages]
        lines += ["", "Messages that it is behind:", "", *(f"- `{message}`" for message in shown)]
    if code.example:
        lines += ["", f"Shown by `{code.example}`."]
    return "\n".join(lines) + "\n"


def main(folder: str) -> None:
    """Write a page for each code."""
    for code in CODES.values():
        Path(folder, f"{code.code}.md").write_text(render_code(code), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
