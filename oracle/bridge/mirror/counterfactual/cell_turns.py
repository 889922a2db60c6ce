"""What a recurrent cell can compute of its weights instead: causes that turn a cell's knobs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from oracle.bridge.mirror.counterfactual.knobbed import Knobs
from oracle.bridge.mirror.counterfactual.parts import show_part
from oracle.bridge.mirror.counterfactual.proposals import Proposal, make_cause
from oracle.bridge.mirror.counterfactual.sites import CellSite
from oracle.causes import CAUSES


def change_cells(neutral: Knobs, cells: Sequence[CellSite]) -> Iterator[Proposal]:
    """What a cell computes of its weights."""
    for name, group in _group_cells(cells):
        lstm = all(cell.gates == 4 for cell in group)
        biased = all(cell.has_bias for cell in group)

        def turn(knob: str, value: object, group: Sequence[CellSite] = group) -> Knobs:
            knobs = copy.deepcopy(neutral)
            for cell in group:
                knobs["cells"][cell.path][knob] = value
            return knobs

        if lstm and biased:
            yield make_cause(
                "C202",
                f"a forget bias of 1 is added in {name}, which the reference does not add",
                "It is in Keras' bias already: add it in one place, or say in the mirror function that the "
                "cell adds it.",
                turn("forget", np.float64(1)),
            )
            yield make_cause(
                "C201",
                f"the forget bias of 1 is missing in {name}",
                "Add 1 to the forget gate's part of the bias, as TF1's cells do when they run.",
                turn("forget", np.float64(-1)),
            )
        if biased:
            yield make_cause(
                "C211", f"the bias is missing in {name}", CAUSES["C211"].remedy, turn("bias", np.float64(0))
            )
            yield make_cause(
                "C210",
                f"the bias is counted twice in {name}",
                CAUSES["C210"].remedy,
                turn("bias", np.float64(2)),
            )
        yield make_cause(
            "C208",
            f"each square block of the recurrent kernel is transposed in {name}",
            CAUSES["C208"].remedy,
            turn("transposed", np.float64(1)),
        )
        count = group[0].gates
        if count == 1 or any(cell.gates != count for cell in group):
            continue
        letters = "ifgo" if count == 4 else "zrh"
        for order in itertools.permutations(range(count)):
            if order != tuple(range(count)):
                said = ", ".join(letters[gate] for gate in order)
                yield make_cause(
                    "C203",
                    f"the gates are in another order: {name} reads {said}",
                    CAUSES["C203"].remedy,
                    turn("gates", np.eye(count)[np.argsort(order)]),
                )


def _group_cells(cells: Sequence[CellSite]) -> Iterator[tuple[str, list[CellSite]]]:
    for cell in cells:
        yield f"`{show_part(cell.path)}`", [cell]
    if len(cells) > 1 and len({cell.gates for cell in cells}) == 1:
        yield "every cell", list(cells)
