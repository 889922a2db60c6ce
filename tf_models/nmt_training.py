"""Training the translator on pairs of texts, and saving it as a TF2 checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from oracle.batch import check_vocabularies
from oracle.errors import CaseError, UsageError
from oracle.spec import AttentionNMT as Spec
from oracle.text import (
    BOS,
    EOS,
    TextPair,
    Vocabularies,
    build_vocabularies,
    draw_batch,
    encode_batch,
)
from tf_models.attention_nmt import AttentionNMT
from tf_models.training import OnStep, check_output, new_checkpoint

BATCH_SIZE = 64
"""How many pairs a step."""

WARM_UP, DECAY = 100, 0.1
"""Adam's rate rises over so many steps, and falls to this part of itself at the end."""

WEIGHT_DECAY = 0.3
"""Without it the model becomes so sure of what it was trained on that the gradients are rounding errors:
at a loss of 1e-5 even float64 is left with eleven digits, where a comparison asks for twelve."""


def train_nmt(
    spec: Spec,
    pairs: Sequence[TextPair],
    *,
    steps: int,
    output: str | os.PathLike[str],
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    vocabularies: Vocabularies | None = None,
    learning_rate: float = 3e-3,
    weight_decay: float | None = WEIGHT_DECAY,
    on_step: OnStep = lambda step, loss: None,
) -> list[float]:
    """Train the translator with Adam from its own initial weights, and save it under the prefix `output`.

    The checkpoint holds the model and not the optimizer's slots.

    Args:
        spec: the sizes. Its vocabularies are those of `vocabularies`.
        pairs: where the batches are drawn from, another one each step.
        steps: how many steps of the optimizer.
        output: the checkpoint's prefix. Both of its files appear when training is done, or none.
        seed: of the initial weights and of the choice of pairs.
        batch_size: how many pairs a step.
        vocabularies: by default the characters of the pairs.
        learning_rate: Adam's rate at its highest.
        weight_decay: what Adam takes from each weight, in parts of its rate.
        on_step: called after each step.

    Returns:
        The loss before each step.

    Raises:
        UsageError: if there is nothing to train, or the output cannot be written or is there already.
        CaseError: if the pairs do not fit, or the loss becomes NaN or infinite.
    """
    if steps < 1:
        raise UsageError(f"steps {steps}: nothing to train; give at least 1")
    output = check_output(output)
    vocabularies = vocabularies or build_vocabularies(pairs)
    check_vocabularies(spec, vocabularies)
    # Batches of one shape are traced once.
    times = {
        "source_time": max(len(pair.source) for pair in pairs),
        "target_time": 1 + max(len(pair.target) for pair in pairs),
    }
    tf.keras.utils.set_random_seed(seed)
    model = AttentionNMT(spec, tf.float32, weight_decay=weight_decay)
    train_step = tf.function(model.train_step)
    losses: list[float] = []
    for step in range(steps):
        progress = min(1.0, (1 + step) / WARM_UP) * (1 - (1 - DECAY) * step / steps)
        model.optimizer.learning_rate.assign(learning_rate * progress)
        drawn = draw_batch(pairs, vocabularies, seed=seed + step, batch_size=batch_size, **times)
        loss = float(train_step({name: tf.constant(array) for name, array in drawn.items()}))
        if not tf.math.is_finite(loss):
            raise CaseError(f"training: the loss is {loss} at step {step}; nothing was saved")
        losses.append(loss)
        on_step(len(losses), loss)
    with new_checkpoint(output) as prefix:
        tf.train.Checkpoint(encoder=model.encoder, decoder=model.decoder).write(str(prefix))
    return losses


def load_nmt(spec: Spec, checkpoint: str | os.PathLike[str], *, dtype: tf.DType = tf.float32) -> AttentionNMT:
    """The translator with the weights that `train_nmt` saved."""
    model = AttentionNMT(spec, dtype)
    one = tf.constant([1])
    # The layers make their variables at the first step.
    model.step(
        {
            "source": tf.constant([[EOS]]),
            "source_length": one,
            "target": tf.constant([[BOS, EOS]]),
            "target_length": one,
        }
    )
    reader = tf.train.load_checkpoint(str(checkpoint))
    for name, variable in model.variables_by_name().items():
        variable.assign(tf.cast(reader.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE"), dtype))
    return model


def count_right(
    model: AttentionNMT, pairs: Sequence[TextPair], vocabularies: Vocabularies, *, maximum_length: int
) -> int:
    """How many of the pairs are translated rightly, to the character, by greedy decoding."""
    found = translate(model, [pair.source for pair in pairs], vocabularies, maximum_length=maximum_length)
    return sum(text == pair.target for text, pair in zip(found, pairs, strict=True))


def translate(
    model: AttentionNMT,
    texts: Sequence[str],
    vocabularies: Vocabularies,
    *,
    maximum_length: int,
    beam_width: int | None = None,
) -> list[str]:
    """Translate texts greedily, or with `beam_width` by the best beam of a search."""
    batch = encode_batch([TextPair(text, "", "") for text in texts], vocabularies)
    source = tf.constant(batch["source"]), tf.constant(batch["source_length"])
    options = {"start_token": BOS, "end_token": EOS, "maximum_iterations": maximum_length}
    if beam_width is None:
        ids, _ = model.greedy_decode(*source, **options)
    else:
        ids, _ = model.beam_search_decode(*source, **options, beam_width=beam_width)
        ids = ids[:, :, 0]
    return [vocabularies.target.decode(row) for row in ids.numpy().tolist()]
