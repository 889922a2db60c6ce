"""`oracle train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from oracle.commands.options import Quiet, Verbose


def train(
    model: str,
    *,
    steps: int,
    output: Path,
    data: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    slots: bool | None = None,
    weight_decay: float | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Train a port and save a genuine TensorFlow checkpoint.

    A translator is not trained on every tenth pair, and says how many of those it gets right.

    Parameters
    ----------
    model
        `dynamic_rnn`, saved by a TF1 Saver; `explicit_state` or a translator (`attention_nmt/gru`), saved
        as a TF2 checkpoint.
    steps
        How many steps of Adam.
    output
        The checkpoint's prefix.
    data
        A CSV file, or for a translator a TSV file of pairs, as for `compare`.
    seed
        The seed of the initial weights and of the windows or pairs.
    batch_size
        How many windows (by default 16) or pairs (by default 64) a step.
    slots
        Whether to save the optimizer's slots too, as is the default. A translator's are never saved.
    weight_decay
        What Adam takes from each weight of a translator, in parts of its rate; by default 0.3.
    verbose
        Print tracebacks.
    quiet
        Show no progress.
    """
    del verbose  # `main` reads it.
    from oracle import zoo
    from oracle.case import check_seed
    from oracle.errors import UsageError
    from oracle.frameworks import import_tensorflow, import_tfa
    from oracle.progress import show_steps
    from oracle.spec import AttentionNMT

    check_seed(seed)
    choice = zoo.choose(model)[0]
    translates = isinstance(choice.variant.spec, AttentionNMT)
    if translates:
        choice = zoo.choose_translator(model)
        if slots:
            raise UsageError("a translator's slots are never saved; leave out --slots")
    if weight_decay is not None and (not translates or not 0 <= weight_decay < float("inf")):
        raise UsageError(f"--weight-decay {weight_decay:g}: it is for translators, and a number from 0 on")
    import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    options: dict[str, Any] = {"steps": steps, "output": output, "seed": seed}
    if batch_size is not None:
        options["batch_size"] = batch_size
    if weight_decay is not None:
        options["weight_decay"] = weight_decay
    if slots is not None and not translates:
        options["slots"] = slots
    with show_steps("training", steps, quiet=quiet) as on_step:
        if translates:
            losses, said = _train_translator(choice, data, on_step=on_step, **options)
        else:
            losses, said = _train_on_series(choice, data, on_step=on_step, **options), ""
    print(f"{output}: {steps} steps, loss {losses[0]:.6g} to {losses[-1]:.6g}, seed {seed}{said}")
    return 0


def _train_on_series(choice: Any, data: str | None, **options: Any) -> list[float]:
    from oracle.series import read_series, sunspots
    from tf_models.training import train as train_port

    series = sunspots() if data is None else read_series(data)
    return train_port(choice.model.name, choice.variant.spec, series, **options)


def _train_translator(
    choice: Any, data: str | None, *, on_step: Callable[[int, float], None], **options: Any
) -> tuple[list[float], str]:
    from oracle.text import hold_out, load_texts, read_pairs
    from tf_models.nmt_training import count_right, load_nmt, train_nmt

    spec = choice.variant.spec
    pairs, vocabularies = load_texts(choice.variant.data)
    if data is not None:
        pairs = read_pairs(data)
    trained_on, held_out = hold_out(pairs)
    losses = train_nmt(spec, trained_on, vocabularies=vocabularies, on_step=on_step, **options)
    model = load_nmt(spec, options["output"])
    longest = 1 + max(len(pair.target) for pair in pairs)
    right = count_right(model, held_out, vocabularies, maximum_length=longest)
    return losses, f"; {right} of {len(held_out)} held-out pairs translated rightly"
