"""C5: the loss, and the target it holds the outputs to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.causes.cause import ModelSpec, Setting, Situation, Tensors, cause
from oracle.causes.turning import is_translator
from oracle.knobs import LOSS_FORMS, Knobs
from oracle.spec import EncoderDecoder


def _has_mask(spec: ModelSpec, batch: Tensors) -> bool:
    return "target_length" in batch


def _is_series(spec: ModelSpec, batch: Tensors) -> bool:
    return isinstance(spec, EncoderDecoder)


@cause(
    "C501",
    title="the padding is in the loss, or left out of it",
    sentence="the loss {setting}",
    remedy="Weight it by `tf.sequence_mask(target_length, steps, dtype)` where padding is not to count "
    "(`tfa.seq2seq.sequence_loss(logits, targets, weights)`), and by nothing where it is.",
    applies=_has_mask,
)
def count_padding(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The other mask, the mean over what is then counted."""
    mask = _mask(batch)
    if isinstance(spec, EncoderDecoder):
        yield _weigh(knobs, "leaves the padding out", mask / max(mask.sum(), 1.0))
        yield _weigh(knobs, "leaves the padding out, but is divided by all steps", mask / mask.size)
    else:
        rows, steps = mask.shape
        yield _weigh(knobs, "counts the padding", np.full_like(mask, 1.0 / mask.size))
        name = "counts the padding, summed over the {0} and averaged over the {1}"
        yield _weigh(knobs, name.format("steps", "rows"), np.full_like(mask, 1.0 / rows))
        yield _weigh(knobs, name.format("rows", "steps"), np.full_like(mask, 1.0 / steps))
        yield _weigh(knobs, "counts the padding, summed", np.ones_like(mask))
        yield _weigh(
            knobs, "counts the padding, but is divided by what is none", np.ones_like(mask) / mask.sum()
        )


