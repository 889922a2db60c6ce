"""The ways in which a live port's calls can be other than its reference's: causes that turn knobs.

They have the codes of the catalogue (`oracle.causes`), and name the person's own parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np

from oracle.bridge.mirror.counterfactual.calls import LENGTHS, SETUP_MEMORY
from oracle.bridge.mirror.counterfactual.cell_turns import change_cells
from oracle.bridge.mirror.counterfactual.knobbed import KnobbedReference, Knobs
from oracle.bridge.mirror.counterfactual.parts import show_part
from oracle.bridge.mirror.counterfactual.proposals import Proposal, make_cause
from oracle.bridge.mirror.counterfactual.sites import INITIAL_STATE, Site


def propose_turns(reference: KnobbedReference) -> Iterator[Proposal]:
    """Every way to turn a reference's knobs, the likelier first."""
    neutral = reference.neutral()
    states = [site for site in _without_repeats(reference.sites) if site.states]
    groups = list(_group_calls(states))
    for name, sites in groups:
        yield from _rewire_states(neutral, name, sites)
    yield from _cut(neutral, reference.sites, groups)
    yield from _cut_reads(neutral)
    yield from _ignore(neutral, reference.sites)
    yield from change_cells(neutral, reference.cells)


def _without_repeats(sites: Sequence[Site]) -> list[Site]:
    """The sites of states; a wrapper's state is turned where it is made, not again where it is passed on."""
    made = any(site.method == INITIAL_STATE and site.states for site in sites)
    return [
        site
        for site in sites
        if not (
            made
            and site.method != INITIAL_STATE
            and any("cell_state/" in n or n.endswith("cell_state") for n in site.states)
        )
    ]


def _group_calls(sites: Sequence[Site]) -> Iterator[tuple[str, list[Site]]]:
    """The calls that are likely to share a fault, each group with a name: all of a part's first."""
    by_part: dict[str, list[Site]] = {}
    for site in sites:
        by_part.setdefault(site.part, []).append(site)
    for part, group in by_part.items():
        name = f"`{show_part(part)}`"
        yield name, group
        if len(group) > 1:
            yield f"the first call of {name}", group[:1]
            yield f"every call of {name} but the first", group[1:]


