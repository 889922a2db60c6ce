"""A port of the present environment, recorded with its weights and batch: what `oracle record` does."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from oracle.case import check_seed
from oracle.check import CaseMaker, Request, choose_ports
from oracle.errors import UsageError
from oracle.record import Record
from oracle.runner import InProcess
from oracle.user_code import is_target


def record_target(
    target: str,
    *,
    precision: Literal["f64", "f32"] = "f64",
    mode: str | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Record:
    """Run a port and give its record, which holds what it was computed on.

    Args:
        target: a port by name, `explicit_state/full`, or a function that makes an `oracle.LivePort`,
            `my_port.py:build`.
        precision: what it computes in.
        mode: how TensorFlow runs it; by default as the port is meant to run.
        seed: of every random choice.
        batch_size: of a port by name, how many windows or pairs.

    Raises:
        OracleError: if there is no such port, or it cannot be run so.
    """
    check_seed(seed)
    dtype: Literal["float64", "float32"] = "float64" if precision == "f64" else "float32"
    if is_target(target):
        return _record_live(target, dtype, mode, seed)
    request = Request((target,), precision, mode, seed=seed, batch_size=batch_size)
    chosen = choose_ports(request)
    if len(chosen) != 1:
        names = ", ".join(choice.name for choice, _ in chosen)
        raise UsageError(f"{target!r} has several ports, and a record is of one; choose from {names}")
    ((choice, chosen_mode),) = chosen
    with InProcess() as runner:
        case = CaseMaker(request).make(choice.variant)
        record = runner.run("tf", case, model=choice.name, mode=chosen_mode, dtype=dtype).result()
    return replace(record, weights=case.weights, batch=case.batch)


def _record_live(target: str, dtype: Literal["float64", "float32"], mode: str | None, seed: int) -> Record:
    from oracle.live_port import run_live

    _, run = run_live(target, dtype=dtype, mode=mode, seed=seed)
    frozen = getattr(run.record.spec, "frozen", ())
    return replace(run.record, weights=run.weights, batch=run.batch, frozen=tuple(frozen))
