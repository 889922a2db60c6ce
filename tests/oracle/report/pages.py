"""Comparisons that the tests of the HTML report show: every status, every field, hostile names."""

from __future__ import annotations

import msgspec

from oracle.compare import Comparison, Row
from oracle.explanation import Candidate, Explanation
from oracle.judgement import Heard, Judgement
from oracle.localisation import Check, HeatMap, Localisation, Place
from oracle.record import Failure
from oracle.trajectory import Divergence, StepRow, TrajectoryComparison
from oracle.witness import Order, Slope, Testimony
from tests.oracle.test_compare import ORACLE
from tests.oracle.test_record import ORIGIN

NAN, INFINITY = float("nan"), float("inf")

HOSTILE = (
    '<script>window.hit = 1</script>"\'>&</style><img src=x onerror="window.hit = 1">\x00\x1b{{ 7 * 7 }}'
)

COMMAND = "oracle compare 'implicit_state/exchanged' --data \"a <b> & c.csv\""

PORT = msgspec.structs.replace(
    ORIGIN, model="implicit_state/exchanged", flags={"tf32": "off", "repeats": "3"}
)

KERNEL = "gradient/decoder/cell/kernel"


def match(name: str, *, max_abs: float = 2e-16) -> Row:
    return Row(
        name, "match", (3, 5), (), max_abs, (1, 2), 0.5, 0.5, max_abs, 1.0, 5.6e-17, max_abs, ""
    )  # fmt: skip


ROWS = (
    match("output/decoder"),
    match("loss", max_abs=0.0),
    Row(KERNEL, "mismatch", (12, 20), ("decoder/lstm_cell/kernel:0",), 0.25, (7, 13), -0.125, 0.125, 0.03, 0.987654321, 1e-17, 2.0, ""),
    Row("gradient/decoder/cell/bias", "none", (20,), ("decoder/lstm_cell/bias:0",), note="the port's gradient is None"),
    Row("gradient/encoder/cell/kernel", "zero", (3, 20), (), 0.75, (2, 11), 0.0, 0.75, 1.0, None, 1e-17, 1.0, "every element is zero"),
    Row("gradient/encoder/cell/bias", "nonfinite", (20,), (), None, (4,), NAN, 0.5, note="NaN or infinite: 1 of 20"),
    Row("gradient/projection/kernel", "nonfinite", (5, 2), (), None, (4, 1), -INFINITY, 1e-300),
    Row("gradient/projection/bias", "missing", (2,), note="the port has no such tensor"),
    Row("gradient/layers_10/bias", "unexpected", (7,), note="the oracle has no such tensor"),
    Row("gradient/layers_2/bias", "shape", (2, 3), note="the port's shape is [3, 2]"),
)  # fmt: skip

JUDGEMENT = Judgement(
    "autodiff",
    ("the losses agree; the port's gradient is not the derivative of its own: along `decoder/cell/kernel`",),
    3,
    0.25,
    0.25,
    (
        Heard(
            "decoder/cell/kernel",
            "element",
            Testimony("decoder/cell/kernel", -0.125, Slope(0.125, 1e-12), Order(1.0, 9), 1e-11),
            Testimony("decoder/cell/kernel", 0.125, Slope(0.125, 1e-12), Order(2.0, 9), 1e-11),
            0.125,
        ),
    ),
)

LOCALISATION = Localisation(
    ("the decoder's cell is the first to leave the oracle, at step 0 of row 2",),
    Place("forward", "step/decoder/cell/c", "decoder/cell", 0, 2, (4,), 0.0123456789123, -0.25),
    Place("backward", "gradient/step/decoder/cell/h", "decoder/cell", 2, 1, (), None, 1.5e-3, "past the row's end"),
    (
        Check("encoder/cell", "forward", True, True, 2.2e-16),
        Check("decoder/cell", "forward", True, False, 0.34, "steps >= 1 of rows 2 and 3"),
        Check("decoder/cell", "backward", False, False, INFINITY),
    ),
    (
        HeatMap("forward", ("encoder/cell", "decoder/cell"), ((0.0, 1e-16, 2e-16, 3e-16), (0.34, 1.0, 0.5))),
        HeatMap("backward", ("encoder/cell", "decoder/cell"), ((1e-3, None, 2.0, 3e-9), (0.5, 1e-4, INFINITY, NAN))),
    ),
)  # fmt: skip

