"""State that a port keeps where it should not, or loses: memories, caches, hidden states, variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracle.frameworks import import_tensorflow
from oracle.legacy_graph.diagnosis import Finding
from oracle.live_diagnosis.flow import HELD, SHAPES, follow, is_floating, trace_back
from oracle.live_diagnosis.holders import Held, is_mechanism, is_sampler
from oracle.live_diagnosis.missing import make_finding, name_several
from oracle.live_diagnosis.recording import LayerCall, Operation, Recording, number_of
from oracle.live_diagnosis.runs import Run


@dataclass(frozen=True)
class Explained:
    """Findings, and the handles of the weights whose missing gradients they explain."""

    findings: tuple[Finding, ...] = ()
    handles: frozenset[int] = frozenset()


def find_kept(recording: Recording, runs: Sequence[Run], *, where: str) -> Explained:
    """Tensors that the last run uses and an earlier one, or the construction, made of weights or batch."""
    run, earlier = runs[-1], [o for o in recording.operations if o.phase < runs[-1].phase]
    current = recording.in_phase(run.phase)
    made_now = {number for operation in current for number in operation.outputs}
    makers = {number: operation for operation in earlier for number in operation.outputs}
    trained = {weight.handle: weight for weight in run.weights}
    # Who carries a state on purpose, from batch to batch, stops its gradient.
    unstopped = [operation for operation in earlier if operation.type not in HELD]
    old_batches = {number for old in runs[:-1] for number in old.batch}
    held: dict[int, Held] = {}
    for old in runs:
        held = dict(old.held) | held
    found: dict[tuple[str, int], tuple[str, str, list[str]]] = {}
    handles: set[int] = set()
    for number in sorted(trace_back(current, [run.loss]) - made_now):
        if number not in makers or not is_floating(recording, number):
            continue
        sources = trace_back(unstopped, [number])
        weights = [trained[source].path for source in sources if source in trained]
        if not weights and sources.isdisjoint(old_batches):
            continue
        handles |= sources & trained.keys()
        maker, keeper = makers[number], held.get(number)
        owner = None if keeper is None else keeper.owner
        code = _choose_code(owner, maker)
        key = (code, id(owner) if owner is not None else number)
        path = "" if keeper is None else keeper.path
        _, _, names = found.get(key, ("", "", []))
        # Of what one object keeps, the last made: the keys of a memory rather than the encoder's outputs.
        found[key] = (path, maker.place, [*names, *(name for name in weights if name not in names)])
    findings = [
        make_finding(code, where, place, _describe_kept(code, path, names))
        for (code, _), (path, place, names) in found.items()
    ]
    return Explained(tuple(findings), frozenset(handles))


def _choose_code(owner: Any, maker: Operation) -> str:
    if is_mechanism(owner):
        return "G102" if maker.phase == 0 else "G103"
    return "G104" if is_sampler(owner) else "G105"


def _describe_kept(code: str, path: str, names: Sequence[str]) -> str:
    what = path or "a tensor that the loss uses"
    when = {"G102": "while the port was made", "G103": "for an earlier batch"}.get(code, "in an earlier call")
    cut = f"; through it no gradient gets to {name_several(sorted(names))}" if names else ""
    return f"{what} was computed here {when}, and this run uses it again{cut}"


def find_new_variables(recording: Recording, run: Run, *, where: str) -> Explained:
    """Variables that a run after the first one makes and reads. Their handles are of all runs."""
    current = recording.in_phase(run.phase)
    needed = trace_back(current, [run.loss])
    made = [
        operation
        for operation in current
        if operation.type == "VarHandleOp" and not needed.isdisjoint(operation.outputs)
    ]
    if not made:
        return Explained()
    places = list(dict.fromkeys(operation.place for operation in made))
    finding = make_finding("G106", where, places[0], f"{len(made)} variables are made anew by each call")
    old = [o for o in recording.operations if o.phase > 0 and o.type == "VarHandleOp"]
    return Explained((finding,), frozenset(number for o in old for number in o.outputs))


def find_dropped_state(recording: Recording, run: Run, names: Mapping[int, str], *, where: str) -> Explained:
    """A recurrent layer whose state goes nowhere, before one that starts from zeros.

    Args:
        recording: what was run.
        run: the run to look at.
        names: the paths of the port's layers, by identity.
        where: what to call the port.
    """
    forward = recording.in_phase(run.phase)
    needed = trace_back(forward, [run.loss])
    calls = [call for call in recording.calls if call.phase == run.phase and _is_recurrent(call.layer)]
    lost: dict[tuple[int, bool], list[tuple[LayerCall, LayerCall]]] = {}
    kept: set[int] = set()
    for call in calls:
        results, states = _split_result(call)
        later = [o for o in recording.operations[call.end :] if o.phase == run.phase]
        used = {n for o in later if not needed.isdisjoint(o.outputs) for n in o.inputs} - _shapes_only(later)
        is_whole = not results & used
        # Without `return_sequences` the result is the last state.
        is_last = not getattr(call.layer, "return_sequences", True)
        if not is_whole and (not states or states & used or is_last):
            kept.add(id(call.layer))
            continue
        decoder = _find_zero_start(
            calls,
            call,
            inputs=_numbers(call.arguments[:1]),
            depending=follow(later, results),
            needed=needed,
        )
        if decoder is not None and (is_whole or _is_attended(recording, later, results, decoder)):
            lost.setdefault((id(decoder.layer), is_whole), []).append((call, decoder))
    findings, handles = [], set()
    for (_, is_whole), found in lost.items():
        # A layer that is called for each part of a batch may give what only one part's loss uses.
        pairs = [(call, decoder) for call, decoder in found if id(call.layer) not in kept]
        if not pairs:
            continue
        call, decoder = pairs[0]
        encoders = dict.fromkeys(names.get(id(pair[0].layer), pair[0].layer.name) for pair in pairs)
        what = _describe_lost(list(encoders), is_whole=is_whole)
        what += f"; {names.get(id(decoder.layer), decoder.layer.name)} starts from zeros"
        place = recording.operations[call.end - 1].place if call.end else ""
        findings.append(make_finding("G101", where, place, what))
        if is_whole:
            results = {number for pair in pairs for number in _split_result(pair[0])[0]}
            handles |= _handles_lost(run, forward, results)
    return Explained(tuple(findings), frozenset(handles))


def _describe_lost(encoders: Sequence[str], *, is_whole: bool) -> str:
    if is_whole:
        gives = "it gives" if len(encoders) == 1 else "they give"
        return f"{name_several(encoders)}: nothing that {gives} reaches the loss"
    if len(encoders) == 1:
        return f"{encoders[0]}: its final state, which it returns, is used by nothing"
    return f"{name_several(encoders)}: their final states, which they return, are used by nothing"


def _is_attended(
    recording: Recording, later: Sequence[Operation], results: set[int], decoder: LayerCall
) -> bool:
    """Whether a decoder looks at each step of an encoder, rather than two encoders lying side by side."""
    encoded, decoded = set(results), _numbers(decoder.arguments[:1])
    for operation in later:
        if operation.type in SHAPES:
            continue
        ours = encoded.intersection(operation.inputs)
        theirs = decoded.intersection(operation.inputs)
        if ours and theirs:
            return any(len(recording.tensors[number].shape) > 2 for number in ours)
        if ours:
            encoded.update(operation.outputs)
        elif theirs:
            decoded.update(operation.outputs)
    return False


def _find_zero_start(
    calls: Sequence[LayerCall],
    encoder: LayerCall,
    *,
    inputs: set[int],
    depending: set[int],
    needed: set[int],
) -> LayerCall | None:
    for call in calls:
        if call.start < encoder.end or call.layer is encoder.layer:
            continue
        if not _numbers(call.result) & needed:
            continue
        own = _numbers(call.arguments[:1])
        if own and not own & inputs and not own & depending and _starts_from_zeros(call):
            return call
    return None


def _is_recurrent(layer: Any) -> bool:
    if not hasattr(layer, "cell"):
        return False
    code = getattr(getattr(layer.call, "__wrapped__", layer.call), "__code__", None)
    return code is not None and ("initial_state" in code.co_varnames or "kwargs" in code.co_varnames)


def _starts_from_zeros(call: LayerCall) -> bool:
    state = call.options.get("initial_state")
    if state is None and len(call.arguments) > 1:
        return False
    state = getattr(state, "cell_state", state)
    tensors = [tensor for tensor in import_tensorflow().nest.flatten(state) if tensor is not None]
    return all(number_of(tensor) is not None and not np.any(np.asarray(tensor)) for tensor in tensors)


def _split_result(call: LayerCall) -> tuple[set[int], set[int]]:
    """The numbers of all that a call gave, and of the states among it, if it was asked for them."""
    flat = [number_of(part) for part in import_tensorflow().nest.flatten(call.result)]
    numbers = [number for number in flat if number is not None]
    is_asked = bool(getattr(call.layer, "return_state", False))
    return set(numbers), set(numbers[1:]) if is_asked else set()


def _numbers(structure: Any) -> set[int]:
    flat = import_tensorflow().nest.flatten(structure)
    return {number for part in flat if (number := number_of(part)) is not None}


def _shapes_only(operations: Sequence[Operation]) -> set[int]:
    """What is read by nothing but operations that look at the shape alone."""
    of_shapes = {n for o in operations if o.type in SHAPES for n in o.inputs}
    return of_shapes - {n for o in operations if o.type not in SHAPES for n in o.inputs}


def _handles_lost(run: Run, forward: Sequence[Operation], results: set[int]) -> frozenset[int]:
    """The weights that get as far as what is computed from `results`, and not to the loss."""
    depending = follow(forward, results)
    reached = {weight.handle: follow(forward, [weight.handle]) for weight in run.missing}
    return frozenset(
        handle
        for handle, there in reached.items()
        if run.loss not in there and not there.isdisjoint(depending)
    )


def find_hidden_variables(objects: Iterator[Held], *, where: str) -> list[Finding]:
    """Loaded SavedModels of TF1 that show no variables though their graphs have them."""
    findings = []
    for held in objects:
        # Properties of Keras may raise; what a loaded SavedModel has are plain attributes.
        own = getattr(held.value, "__dict__", {})
        graph = own.get("graph")
        if "signatures" not in own or not hasattr(graph, "get_operations"):
            continue
        references = [o for o in graph.get_operations() if o.type in ("VariableV2", "Variable")]
        if references and not list(getattr(held.value, "variables", ())):
            what = f"{held.path} shows no variables; its graph has {len(references)} reference variables"
            findings.append(make_finding("G002", where, "", what))
    return findings
