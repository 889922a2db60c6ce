"""G0: what a graph holds that has no gradient, and what an attempt at the gradient gives."""

from __future__ import annotations

from oracle.legacy_graph.codes.code import Code

FINDINGS = (
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
        (),
        "tf_models.legacy.live_gradients:used_twice",
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
)
