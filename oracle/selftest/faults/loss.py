"""Faults in the loss, and in what is fed and what is predicted."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Family, Fault

PAIR_LOSS = "tf.reduce_mean(tf.square(tf.cast(outputs, targets.dtype) - targets[1:]))"
LOOP_LOSS = "tf.reduce_mean(tf.square(outputs - target[:, 1:]))"
GIVEN = "tf.nest.map_structure(self.cast, (targets[:-1], initial_state))"
NMT_LOSS = "loss = masked_loss("
NMT_TARGET = 'masked_loss(decoded.logits, batch["target"][:, 1:], target_length'
NMT_GIVEN = 'self.decoder.embed(batch["target"][:, :-1])'
TRANSLATORS = ("luong", "luong-gru", "bahdanau")
ERROR = "tf.cast(outputs, targets.dtype) - targets[1:]"


def _pair(
    name: str, loss: str, *causes: str, family: Family = "loss", places: tuple[str, ...] = ("loss",)
) -> Fault:
    """The loss of `explicit_state`."""
    edits, subjects = (Edit(PAIR_LOSS, loss),), ("pair", "pair-wide")
    return Fault(name, family, "explicit_state", subjects, edits, causes, places)


def _loop(name: str, loss: str, *causes: str) -> Fault:
    """The loss of `dynamic_rnn`, whose rows have lengths."""
    edits = (Edit(LOOP_LOSS, loss),)
    return Fault(name, "loss", "dynamic_rnn", ("loop-lengths",), edits, causes, ("loss",))


def _translator(
    name: str,
    body: str,
    *causes: str,
    subjects: tuple[str, ...] = TRANSLATORS,
    family: Family = "loss",
    hides: str = "",
) -> Fault:
    """The loss of `attention_nmt`: the lines of a function of logits, target and lengths."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    addition = f'''
def seeded_loss(logits, target, lengths, *others, **options):
    """A loss of its own."""
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
    mask = tf.sequence_mask(lengths, target.shape[1], dtype=logits.dtype)
{lines}
'''
    return Fault(
        name,
        family,
        "attention_nmt",
        subjects,
        (Edit(NMT_LOSS, "loss = seeded_loss("),),
        causes,
        ("loss",),
        addition=addition,
        hides_in_float32=hides,
    )


_MASK = 'tf.sequence_mask(batch["target_length"], target.shape[1] - 1, dtype=outputs.dtype)[..., None]'
_SHORT = "tf.sequence_mask(lengths - 1, target.shape[1], dtype=logits.dtype)"
_SMOOTH = """
vocab = logits.shape[-1]
labels = 0.9 * tf.one_hot(target, vocab, dtype=logits.dtype) + 0.1 / vocab
entropy = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
return tf.reduce_sum(entropy * mask) / tf.reduce_sum(mask)
"""

FAULTS = (
    _pair("loss-halved", f"0.5 * {PAIR_LOSS}", "C502"),
    _pair("loss-summed", f"tf.reduce_sum(tf.square({ERROR}))", "C502"),
    _pair("loss-by-row", f"tf.reduce_mean(tf.reduce_sum(tf.square({ERROR}), [0, 2]))", "C502"),
    _pair("loss-by-step", f"tf.reduce_mean(tf.reduce_sum(tf.square({ERROR}), 2))", "C502"),
    _pair("loss-absolute", f"tf.reduce_mean(tf.abs({ERROR}))", "C523"),
    _pair(
        "loss-huber",
        f"tf.reduce_mean(tf.where(tf.abs({ERROR}) <= 1, tf.square({ERROR}) / 2, tf.abs({ERROR}) - 0.5))",
        "C523",
    ),
    # Keras computes it in float32, whatever it is given.
    _pair(
        "loss-huber-of-keras",
        "tf.cast(tf.reduce_mean(tf.keras.losses.huber(targets[1:], outputs)), targets.dtype)",
        family="uncatalogued",
    ),
    _pair(
        "target-not-shifted",
        PAIR_LOSS.replace("targets[1:]", "targets[:-1]"),
        "C511",
        family="targets",
    ),
    _pair(
        "target-shifted-twice",
        PAIR_LOSS.replace(
            "(outputs, targets.dtype) - targets[1:]", "(outputs[:-1], targets.dtype) - targets[2:]"
        ),
        "C512",
        family="targets",
    ),
    _pair(
        "target-rolled",
        PAIR_LOSS.replace("targets[1:]", "tf.roll(targets, -2, 0)[:-1]"),
        "C512",
        family="targets",
    ),
    Fault(
        "answer-fed",
        "targets",
        "explicit_state",
        ("pair", "pair-wide"),
        (Edit(GIVEN, "tf.nest.map_structure(self.cast, (targets[1:], initial_state))"),),
        ("C511",),
        ("decoder/cell/input",),
    ),
    _loop(
        "loop-padding-left-out",
        f"tf.reduce_sum({_MASK} * tf.square(outputs - target[:, 1:]))"
        f" / (tf.reduce_sum({_MASK}) * target.shape[2])",
        "C501",
    ),
    _loop("loop-mask-mean", f"tf.reduce_mean({_MASK} * tf.square(outputs - target[:, 1:]))", "C501"),
    _translator("padding-counted", "return tf.reduce_mean(entropy)", "C501"),
    _translator(
        "loss-over-all-steps",
        "return tf.reduce_mean(entropy * mask)",
        "C502",
    ),
    _translator("tokens-summed", "return tf.reduce_sum(entropy * mask)", "C502"),
    _translator(
        "mean-of-rows",
        "return tf.reduce_mean(tf.reduce_sum(entropy * mask, 1) / tf.reduce_sum(mask, 1))",
        "C502",
    ),
    _translator(
        "mask-short",
        f"short = {_SHORT}\nreturn tf.reduce_sum(entropy * short) / tf.reduce_sum(short)",
        "C503",
        subjects=("luong", "bahdanau-gru-2"),
    ),
    _translator(
        "softmax-twice",
        "return masked_loss(tf.nn.softmax(logits), target, lengths, *others, **options)",
        "C521",
    ),
    _translator("labels-smoothed", _SMOOTH, "C522", subjects=("luong", "bahdanau-gru-2")),
    Fault(
        "tokens-not-shifted",
        "targets",
        "attention_nmt",
        TRANSLATORS,
        (Edit(NMT_TARGET, NMT_TARGET.replace("[:, 1:]", "[:, :-1]")),),
        ("C511",),
        ("loss",),
    ),
    Fault(
        "tokens-shifted-twice",
        "targets",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (
            Edit(
                NMT_TARGET,
                NMT_TARGET.replace('batch["target"][:, 1:]', 'tf.roll(batch["target"], -2, 1)[:, :-1]'),
            ),
        ),
        ("C512",),
        ("loss",),
    ),
    Fault(
        "answer-token-fed",
        "targets",
        "attention_nmt",
        ("luong", "bahdanau-gru-2"),
        (Edit(NMT_GIVEN, 'self.decoder.embed(batch["target"][:, 1:])'),),
        ("C511",),
        ("decoder/embedding",),
    ),
    Fault(
        "loss-regularised",
        "loss",
        "explicit_state",
        ("pair", "pair-wide"),
        (
            Edit(
                PAIR_LOSS,
                f"{PAIR_LOSS} + 1e-3 * tf.add_n([tf.nn.l2_loss(variable) for variable in "
                "self.trainable_variables])",
            ),
        ),
        ("C621",),
        ("loss",),
    ),
)
