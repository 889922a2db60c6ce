"""`oracle trajectory`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from oracle.commands.compare import check_output, state_command
from oracle.commands.options import Quiet, Verbose

Assignments = Annotated[tuple[str, ...], Parameter(negative="", allow_leading_hyphen=False)]


def trajectory(
    model: str,
    *,
    steps: int = 100,
    optimizer: str = "keras.Adam",
    learning_rate: float | None = None,
    optimizer_arg: Assignments = (),
    inner: str | None = None,
    schedule: str | None = None,
    schedule_arg: Assignments = (),
    trained_by: str | None = None,
    trained_by_arg: Assignments = (),
    l2: float = 0.0,
    weights: str | None = None,
    data: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
    precision: Literal["f64"] = "f64",
    output_format: Literal["text", "json"] = "text",
    plot: Path | None = None,
    report: Path | None = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Train a port and the oracle on the same batches, and compare every step.

    The loss, the gradient's norm, the optimizer's slots and the parameters. If a step does not agree,
    optimizers are driven by the port's own gradients, to say why. Exits with 0 if every step agrees,
    with 1 if one does not, with 2 if the trajectories could not be computed.

    Parameters
    ----------
    model
        A port, `explicit_state/full`; see `oracle models`.
    steps
        How many steps.
    optimizer
        TensorFlow's optimizer by namespace and class: `keras.Adam`, `legacy.RMSprop`, `tf1.RMSProp`,
        `tfa.LAMB`. The oracle trains by its counterpart in optax.
    learning_rate
        Its rate; by default TensorFlow's.
    optimizer_arg
        Another argument of its class, as `momentum=0.9`. May be given several times.
    inner
        What `tfa.Lookahead` wraps; by default `legacy.Adam`. A rate and a schedule are this one's.
    schedule
        A schedule in the place of the rate: `exponential`, `piecewise_constant`, `polynomial`,
        `inverse_time`, `cosine` or `cosine_decay_restarts`.
    schedule_arg
        An argument of the schedule, as `decay_steps=20`. May be given several times.
    trained_by
        What trains the port, if that is another optimizer than the one that was meant: how they differ is
        then said. The rate and the schedule are those of `--optimizer`, unless they are given anew.
    trained_by_arg
        An argument of that class, as `epsilon=1e-7`. May be given several times.
    l2
        The rate of `tf.nn.l2_loss` of every variable, added to the loss: decay that is coupled.
    weights
        The prefix of a TensorFlow checkpoint, or `random`, to start from. By default, the trained weights
        that ship with the port.
    data
        A CSV file, or for a translator a TSV file, as for `compare`.
    seed
        The seed of the first batch; each step's is one more.
    batch_size
        How many windows are cut from the series, or pairs of texts drawn, a step.
    precision
        What the port computes in: float64.
    output_format
        Text for people, JSON for programs.
    plot
        Draw the losses and the differences to this file: `.png`, `.svg` or `.pdf`.
    report
        Write a report for people to this HTML file, besides.
    verbose
        Let the frameworks' messages through, and print tracebacks.
    quiet
        Print the verdict alone.
    """
    del precision, verbose  # `main` reads the latter.
    from oracle import zoo
    from oracle.errors import UsageError
    from oracle.progress import show_steps
    from oracle.report.html import render_html
    from oracle.report.terminal import open_terminal
    from oracle.storage import write_bytes
    from oracle.training import Training, compare_training
    from oracle.trajectory_plot import check_plot, plot_trajectory
    from oracle.trajectory_report import print_trajectory, render_trajectory_json

    found = zoo.choose(model)
    if len(found) > 1:
        names = ", ".join(choice.name for choice in found)
        raise UsageError(f"{model} is several ports; choose one of {names}")
    described = _describe_optimizer(
        optimizer, learning_rate, optimizer_arg, inner=inner, schedule=schedule, schedule_arg=schedule_arg
    )
    if trained_by is None and trained_by_arg:
        raise UsageError(f"--trained-by-arg {trained_by_arg[0]}: there is no other class; give --trained-by")
    other: dict[str, Any] = {}
    if trained_by is not None:
        rated = any(assignment.startswith("learning_rate=") for assignment in trained_by_arg)
        other["trained_by"] = _describe_optimizer(
            trained_by,
            None if rated else learning_rate,
            trained_by_arg,
            inner=None,
            schedule=None if rated else schedule,
            schedule_arg=() if rated else schedule_arg,
        )
    if plot is not None:
        check_plot(plot)
    check_output(report)
    training = Training(
        found[0],
        described,
        steps=steps,
        seed=seed,
        batch_size=batch_size,
        weights=weights,
        data=data,
        l2=l2,
        **other,
    )
    with show_steps("training", steps, quiet=quiet) as on_step:
        comparison, case = compare_training(training, on_step=on_step)
    added = f" + l2 {l2:g}" if l2 else ""
    by = f"{other['trained_by'].describe()} in place of " if other else ""
    title = f"{found[0].name} (float64), {by}{described.describe()}{added}"
    if report is not None:
        page = render_html((), command=state_command(), trajectories=[(title, comparison)])
        write_bytes(report, page.encode())
    where = {"weights": case.weights_from, "data": case.data_from, "seed": seed, "batch_size": batch_size}
    if output_format == "json":
        where |= {"steps": steps, "l2": l2}
        sys.stdout.write(
            render_trajectory_json(comparison, model=found[0].name, optimizer=described, case=where)
        )
    else:
        line = f"weights: {case.weights_from}; data: {case.data_from}; seeds {seed} to {seed + steps - 1}"
        print_trajectory(
            comparison, open_terminal(), title=title, sides=_describe_sides(), case=line, quiet=quiet
        )
    if plot is not None:
        plot_trajectory(comparison, plot, title=title)
    sys.stdout.flush()
    return 0 if comparison.matches else 1


