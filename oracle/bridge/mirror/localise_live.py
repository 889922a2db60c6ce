"""Where a live port leaves its reference: which call of which part, forward, then backward from the loss.

The port is run once more, eagerly, with the calls of the mirrored parts tapped; the reference is run with
the same calls watched. They are matched by object and order. A part whose input is not the reference's is
run by the oracle on the port's own input, so that one fault is not blamed on everything after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from oracle.bridge.mirror.counterfactual.agreement import (
    CALL_BOUND,
    Difference,
    compare_adjoints,
    compare_arguments,
    compare_outputs,
    describe_arguments,
    find_factor,
    find_readers,
    measure,
    name_output,
)
from oracle.bridge.mirror.counterfactual.calls import SETUP_MEMORY, Call
from oracle.bridge.mirror.counterfactual.inspected import (
    Inspected,
    describe_where,
    find_place,
    is_cut,
    list_checks,
    measure_steps,
    say_size,
)
from oracle.bridge.mirror.counterfactual.parts import choose_names, find_parts, show_part
from oracle.bridge.mirror.counterfactual.reference import References
from oracle.bridge.mirror.counterfactual.replay import Replay, can_replay
from oracle.bridge.mirror.counterfactual.taps import Tapped, tap_port
from oracle.bridge.mirror.run_port_side import PortRun
from oracle.live_port import LivePort
from oracle.localisation import HeatMap, Localisation, Pass, Place
from oracle.record import Record
from oracle.tolerance import FLOAT64_BOUND


def localise_live(port: LivePort, run: PortRun, truth: Record) -> Localisation:
    """Say where a live port leaves its reference. Its weights are moved, and put back.

    Whatever goes wrong on the way is what the lines say; nothing is raised.

    Args:
        port: the live port.
        run: what its side gave, in float64.
        truth: the oracle's record.
    """
    try:
        parts = find_parts(port.models)
        calls = References(port, run, parts).record()
        wanted = {(call.part, call.method): parts[call.part] for call in calls if call.part in parts}
        if not wanted:
            return Localisation(("cannot say where: the reference calls no part of the mirror",))
        tapped = tap_port(port, run, wanted)
        return _Inspection(run, truth, calls, tapped, choose_names(parts)).conclude()
    except Exception as error:
        said = " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])
        return Localisation((f"cannot say where: run once more with its parts watched, it raised {said}",))


class _Inspection:
    """Both sides' calls, and what they come to."""

    def __init__(
        self,
        run: PortRun,
        truth: Record,
        calls: Sequence[Call],
        tapped: Tapped,
        names: Mapping[str, str],
    ) -> None:
        self._run, self._truth, self._calls, self._tapped = run, truth, calls, tapped
        self._replay = Replay(run.mirror, names, tapped.calls)
        theirs = {call.key: call for call in tapped.calls}
        self._counts = (_count(calls), _count(tapped.calls))
        self._found: list[Inspected] = []
        for call in calls:
            self._found.append(self._inspect(call, theirs.get(call.key)))

    def conclude(self) -> Localisation:
        """All that is found, the most telling first."""
        if said := self._say_unrepeatable():
            return Localisation((said,))
        lines = [*self._say_counts()]
        forward, said = self._walk_forward()
        lines = [*said, *lines]
        backward = None
        if forward is None and any(found.port is not None for found in self._found):
            backward, said = self._walk_backward()
            lines += said
        maps = []
        if forward is not None:
            maps.append(self._draw("forward"))
        if backward is not None:
            maps.append(self._draw("backward"))
        checks = tuple(check for found in self._found for check in list_checks(found))
        return Localisation(tuple(lines), forward, backward, checks, tuple(maps))

    def _inspect(self, oracle: Call, port: Call | None) -> Inspected:
        if port is None:
            return Inspected(oracle, None, [], [], [], [])
        arguments = compare_arguments(port, oracle)
        adjoints = compare_adjoints(port.output_adjoints, oracle.output_adjoints)
        if oracle.method == SETUP_MEMORY:
            return Inspected(oracle, port, arguments, [], adjoints, [])
        outputs, back, is_checked = [], [], (False, False)
        if not arguments:
            outputs = compare_outputs(port.outputs, oracle.outputs)
            # A decoder reads its memory, too, which is no argument.
            is_checked = (not outputs or not self._is_memory_wrong(), False)
        if not arguments and not adjoints and not outputs:
            back = compare_adjoints(port.argument_adjoints, oracle.argument_adjoints)
            is_checked = (True, self._tapped.differentiated)
        elif can_replay(port):
            outputs, back, is_checked = self._replay_call(port, outputs, is_checked[0])
        return Inspected(oracle, port, arguments, outputs, adjoints, back, is_checked)

    def _is_memory_wrong(self) -> bool:
        """Whether a memory that was set up before is another."""
        return any(found.oracle.method == SETUP_MEMORY and found.arguments for found in self._found)

    def _replay_call(
        self, port: Call, outputs: list[Difference], is_checked: bool
    ) -> tuple[list[Difference], list[Difference], tuple[bool, bool]]:
        """What the oracle's part says of a call on the port's own arguments and adjoints."""
        known = {name: a for name, a in port.output_adjoints.items() if a is not None}
        try:
            ours, adjoints = self._replay.run(port, known if known else None)
        except Exception:
            # A part that cannot be called so is not held to account by itself.
            return outputs, [], (is_checked, False)
        if not is_checked:
            outputs = compare_outputs(port.outputs, ours)
        back = compare_adjoints(port.argument_adjoints, adjoints) if known and not outputs else []
        return outputs, back, (True, bool(known) and not outputs)

    def _say_unrepeatable(self) -> str:
        """That the tapped run is another than the record's, if it is."""
        recorded = self._run.record.tensors
        loss = recorded.get("loss")
        pairs = {f"gradient/{leaf}": gradient for leaf, gradient in self._tapped.gradients.items()}
        same = loss is not None and measure(self._tapped.loss, loss) <= FLOAT64_BOUND
        for name, again in pairs.items():
            before = recorded.get(name)
            if before is None or again is None:
                same &= (before is None) == (again is None)
            else:
                same &= measure(again, before) <= CALL_BOUND
        if same:
            return ""
        return (
            "cannot say where: run once more, eagerly, your port computes something else; is there dropout, "
            "a state that is kept between calls, or something else that changes from run to run?"
        )

    def _say_counts(self) -> list[str]:
        """Which parts are called another number of times."""
        lines = []
        ours, theirs = self._counts
        for (part, method), count in ours.items():
            other = theirs.get((part, method), 0)
            if other != count:
                what, verb = f"`{show_part(part)}`", "called"
                if method == SETUP_MEMORY:
                    what, verb = f"the memory of {what}", "set up"
                mine = f"never {verb}" if not other else f"{verb} {_times(other)}"
                lines.append(f"{what} is {mine} in your port, and {_times(count)} in the reference")
        return lines

    def _walk_forward(self) -> tuple[Place | None, list[str]]:
        """The first call that differs, and what there is to say of the forward pass."""
        first, lines = None, []
        for number, found in enumerate(self._found):
            if found.port is None:
                continue
            if first is None and (found.arguments or found.outputs):
                first = self._place(found, (found.arguments or found.outputs)[0], "forward")
                lines += self._say_first(number, found)
            elif found.outputs and found.is_checked[0]:
                lines.append(
                    f"`{found.name}` gives something else than the oracle's on your port's input, too"
                )
            if found.port.training and not found.oracle.training:
                lines.insert(0, f"`{found.name}` runs with training=True in your port, not in the reference")
        if first is not None:
            return first, list(dict.fromkeys(lines))
        seen = [found for found in self._found if found.port is not None]
        if not seen:
            return None, [
                "your port calls none of the parts that the reference calls: it computes with others, or "
                "with their variables directly"
            ]
        agree = f"all {len(seen)} calls that both sides make agree"
        if len(seen) == 1:
            agree = "the one call that both sides make agrees"
        loss = self._truth.tensors.get("loss")
        if loss is None or measure(self._tapped.loss, loss) <= FLOAT64_BOUND:
            return None, [f"forward, {agree}, and so does the loss"]
        factor = find_factor(np.atleast_1d(self._tapped.loss), np.atleast_1d(loss))
        said = "" if factor is None else f"; it is {factor:.6g} times the oracle's"
        return None, [f"forward, {agree}, but the loss does not: what differs comes after that{said}"]

    def _say_first(self, number: int, found: Inspected) -> list[str]:
        assert found.port is not None
        before = sum(other.port is not None for other in self._found[:number])
        agree = "the call before it agrees" if before == 1 else f"the {before} calls before it agree"
        up_to = agree if before else "it is the first call"
        if not found.arguments:
            worst = max(found.outputs, key=lambda difference: difference.error)
            where = describe_where(worst)
            return [
                f"forward, {found.shown} is where it begins: what goes in agrees, what comes "
                f"out does not ({where}); {up_to}"
            ]
        said = describe_arguments(found.arguments, found.port, found.oracle, self._calls)
        lines = [f"forward, what goes into {found.shown} is where it begins: {said}; {up_to}"]
        if found.is_checked[0]:
            right = "is right" if not found.outputs else "is wrong, too"
            lines.append(f"`{found.name}` itself {right}: the oracle's was run on your port's own input")
        return lines

    def _walk_backward(self) -> tuple[Place | None, list[str]]:
        """The first adjoint that differs, from the loss on, and what there is to say of it."""
        if not self._tapped.differentiated:
            return None, ["backward, nothing can be said: your train step asks no tf.GradientTape"]
        for found in reversed(self._found):
            if found.port is None:
                continue
            # Of several outputs the first is said; a sequence before the states after it.
            for difference in found.adjoints:
                return self._place(found, difference, "backward"), self._say_cut(found, difference)
            for difference in found.back:
                return self._place(found, difference, "backward"), [
                    f"backward, {found.shown} is where it begins: the gradient of its output "
                    f"agrees, that of its `{difference.name}` does not{say_size(difference)}"
                ]
        return None, self._say_after()

    def _say_cut(self, found: Inspected, difference: Difference) -> list[str]:
        assert difference.oracle is not None
        output = found.oracle.outputs.get(difference.name)
        later = [call for call in self._calls if call.key != found.oracle.key]
        readers = find_readers(output, later) if output is not None else []
        what = name_output(found.oracle, difference.name)
        between = f"between {what} and {' and '.join(f'`{name}`' for name in readers)}"
        if not readers:
            between = f"between {what} and the loss"
        if difference.port is None or not difference.port.any():
            model = found.oracle.part.split("/", maxsplit=1)[0]
            beside = [f for f in self._found if f.port and f.oracle.part.split("/", maxsplit=1)[0] == model]
            whole = len(beside) > 1 and all(is_cut(other) for other in beside)
            tail = f", nor anywhere else in `{model}`" if whole else ""
            if not any(other.port and other.port.is_recorded for other in beside):
                tail += f"; `{model}` is called outside of the tape"
            elif found.port is not None and not found.port.is_recorded:
                tail += f"; `{found.name}` is called outside of the tape"
            return [f"backward, the gradient stops {between}: none arrives{tail}"]
        return [f"backward, the gradient is another {between}{say_size(difference)}"]

    def _say_after(self) -> list[str]:
        """Every adjoint agrees: what is done to the gradients then, or outside of the calls."""
        wrong, of_tape = [], []
        for leaf, given in self._tapped.gradients.items():
            truth = self._truth.tensors.get(f"gradient/{leaf}")
            if truth is None:
                continue
            if measure(np.zeros_like(truth) if given is None else given, truth) > FLOAT64_BOUND:
                wrong.append(leaf)
                raw = self._tapped.of_tape.get(leaf)
                if measure(np.zeros_like(truth) if raw is None else raw, truth) <= FLOAT64_BOUND:
                    of_tape.append(leaf)
        if not wrong:
            return ["backward, every adjoint at the calls agrees"]
        names = ", ".join(wrong[:3]) + (", ..." if len(wrong) > 3 else "")
        if wrong == of_tape:
            return [
                "backward, every adjoint agrees and so do the gradients as the tape gives them: your train "
                f"step changes them afterwards ({names})"
            ]
        return [
            f"backward, every adjoint at the calls agrees, but not the gradient of {names}: it is read "
            "outside of the calls that both sides make, or changed afterwards"
        ]

    def _place(self, found: Inspected, difference: Difference, direction: Pass) -> Place:
        return find_place(found, difference, direction, is_stepped=self._is_stepped(found))

    def _is_stepped(self, found: Inspected) -> bool:
        return self._counts[0][found.oracle.part, found.oracle.method] > 1

    def _draw(self, direction: Pass) -> HeatMap:
        """The errors part by part; a part that is called more than once has a column for each call."""
        rows: dict[str, list[float | None]] = {}
        for found in self._found:
            errors = measure_steps(found, direction)
            row = rows.setdefault(found.name, [])
            row += (
                [max((e for e in errors if e is not None), default=None)]
                if self._is_stepped(found)
                else errors
            )
        width = max(map(len, rows.values()), default=0)
        filled = tuple((*row, *[None] * (width - len(row))) for row in rows.values())
        return HeatMap(direction, tuple(rows), filled)


def _count(calls: Sequence[Call]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for call in calls:
        counts[call.part, call.method] = counts.get((call.part, call.method), 0) + 1
    return counts


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