@cause(
    "C502",
    title="the loss is divided by another number",
    sentence="the loss is {setting}",
    remedy="Reduce it as the original does. `tfa.seq2seq.sequence_loss` and `tf.reduce_mean` average over "
    "everything that counts; Keras' `SUM_OVER_BATCH_SIZE` divides by the padding's steps too.",
)
def divide_loss(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Sums and means over some of the axes."""
    rows, steps = knobs.loss_weights.shape
    mask = (np.asarray(knobs.loss_weights) != 0).astype(np.float64)
    lengths = np.maximum(mask.sum(axis=1, keepdims=True), 1.0)
    yield _weigh(knobs, "divided by all steps, the padding among them", mask / mask.size)
    yield _weigh(knobs, "summed over the steps and averaged over the rows", mask / rows)
    yield _weigh(knobs, "summed over the rows and averaged over the steps", mask / steps)
    yield _weigh(knobs, "summed, not averaged", mask)
    yield _weigh(knobs, "the mean over the rows of each row's mean", mask / lengths / rows)
    yield _weigh(knobs, "summed over the rows, of each row's mean", mask / lengths)
    taken = np.maximum(mask.sum(axis=0, keepdims=True), 1.0)
    yield _weigh(knobs, "the mean over the steps of each step's mean", mask / taken / steps)
    yield _weigh(knobs, "summed over the steps, of each step's mean", mask / taken)
    if isinstance(spec, EncoderDecoder):
        features = spec.target_features
        for name, weights in (
            ("summed over the features and averaged over rows and steps", mask / mask.sum()),
            ("summed over features and steps and averaged over the rows", mask / rows),
            ("summed over everything", mask),
        ):
            yield _weigh(knobs, name, features * weights)
        yield _weigh(knobs, "halved", np.asarray(knobs.loss_weights) / 2)


@cause(
    "C503",
    title="the loss's mask is off by one",
    sentence="the loss counts {setting}",
    remedy="The mask is of the tokens that are predicted, `target[:, 1:]`, the end token among them.",
    applies=_has_mask,
)
def shift_mask(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """One token less a row, or one more."""
    for by, name in ((-1, "one step too few of each row"), (1, "one step too many of each row")):
        mask = _mask(batch, by=by)
        yield _weigh(knobs, name, mask / max(mask.sum(), 1.0))


@cause(
    "C511",
    title="the target is not shifted",
    sentence="{setting}",
    remedy="Feed `target[:, :-1]` and hold the outputs to `target[:, 1:]`: each step predicts the one after "
    "what it reads.",
    wrong="loss = loss_of(decoder(target[:, :-1]), target[:, :-1])",
    right="loss = loss_of(decoder(target[:, :-1]), target[:, 1:])",
)
def leave_target(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Held to what it reads, or fed what it is held to."""
    steps = np.arange(batch["target"].shape[1] - 1, dtype=np.int32)
    yield Setting("the outputs are held to what the decoder reads", knobs._replace(target_out=steps))
    yield Setting("the decoder reads what it is to predict", knobs._replace(target_in=steps + 1))


@cause(
    "C512",
    title="the target is shifted twice",
    sentence="the outputs are held to the target two steps on{setting}",
    remedy="Shift it once: feed `target[:, :-1]` and hold the outputs to `target[:, 1:]`; a data set that "
    "comes shifted needs no more.",
    applies=lambda spec, batch: batch["target"].shape[1] > 2,
)
def shift_target_twice(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The last step dropped, repeated, or the first again."""
    last = batch["target"].shape[1] - 1
    steps = np.arange(last) + 2
    held = np.minimum(steps, last).astype(np.int32)
    weights = np.array(knobs.loss_weights, np.float64)
    weights[:, -1] = 0.0
    if weights.any():
        dropped = knobs._replace(target_out=held)
        yield Setting("", dropped._replace(loss_weights=weights * knobs.loss_weights.sum() / weights.sum()))
        yield Setting(", the mean still over every step", dropped._replace(loss_weights=weights))
    yield Setting(", the last one twice", knobs._replace(target_out=held))
    yield Setting(", rolled", knobs._replace(target_out=(steps % (last + 1)).astype(np.int32)))


@cause(
    "C521",
    title="the softmax is taken twice",
    sentence="the loss takes probabilities for logits: the softmax is taken twice",
    remedy="Give the loss logits: no `activation='softmax'` in the output layer, or `from_logits=False` in "
    "the loss.",
    applies=is_translator,
    wrong='output_layer = tf.keras.layers.Dense(vocab, activation="softmax")\n'
    "loss = tfa.seq2seq.sequence_loss(output_layer(decoded), target, weights)",
    right="output_layer = tf.keras.layers.Dense(vocab)\n"
    "loss = tfa.seq2seq.sequence_loss(output_layer(decoded), target, weights)",
)
def double_softmax(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """A softmax of a softmax."""
    yield from _forms(knobs, "attention-nmt")


@cause(
    "C522",
    title="the labels are smoothed",
    sentence="the labels are smoothed by {smoothing:.6g}",
    remedy="Leave `label_smoothing` out of the loss.",
    kind="infers",
    applies=is_translator,
)
def smooth_labels(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """The loss is linear in the smoothing, which is read off the port's."""
    (whole,) = situation.evaluate([knobs._replace(label_smoothing=np.float64(1.0))])
    span = float(whole["loss"]) - float(oracle["loss"])
    # To the loss alone a smoothing could always be found.
    given = situation.port.get("loss")
    if span == 0 or given is None or given.shape or len(situation.port) == 1:
        return
    smoothing = (float(given) - float(oracle["loss"])) / span
    if 1e-4 < smoothing <= 1.0:
        turned = knobs._replace(label_smoothing=np.float64(smoothing))
        yield Setting("", turned, numbers={"smoothing": smoothing})


@cause(
    "C523",
    title="another error than the square",
    sentence="the loss is of the {setting} error, not of the squared one",
    remedy="Take `tf.reduce_mean(tf.square(outputs - targets))`, or `tf.keras.losses.MeanSquaredError`.",
    applies=_is_series,
)
def change_error(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The absolute error, or Huber's."""
    yield from _forms(knobs, "encoder-decoder")


def _forms(knobs: Knobs, kind: str) -> Iterator[Setting]:
    for number, name in enumerate(LOSS_FORMS[kind]):
        if number:
            yield Setting(name, knobs._replace(loss_form=np.eye(len(LOSS_FORMS[kind]))[number]))


def _weigh(knobs: Knobs, name: str, weights: np.ndarray) -> Setting:
    return Setting(name, knobs._replace(loss_weights=weights))


def _mask(batch: Tensors, *, by: int = 0) -> np.ndarray:
    """1.0 up to the rows' lengths, [batch, tgt_time]."""
    steps = np.arange(batch["target"].shape[1] - 1)
    return (steps < (batch["target_length"] + by)[:, None]).astype(np.float64)