NEAREST = Candidate(
    ("C102",),
    "the decoder starts with h and c exchanged",
    "Unpack `h, c = state` of a Keras layer and pass `[h, c]` on.",
    7e-16,
    9,
    9,
    {"scale": 0.5},
)
FURTHER = Candidate(
    ("C101", "C301"), "the decoder starts from zeros", "Pass `initial_state`.", INFINITY, 2, 9
)

EXPLANATION = Explanation(
    "explained",
    ("Your port equals the oracle exactly (7e-16) if h and c are exchanged.", NEAREST.remedy),
    NEAREST,
    (FURTHER,),
    412,
)
UNEXPLAINED = Explanation(
    "unexplained", ("Nothing in the catalogue gives the port's numbers.",), FURTHER, (), 400
)

FULL = Comparison(
    PORT, ORACLE, ROWS, None, ("state/encoder/c", "state/encoder/h"), JUDGEMENT, LOCALISATION, EXPLANATION
)
BARE = Comparison(PORT, ORACLE, ROWS)
GOOD = Comparison(ORIGIN, ORACLE, ROWS[:2])
RAISED = Comparison(
    ORIGIN,
    ORACLE,
    (),
    Failure("ValueError", HOSTILE, f'Traceback:\n  File "port.py", line 3\nValueError: {HOSTILE}'),
)


def hostile() -> Comparison:
    """A comparison in which every text that comes from outside is an attack on the page."""
    rows = tuple(
        msgspec.structs.replace(row, name=HOSTILE, variables=(HOSTILE,), note=HOSTILE) for row in ROWS
    )
    place = Place("forward", HOSTILE, HOSTILE, 0, 0, (1,), NAN, INFINITY, HOSTILE)
    candidate = Candidate((HOSTILE,), HOSTILE, f"`{HOSTILE}` {HOSTILE}", 0.0, 1, 1, {HOSTILE: 0.0})
    origin = msgspec.structs.replace(
        PORT,
        model=HOSTILE,
        device=HOSTILE,
        data=HOSTILE,
        versions={HOSTILE: HOSTILE},
        flags={HOSTILE: HOSTILE, "notes": HOSTILE},
    )
    return Comparison(
        origin,
        msgspec.structs.replace(ORACLE, weights=HOSTILE),
        rows,
        None,
        (HOSTILE,),
        Judgement("unknown", (HOSTILE,), 0),
        Localisation(
            (HOSTILE,),
            place,
            place,
            (Check(HOSTILE, "forward", True, False, 0.5, HOSTILE),),
            (
                HeatMap(
                    "forward",
                    (HOSTILE, "$\\frac{1}{2}$ \N{CJK UNIFIED IDEOGRAPH-4E2D}"),
                    ((0.5, None), (1.0,)),
                ),
            ),
        ),
        Explanation("explained", (HOSTILE,), candidate, (candidate,), 1),
    )


def trajectory(steps: int = 60, parts_at: int | None = 40) -> TrajectoryComparison:
    rows = []
    for step in range(1, steps + 1):
        error = 1e-5 if parts_at is not None and step >= parts_at else 1e-15 * step
        kinds = {"loss": error, "gradient norm": 2 * error, "slot": 3 * error, "parameter": 4 * error}
        rows.append(
            StepRow(step, 1 / step, 1 / step + error, 0.3, 0.3, 9, 4 * error, "parameter/kernel", kinds)
        )
    found = None if parts_at is None else Divergence(parts_at, "loss", "mismatch", 1e-5, (), 0.025, 0.02501)
    return TrajectoryComparison(tuple(rows), found)
