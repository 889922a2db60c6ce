"""The test of a cause: a port that has it is explained by it, and by nothing better."""

from __future__ import annotations

import numpy as np

from oracle.case import Case, cast_case
from oracle.causes import find_cause
from oracle.causes.cause import Setting
from oracle.explain import explain_record
from oracle.explanation import Explanation
from oracle.record import Record, record_port
from oracle.run_jax import run_oracle
from oracle.steps.counterfactual import Evaluator


def make_port(case: Case, setting: Setting) -> Record:
    """The record of a port that computes what the oracle does under a setting.

    Args:
        case: what it computes on.
        setting: of a cause; one without knobs is done to the oracle's own tensors.
    """
    weights, batch = cast_case(case, "float64")
    evaluator = Evaluator(case.spec, weights, batch)
    knobs = evaluator.neutral if setting.knobs is None else setting.knobs
    (tensors,) = evaluator.evaluate([knobs])
    if setting.after is not None:
        tensors = setting.after(tensors)
    return record_port(case, tensors, model="a port with a fault")


def check_cause(code: str, case: Case) -> list[Explanation]:
    """Check a cause that turns knobs on a case: each of its settings must be what explains its own port.

    A setting that changes nothing on this case explains nothing, and is passed over.

    Args:
        code: the cause's.
        case: what to compute on; the cause must apply to it.

    Returns:
        The explanations, one a setting that has an effect.

    Raises:
        AssertionError: if the cause does not apply, has no setting with an effect, or a port of one of its
            settings is explained by another cause or by none.
        UsageError: if there is no such cause.
    """
    found = find_cause(code)
    weights, batch = cast_case(case, "float64")
    assert found.kind == "turns", f"{code} does not turn knobs; make its port with make_port"
    assert found.applies(case.spec, batch), f"{code} does not apply to this case"
    evaluator, truth = Evaluator(case.spec, weights, batch), run_oracle(case, model="the oracle")
    explanations = []
    for setting in found.propose(evaluator.neutral, case.spec, batch):
        port = make_port(case, setting)
        if not differs(port, truth):
            continue
        explanation = explain_record(port, truth, evaluator)
        best = explanation.best
        said = "nothing" if best is None else f"{', '.join(best.codes)}: {best.sentence}"
        assert explanation.kind == "explained", f"{code} {setting.name}: not explained; nearest is {said}"
        codes = () if best is None else best.codes
        assert codes == (code,), f"{code} {setting.name}: explained by {said}"
        assert found.advise(setting) in explanation.lines, f"{code} {setting.name}: its remedy is not said"
        explanations.append(explanation)
    assert explanations, f"{code} changes nothing on this case"
    return explanations


def differs(port: Record, truth: Record) -> bool:
    """Whether a port of `make_port` is not the oracle: whether its setting has an effect on the case."""
    for name, tensor in truth.tensors.items():
        there = port.tensors[name]
        if tensor is None or there is None:
            return True
        if np.abs(there - tensor).max() > 1e-9 * np.abs(tensor).max():
            return True
    return False