def _rewire_states(neutral: Knobs, name: str, sites: Sequence[Site]) -> Iterator[Proposal]:
    count = len(sites[0].states)
    if any(len(site.states) != count for site in sites):
        return
    keyword = "cell_state" if sites[0].method == INITIAL_STATE else "initial_state"
    passed = (
        "`get_initial_state(...).clone(cell_state=encoder_state)`"
        if keyword == "cell_state"
        else f"`initial_state=...` to {name.removeprefix('the first call of ')}"
    )

    def turn(matrix: np.ndarray) -> Knobs:
        knobs = copy.deepcopy(neutral)
        for site in sites:
            knobs["state"][str(site.number)] = matrix
        return knobs

    zeros = np.zeros((count, count))
    yield make_cause(
        "C101",
        f"{name} starts from zeros: the state that it should start from is not passed",
        f"Pass {passed}; have what comes before it return its state (`return_state=True`).",
        turn(zeros),
    )
    if count == 1:
        return
    if count % 2 == 0:
        swapped = np.kron(np.eye(count // 2), np.eye(2)[::-1])
        yield make_cause(
            "C102",
            f"h and c of the state of {name} are exchanged",
            "Keras' state is `[h, c]`, TF1's `LSTMStateTuple` is `(c, h)`: unpack `h, c = state` of a Keras "
            f"layer and pass `[h, c]` on to {name}.",
            turn(swapped),
        )
        for code, kept, other, part in (("C103", 0, 1, "h"), ("C104", 1, 0, "c")):
            one = np.zeros((2, 2))
            one[kept, kept] = 1
            yield make_cause(
                code,
                f"only {part} of its state reaches {name}, whose {'hc'[other]} starts from zeros",
                f"Pass both parts, `[h, c]`, to {name}.",
                turn(np.kron(np.eye(count // 2), one)),
            )
        for kept, part in ((0, "h"), (1, "c")):
            twice = np.zeros((2, 2))
            twice[:, kept] = 1
            yield make_cause(
                "C105",
                f"{part} is passed as both h and c of the state of {name}",
                f"Pass `[h, c]`, each part in its own place, to {name}.",
                turn(np.kron(np.eye(count // 2), twice)),
            )
    yield from _rewire_layers(name, sites[0], turn, count)


def _rewire_layers(name: str, site: Site, turn: object, count: int) -> Iterator[Proposal]:
    """Of a stack's state, or of a bidirectional layer's: the parts of one layer for another's."""
    assert callable(turn)
    shapes = [site.shapes[state] for state in site.states]
    if count < 3 and not (count == 2 and site.kind.endswith(("StackedRNNCells", "MultiRNNCell"))):
        return
    width = 2 if count % 2 == 0 and count > 2 else 1
    layers = count // width
    if layers < 2 or len(set(shapes)) > 1:
        return
    block = np.eye(width)
    for layer in range(layers):
        one = np.zeros((layers, layers))
        one[:, layer] = 1
        yield make_cause(
            "C106",
            f"every layer of {name} starts from the state that is meant for layer {layer}",
            f"Give each layer of {name} a state of its own: collect the states of all layers in a list.",
            turn(np.kron(one, block)),
        )
        only = np.zeros((layers, layers))
        only[layer, layer] = 1
        yield make_cause(
            "C107",
            f"only layer {layer} of {name} starts from its state, the others from zeros",
            f"Pass the state of every layer to {name}.",
            turn(np.kron(only, block)),
        )
    yield make_cause(
        "C108",
        f"the states of the layers of {name} are passed in reverse order",
        "Keep the order of the layers, the bottom one first, in the list of states.",
        turn(np.kron(np.eye(layers)[::-1], block)),
    )


def _cut(
    neutral: Knobs, sites: Sequence[Site], groups: Sequence[tuple[str, list[Site]]]
) -> Iterator[Proposal]:
    """Where no gradient passes back: a state, a memory, what a part is given, what it gives."""

    def stop(what: str, chosen: Sequence[Site]) -> Knobs:
        knobs = copy.deepcopy(neutral)
        for site in chosen:
            knobs["passes"][f"{site.number}/{what}"] = np.float64(0)
        return knobs

    remedy = (
        "Call it inside `with tf.GradientTape() as tape:`, and leave out `tf.stop_gradient`, `.numpy()` and "
        "`tf.constant` on the way."
    )
    for part, group in _by_part(site for site in sites if site.method == SETUP_MEMORY and site.inputs):
        yield make_cause(
            "C603",
            f"no gradient passes from the memory of `{show_part(part)}` to what it is made of",
            "Call `setup_memory(...)` inside the tape, anew for each batch, on the tensor itself: leave out "
            "`tf.stop_gradient`, `.numpy()` and `tf.constant`.",
            stop("input", group),
        )
    for name, group in groups:
        later, shown = "every call" in name, name.replace("every", "each")
        yield make_cause(
            "C607" if later else "C602",
            f"no gradient passes from the state that {shown} starts from to what gave it",
            "Leave out `tf.stop_gradient`, `.numpy()`, `tf.constant` or `tf.Variable.assign` on the state.",
            stop("state", group),
        )
    models: dict[str, list[Site]] = {}
    for site in sites:
        if site.has_outputs:
            models.setdefault(site.part.split("/", maxsplit=1)[0], []).append(site)
    for model, group in models.items():
        if len(models) > 1 and len(group) > 1:
            yield make_cause(
                "C601",
                f"no gradient reaches `{model}`: it is called outside the tape, or what it gives is stopped",
                f"Call `{model}` inside `with tf.GradientTape() as tape:`, and leave out `tf.stop_gradient`, "
                "`.numpy()` and `tf.constant` on what it gives.",
                stop("output", group),
                subject=model,
            )
    for part, group in _by_part(site for site in sites if site.has_outputs):
        yield make_cause(
            "C601",
            f"no gradient reaches `{show_part(part)}`: it is called outside the tape, or what it gives is "
            "stopped",
            remedy,
            stop("output", group),
            subject=part,
        )
    for part, group in _by_part(site for site in sites if site.inputs and site.method != SETUP_MEMORY):
        yield make_cause(
            "C608",
            f"no gradient passes from `{show_part(part)}` to what it is given",
            remedy,
            stop("input", group),
        )


def _cut_reads(neutral: Knobs) -> Iterator[Proposal]:
    """A weight that is read outside of the parts' calls, as an embedding that is a projection too."""
    for leaf in neutral["reads"]:
        knobs = copy.deepcopy(neutral)
        knobs["reads"][leaf] = np.float64(0)
        yield make_cause(
            "C605" if leaf.endswith("embedding") else "C601",
            f"no gradient reaches `{leaf}` where it is read outside of the calls of its parts",
            "Use the variable itself there, inside the tape, and leave out `tf.stop_gradient`, `.numpy()` "
            "and `get_weights()`.",
            knobs,
        )


def _ignore(neutral: Knobs, sites: Sequence[Site]) -> Iterator[Proposal]:
    """Masks and lengths that are not passed."""
    for part, group in _by_part(site for site in sites if site.counted):
        names = sorted({name for site in group for name in site.counted})
        for name in names:
            knobs = copy.deepcopy(neutral)
            for site in group:
                if name in site.counted:
                    knobs["counts"][f"{site.number}/{name}"] = np.float64(0)
            memory = group[0].method == SETUP_MEMORY or "attention" in group[0].kind.lower()
            keyword = name.split("/", maxsplit=1)[0]
            what, verb = ("the lengths", "are") if name in LENGTHS else ("the mask", "is")
            yield make_cause(
                "C401" if memory else "C303" if "Decoder" in group[0].kind else "C301",
                f"{what} of `{show_part(part)}` {verb} not passed, so that padding counts"
                + (f" (`{name}`)" if len(names) > 1 else ""),
                f"Pass `{keyword}=...` to `{show_part(part)}`. A mask of Keras is lost where a tensor is "
                "sliced, concatenated or made anew.",
                knobs,
            )


def _by_part(sites: Iterator[Site]) -> Iterator[tuple[str, list[Site]]]:
    found: dict[str, list[Site]] = {}
    for site in sites:
        found.setdefault(site.part, []).append(site)
    yield from found.items()
