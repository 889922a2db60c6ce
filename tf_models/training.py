"""Training a port on windows of a series, and saving it as people did: by a Saver or a Checkpoint."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from oracle.batch import series_batch
from oracle.bridge.checkpoints import PATTERN_CHARACTERS
from oracle.errors import CaseError, UsageError
from oracle.series import Series
from oracle.spec import EncoderDecoder
from tf_models import dynamic_rnn

OnStep = Callable[[int, float], None]
"""Called after each step with the number of steps done and the loss before the last."""


def train(
    model: str,
    spec: EncoderDecoder,
    series: Series,
    *,
    steps: int,
    output: str | os.PathLike[str],
    seed: int = 0,
    batch_size: int = 16,
    slots: bool = True,
    on_step: OnStep = lambda step, loss: None,
) -> list[float]:
    """Train a port with Adam from its own initial weights, and save it under the prefix `output`.

    Args:
        model: `dynamic_rnn` for a TF1 Saver checkpoint, `explicit_state` for a TF2 checkpoint.
        spec: the sizes.
        series: where the batches are cut from, another one each step.
        steps: how many steps of the optimizer.
        output: the checkpoint's prefix. All of its files appear when training is done, or none.
        seed: of the initial weights and of the choice of windows.
        batch_size: how many windows a step.
        slots: whether the optimizer's slots are saved too, as they are in real checkpoints.
        on_step: called after each step.

    Returns:
        The loss before each step.

    Raises:
        UsageError: if the model cannot be trained, or the output cannot be written or is there already.
        CaseError: if the series does not fit, or the loss becomes NaN or infinite.
    """
    if steps < 1:
        raise UsageError(f"steps {steps}: nothing to train; give at least 1")
    savers = {"dynamic_rnn": _train_in_session, "explicit_state": _train_eagerly}
    if model not in savers:
        raise UsageError(
            f"{model!r} cannot be trained; choose from {', '.join(savers)}, or a translator, as in "
            "attention_nmt/lstm"
        )
    output = check_output(output)
    batches = _draw_batches(spec, series, seed=seed, batch_size=batch_size)
    losses: list[float] = []

    def record(loss: float) -> None:
        if not np.isfinite(loss):
            raise CaseError(f"training: the loss is {loss} at step {len(losses)}; nothing was saved")
        losses.append(loss)
        on_step(len(losses), loss)

    with new_checkpoint(output) as prefix:
        savers[model](spec, batches, steps, seed, slots, record, prefix)
    return losses


def check_output(output: str | os.PathLike[str]) -> Path:
    """The prefix of a checkpoint that is yet to be written.

    Raises:
        UsageError: if it cannot be written there, could not be read, or is there already.
    """
    output = Path(output)
    if not output.name or output.is_dir():
        raise UsageError(
            f"{str(output)!r} is a directory; give a checkpoint's prefix, as in `folder/model.ckpt`"
        )
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError(f"{output}: {output.parent} is not a directory that can be written; choose another")
    if any(character in str(output) for character in PATTERN_CHARACTERS):
        raise UsageError(
            f"{output}: TensorFlow cannot read a checkpoint with one of {' '.join(PATTERN_CHARACTERS)} in "
            "its name; choose another"
        )
    if _files_of(output.parent, output):
        raise UsageError(
            f"{output}: a checkpoint of that name is there already; remove it, or choose another"
        )
    return output


@contextlib.contextmanager
def new_checkpoint(output: Path) -> Iterator[Path]:
    """Give a prefix to save under; the files appear under `output` when all is saved, or not at all."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        yield Path(folder) / output.name
        # The index comes last: a checkpoint without one does not exist.
        for path in sorted(_files_of(Path(folder), output), key=lambda path: path.suffix == ".index"):
            os.replace(path, output.parent / path.name)


def _files_of(folder: Path, prefix: Path) -> list[Path]:
    """A checkpoint's files in a folder: those named `prefix.index`, `prefix.data-...`, `prefix.meta`."""
    kinds = (".index", ".meta", ".data-")
    return [
        path for path in folder.iterdir() if path.name.startswith(tuple(f"{prefix.name}{k}" for k in kinds))
    ]


def _train_in_session(
    spec: EncoderDecoder,
    batches: Iterator[dict[str, np.ndarray]],
    steps: int,
    seed: int,
    slots: bool,
    record: Callable[[float], None],
    prefix: Path,
) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        v1.set_random_seed(seed)
        batch = next(batches)
        placeholders = {name: v1.placeholder(array.dtype, array.shape) for name, array in batch.items()}
        model = dynamic_rnn.DynamicRNN(spec)
        train_op, loss = model.train_op(placeholders)
        kept = v1.global_variables() if slots else [*model.variables_by_name().values()]
        saver = v1.train.Saver(kept)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for _ in range(steps):
                feed = {placeholders[name]: array for name, array in batch.items()}
                record(float(session.run([loss, train_op], feed)[0]))
                batch = next(batches)
            saver.save(session, str(prefix))


def _train_eagerly(
    spec: EncoderDecoder,
    batches: Iterator[dict[str, np.ndarray]],
    steps: int,
    seed: int,
    slots: bool,
    record: Callable[[float], None],
    prefix: Path,
) -> None:
    from tf_models.explicit_state import ExplicitState

    tf.keras.utils.set_random_seed(seed)
    model = ExplicitState(spec, tf.float32)
    train_step = tf.function(model.train_step)
    for _ in range(steps):
        batch = {name: tf.constant(array) for name, array in next(batches).items()}
        record(float(train_step(batch)))
    parts = {"encoder": model.encoder, "decoder": model.decoder, "projection": model.projection}
    if slots:
        parts["optimizer"] = model.optimizer
    tf.train.Checkpoint(**parts).write(str(prefix))


def _draw_batches(
    spec: EncoderDecoder, series: Series, *, seed: int, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches without end, each from a seed of its own."""
    step = 0
    while True:
        yield series_batch(spec, series, seed=seed + step, batch_size=batch_size)
        step += 1
