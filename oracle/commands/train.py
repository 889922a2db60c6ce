"""`oracle train`."""

from __future__ import annotations

from pathlib import Path

from oracle.commands.options import Quiet, Verbose


def train(
    model: str,
    *,
    steps: int,
    output: Path,
    data: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    slots: bool = True,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Train a port and save a genuine TensorFlow checkpoint.

    Parameters
    ----------
    model
        `dynamic_rnn`, saved by a TF1 Saver, or `explicit_state`, saved as a TF2 checkpoint.
    steps
        How many steps of Adam, at a learning rate of 1e-3.
    output
        The checkpoint's prefix.
    data
        A CSV file, as for `compare`.
    seed
        The seed of the initial weights and of the windows.
    batch_size
        How many windows a step.
    slots
        Whether to save the optimizer's slots too.
    verbose
        Print tracebacks.
    quiet
        Show no progress.
    """
    del verbose  # `main` reads it.
    from oracle import zoo
    from oracle.frameworks import import_tensorflow, import_tfa
    from oracle.progress import show_steps
    from oracle.series import read_series, sunspots

    choice = zoo.choose(model)[0]
    series = sunspots() if data is None else read_series(data)
    import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    from tf_models.training import train as train_port

    with show_steps("training", steps, quiet=quiet) as on_step:
        losses = train_port(
            choice.model.name,
            choice.variant.spec,
            series,
            steps=steps,
            output=output,
            seed=seed,
            batch_size=batch_size,
            slots=slots,
            on_step=on_step,
        )
    print(f"{output}: {steps} steps, loss {losses[0]:.6g} to {losses[-1]:.6g}, seed {seed}")
    return 0
