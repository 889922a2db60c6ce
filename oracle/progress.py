"""Progress on standard error, on a terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def show_progress(doing: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show that something is being done; the function given takes a line for each thing done."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda line: None
        return
    with console.status(f"{doing} ...") as status:
        yield lambda line: status.update(f"{doing} ... {line} done")


@contextlib.contextmanager
def show_steps(doing: str, steps: int, *, quiet: bool) -> Iterator[Callable[[int, float], None]]:
    """Show a bar of so many steps; the function given takes the steps done and the loss."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda step, loss: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.5g}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(doing, total=steps, loss=float("nan"))
        yield lambda step, loss: progress.update(task, completed=step, loss=loss)
