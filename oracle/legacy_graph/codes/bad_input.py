"""G3: what is wrong with what was given."""

from __future__ import annotations

from oracle.legacy_graph.codes.code import Code

BAD_INPUT = (
    Code(
        "G301",
        "not a graph, or a damaged one",
        "The file is none of a SavedModel, a GraphDef and a MetaGraph, it was cut short, or it claims "
        "sizes that no file holds.",
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
        "A name is wrong, a tensor is sparse, two inputs are one tensor, or the outputs need a placeholder "
        "that is no input.",
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
        "Inputs are drawn from the shapes and dtypes; a model may refuse all of them, every gradient "
        "may be 0 on them, which verifies nothing, and strings and unknown ranks cannot be drawn.",
        "Give `--inputs FILE.npz`, an array for each input.",
    ),
    Code(
        "G309",
        "the target cannot be written",
        "It is there already, lies in the source, or its folder cannot be written. The source is never "
        "touched.",
        "Give a folder that does not exist yet.",
    ),
    Code(
        "G310",
        "a checkpoint without a graph",
        "A checkpoint holds values only; gradients are a matter of the graph.",
        "Give the `.meta` file that was saved with it, or the SavedModel; `oracle inspect` lists its values.",
    ),
)
