"""G02: why a gradient of a live port is None."""

from __future__ import annotations

from oracle.legacy_graph.codes.code import Code

LIVE_GRADIENTS = (
    Code(
        "G021",
        "the gradient is None: a part of the forward pass runs outside the tape",
        "A GradientTape records what runs between its `with` and the end of the block, and nothing "
        "else. What "
        "was computed before it opened, after it closed, or under `stop_recording` is a constant to it, "
        "as the "
        "state of an encoder that is called one line too early.",
        "Move the named operation, and all that leads to it from the variables, into the tape's block.",
        (),
        "tf_models.legacy.live_gradients:outside_tape",
    ),
    Code(
        "G022",
        "the gradient is None: the way to the loss passes an operation without a gradient",
        "A cast to integers, argmax, a comparison and rounding change in jumps, so they have no "
        "derivative that "
        "is of use, and TensorFlow gives none.",
        "Take the operation off the way, or use what has a gradient: the probabilities for their "
        "argmax, a mask "
        "by `where` for a comparison.",
        (),
        "tf_models.legacy.live_gradients:rounded",
    ),
    Code(
        "G023",
        "the gradient is None: stop_gradient holds it back",
        "`tf.stop_gradient` gives its input on and lets no gradient through.",
        "Remove it, if the variables before it are meant to be trained through this way.",
        (),
        "tf_models.legacy.live_gradients:stopped",
    ),
    Code(
        "G024",
        "the gradient is None: the way to the loss passes Python code",
        "`tf.numpy_function` and `tf.py_func` have no gradient. `tf.py_function` has one, if its body "
        "computes "
        "with TensorFlow on the tensors that it is given, and not on their NumPy values.",
        "Write the function's body in TensorFlow, or give it a derivative by `tf.custom_gradient`.",
        (),
        "tf_models.legacy.live_gradients:in_python",
    ),
    Code(
        "G025",
        "the gradient is None: a value is read as NumPy on the way to the loss",
        "`.numpy()`, `np.asarray`, `float` and NumPy's functions take the value out of TensorFlow. What is "
        "computed from it is a constant to the tape. In `tf.function` the same raises.",
        "Compute with the tensor itself, by the functions of TensorFlow.",
        (
            r"numpy\(\) is only available when eager execution is enabled",
            r"Cannot convert a symbolic tf.Tensor .* to a numpy array",
            r"'(SymbolicTensor|Tensor|KerasTensor)' object has no attribute 'numpy'",
        ),
        "tf_models.legacy.live_gradients:read_as_numpy",
    ),
    Code(
        "G026",
        "the gradient is None: the loss does not use the variable",
        "The loss does not read it, or nothing that is computed from it reaches the loss. A gradient of "
        "zero is "
        "what such a variable has; TensorFlow says None.",
        "If it should be trained, look for the result that is dropped; if not, set `trainable=False`.",
        (r"Gradients do not exist for variables",),
        "tf_models.legacy.live_gradients:unused",
    ),
    Code(
        "G027",
        "the train step asks for no gradient of a variable",
        "The list of variables that it differentiates and updates is not that of all models, often "
        "because the "
        "list of one of them was forgotten. The variable stays as it was drawn.",
        "Add the model's `trainable_variables`, or set `trainable=False` if it is not to be trained.",
        (),
        "tf_models.legacy.live_gradients:left_out",
    ),
)
