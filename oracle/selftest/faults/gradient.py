"""Faults in what is done to the gradient between the tape and the optimizer."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Fault

PAIR_STEP = "{name: dense_gradient(gradient) for name, gradient in by_variable.items()},"
NMT_STEP = "return Step(forward, loss, of_others, of_variables)"
LOOP_STEP = "dict(zip(variables, dense, strict=False)),"
PLACES = {
    "explicit_state": (
        "gradient/projection",
        "projection/weights",
        "decoder/cell/weights",
        "encoder/cell/weights",
    ),
    "attention_nmt": ("gradient/decoder/output_layer", "decoder/output_layer/weights"),
    "dynamic_rnn": ("gradient/projection",),
}
"""Of what changes every weight's gradient: the first that the backward pass gives, and, since each is made of
right adjoints, the account of each layer's weights. The adjoints are no place: they are right."""

_CELLS = ("encoder/cell", "decoder/cell")
SOME = {
    "exchanged-between-cells": tuple(
        place for cell in _CELLS for place in (f"gradient/{cell}/recurrent_kernel", f"{cell}/weights")
    ),
    "laid-out-in-another-order": ("gradient/encoder/cell/kernel", "encoder/cell/weights"),
}
"""Of what changes some gradients alone."""

_EACH = "for name, gradient in gradients.items()"
CHANGES = {
    "clipped-norm": (f"{{name: tf.clip_by_norm(gradient, 0.02) {_EACH}}}", "C615"),
    "clipped-global-norm": (
        "dict(zip(gradients, tf.clip_by_global_norm(list(gradients.values()), 0.05)[0]))",
        "C613",
    ),
    "clipped-value": (f"{{name: tf.clip_by_value(gradient, -0.01, 0.01) {_EACH}}}", "C614"),
    "averaged-over-replicas": (f"{{name: gradient / 4.0 {_EACH}}}", "C612"),
    "accumulated-twice": (f"{{name: gradient + gradient {_EACH}}}", "C611"),
    "sign-exchanged": (f"{{name: -gradient {_EACH}}}", "C617"),
    "weight-decay-added": (
        f"{{name: gradient + 1e-2 * tf.cast(weights[name], gradient.dtype) {_EACH}}}",
        "C621",
    ),
    "sparsity-added": (
        f"{{name: gradient + 1e-3 * tf.sign(tf.cast(weights[name], gradient.dtype)) {_EACH}}}",
        "C622",
    ),
    "exchanged-between-cells": (
        "{**gradients, 'encoder/cell/recurrent_kernel': gradients['decoder/cell/recurrent_kernel'],"
        " 'decoder/cell/recurrent_kernel': gradients['encoder/cell/recurrent_kernel']}",
        "C632",
    ),
    "laid-out-in-another-order": (
        "{**gradients, 'encoder/cell/kernel': tf.roll(gradients['encoder/cell/kernel'],"
        " gradients['encoder/cell/kernel'].shape[-1] // 4, -1)}",
        "C633",
    ),
}
"""What is done to the variables' gradients before they are applied, and the codes of it."""


def _change(name: str, module: str, subjects: tuple[str, ...], code: str, *causes: str) -> Fault:
    """The variables' gradients changed, of a port of either module."""
    old, new = {
        "explicit_state": (PAIR_STEP, f"change_gradients({PAIR_STEP[:-1]}, variables),"),
        "attention_nmt": (
            NMT_STEP,
            f"of_variables = change_gradients(of_variables, self.variables_by_name())\n        {NMT_STEP}",
        ),
        "dynamic_rnn": (LOOP_STEP, f"change_gradients({LOOP_STEP[:-1]}, variables),"),
    }[module]
    addition = f'''
def change_gradients(gradients, weights):
    """What comes between the tape and the optimizer."""
    if any(gradient is None for gradient in gradients.values()):
        return gradients
    return {code}
'''
    return Fault(
        name,
        "gradient",
        module,
        subjects,
        (Edit(old, new),),
        causes,
        SOME.get(name, PLACES[module]),
        addition=addition,
        backward=True,
    )


FAULTS = (
    *(
        _change(name, "explicit_state", ("pair", "pair-wide"), code, *causes)
        for name, (code, *causes) in CHANGES.items()
    ),
    *(
        _change(f"translator-{name}", "attention_nmt", ("luong", "bahdanau-gru-2"), code, *causes)
        for name, (code, *causes) in CHANGES.items()
        if name in ("clipped-global-norm", "averaged-over-replicas", "accumulated-twice")
    ),
    _change("loop-accumulated-twice", "dynamic_rnn", ("loop", "loop-lengths"), *CHANGES["accumulated-twice"]),
)
