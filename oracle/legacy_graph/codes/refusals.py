"""G2: what cannot be differentiated or repaired."""

from __future__ import annotations

from oracle.legacy_graph.codes.code import Code

REFUSALS = (
    Code(
        "G201",
        "an operation has no gradient",
        "TensorFlow has registered none for it, or it belongs to a gradient that the graph computes "
        "itself; or none of the outputs is floating, or an input or variable is complex.",
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
        "Assignments, queues, iterators and files make the outputs depend on more than inputs and variables.",
        "Export a signature for inference.",
    ),
    Code(
        "G204",
        "the graph draws random numbers",
        "A repaired model computes the forward pass again for the gradient, and would draw other numbers.",
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
        "It was built with `back_prop=False`, as decoding loops often are. TF1 gives it no gradient either.",
        "Build it with `back_prop=True`; for a decoder, use the training graph.",
    ),
    Code(
        "G210",
        "the repaired model does not agree with the original",
        "An output differs in a bit, a gradient differs from TF1's own, from that of the same cells in "
        "Flax or from directional differences of the forward pass, or the differences cannot tell. "
        "Nothing was written.",
        "Try other inputs (`--inputs`), away from kinks. Please report it with the model if it stays.",
    ),
    Code(
        "G211",
        "a second derivative of a repaired model",
        "A repaired model's gradient is a graph of TF1 loops of its own, whose gradient is not built.",
        "Use first derivatives only; do not take a gradient within another tape.",
        (r"has first derivatives only",),
    ),
)