def _describe_optimizer(
    name: str,
    learning_rate: float | None,
    assignments: Sequence[str],
    *,
    inner: str | None,
    schedule: str | None,
    schedule_arg: Sequence[str],
) -> Any:
    from oracle.errors import UsageError
    from oracle.optimizer import DEFAULTS, SCHEDULES, Optimizer, Schedule, find_optimizer, find_schedule
    from oracle.optimizer import parse_arguments as parse

    whole = find_optimizer(name)
    rated: dict[str, Any] = {} if learning_rate is None else {"learning_rate": learning_rate}
    scheduled = None
    if schedule is not None:
        kind = find_schedule(schedule)
        given = parse(kind, _split("--schedule-arg", schedule_arg), SCHEDULES)
        # In the precision of the run: TensorFlow computes a schedule of Python numbers in float32.
        scheduled = Schedule(kind, given, "float64")
    elif schedule_arg:
        raise UsageError(f"--schedule-arg {schedule_arg[0]}: there is no schedule; give --schedule")
    arguments = parse(whole, _split("--optimizer-arg", assignments), DEFAULTS)
    if whole == "tfa.Lookahead":
        within = Optimizer(find_optimizer(inner or "legacy.Adam"), rated, schedule=scheduled)
        return Optimizer(whole, arguments, inner=within)
    if inner is not None:
        raise UsageError(f"--inner {inner}: {whole} wraps no other; it is for tfa.Lookahead")
    if both := rated.keys() & arguments.keys():
        raise UsageError(f"{', '.join(both)} is given twice; leave one out")
    return Optimizer(whole, {**rated, **arguments}, schedule=scheduled)


def _split(option: str, assignments: Sequence[str]) -> dict[str, str]:
    from oracle.errors import UsageError

    texts: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip() or not text.strip():
            raise UsageError(f"{option} {assignment}: give a name and a value, as in momentum=0.9")
        if name.strip() in texts:
            raise UsageError(f"{option} {assignment}: {name.strip()} is given twice; leave one out")
        texts[name.strip()] = text
    return texts


def _describe_sides() -> str:
    from oracle.frameworks import installed_version

    def join(*names: str) -> str:
        known = [(name, installed_version(name)) for name in names]
        return ", ".join(f"{name} {version}" for name, version in known if version)

    port = join("tensorflow", "keras", "tf-keras", "tensorflow-addons")
    return f"{port} against {join('jax', 'flax', 'optax')}"
