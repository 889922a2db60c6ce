"""C1: how the encoder's state gets to the decoder, and what the encoder starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from oracle.causes.cause import ModelSpec, Setting, Tensors, cause
from oracle.causes.turning import is_lstm, is_stacked, is_translator, turn_cells
from oracle.knobs import Knobs, handoff_slots
from oracle.spec import EncoderDecoder

Slot = tuple[int, str, str]


@cause(
    "C101",
    title="the decoder starts from zeros",
    sentence="the decoder starts from zeros: the encoder's state is not passed",
    remedy="Pass `initial_state=encoder_state` to the decoder; have the encoder return it "
    "(`return_state=True`).",
    wrong="outputs = encoder(inputs)\ndecoded, _ = decoder(targets, initial_state=None)",
    right="outputs, *state = encoder(inputs)  # return_state=True\n"
    "decoded, _ = decoder(targets, initial_state=state)",
)
def start_from_zeros(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Nothing of the encoder's state."""
    yield _rewire(knobs, spec, "", lambda to: None)


@cause(
    "C102",
    title="h and c are exchanged",
    sentence="the encoder's h and c are exchanged on the way to the decoder",
    remedy="Keras' state is `[h, c]`, TF1's `LSTMStateTuple` is `(c, h)`: unpack `h, c = state` of a Keras "
    "layer and pass `[h, c]` on.",
    applies=is_lstm,
    wrong="c, h = encoder_state\ndecoder(targets, initial_state=[h, c])",
    right="h, c = encoder_state\ndecoder(targets, initial_state=[h, c])",
)
def exchange_parts(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """c in h's place, h in c's."""
    other = {"c": "h", "h": "c"}
    yield from _permute(knobs, spec, "", lambda to: (to[0], other[to[1]], to[2]))


@cause(
    "C103",
    title="only h is passed",
    sentence="only h of the encoder's state reaches the decoder, whose c starts from zeros",
    remedy="Pass both parts: `initial_state=[h, c]`.",
    applies=is_lstm,
)
def pass_only_h(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """c starts from zeros."""
    yield _rewire(knobs, spec, "", lambda to: to if to[1] == "h" else None)


@cause(
    "C104",
    title="only c is passed",
    sentence="only c of the encoder's state reaches the decoder, whose h starts from zeros",
    remedy="Pass both parts: `initial_state=[h, c]`.",
    applies=is_lstm,
)
def pass_only_c(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """h starts from zeros."""
    yield _rewire(knobs, spec, "", lambda to: to if to[1] == "c" else None)


@cause(
    "C105",
    title="one part of the state is passed twice",
    sentence="the encoder's {setting} is passed as both h and c of the decoder's first state",
    remedy="Pass `initial_state=[h, c]`, each part in its own place; an encoder's output is its last h, not "
    "its state.",
    applies=is_lstm,
)
def pass_part_twice(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """h in both places, or c."""
    for part in "hc":
        yield _rewire(knobs, spec, part, lambda to, part=part: (to[0], part, to[2]))


@cause(
    "C106",
    title="one layer's state is passed to every layer",
    sentence="every layer of the decoder starts from the state of {setting} of the encoder",
    remedy="Give each layer of the decoder the final state of the same layer of the encoder: collect the "
    "states of all layers in a list.",
    applies=is_stacked,
    wrong="for layer in layers:\n    outputs, *state = layer(outputs)\n"
    "decoder(targets, initial_state=[state] * len(layers))",
    right="states = []\nfor layer in layers:\n    outputs, *state = layer(outputs)\n"
    "    states.append(state)\ndecoder(targets, initial_state=states)",
)
def pass_one_layer_to_all(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The top layer's, or another's."""
    for layer, name in _name_layers(spec):
        yield _rewire(knobs, spec, name, lambda to, layer=layer: (layer, to[1], to[2]))


@cause(
    "C107",
    title="some layers start from zeros",
    sentence="only {setting} of the decoder starts from the encoder's state; its other layers start from "
    "zeros",
    remedy="Pass the final state of every layer of the encoder to the same layer of the decoder.",
    applies=is_stacked,
)
def pass_one_layer(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The other layers from zeros."""
    for layer, name in _name_layers(spec):
        yield _rewire(knobs, spec, name, lambda to, layer=layer: to if to[0] == layer else None)


@cause(
    "C108",
    title="the layers' states are passed in reverse order",
    sentence="the states of the encoder's layers are passed to the decoder's in reverse order",
    remedy="Keep the order of the layers, the bottom one first, in the list of states.",
    applies=is_stacked,
)
def reverse_layers(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The top layer's to the bottom one."""
    top = max(slot[0] for slot in handoff_slots(spec))
    yield from _permute(knobs, spec, "", lambda to: (top - to[0], to[1], to[2]))


@cause(
    "C109",
    title="the directions' states are exchanged",
    sentence="the final states of the encoder's two directions are joined in the wrong order",
    remedy="Join them as the outputs are joined, the forward direction first: "
    "`tf.concat([forward_h, backward_h], -1)`.",
    applies=is_translator,
)
def exchange_directions(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The backward direction first."""
    other = {"forward": "backward", "backward": "forward"}
    yield from _permute(knobs, spec, "", lambda to: (to[0], to[1], other[to[2]]))


@cause(
    "C110",
    title="one direction's state is left out or used twice",
    sentence="of the encoder's two directions {setting}",
    remedy="Join the final states of both directions: `tf.concat([forward_h, backward_h], -1)`, and the same "
    "for c.",
    applies=is_translator,
)
def pass_one_direction(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """The other half zeros, or the same again."""
    for way in ("forward", "backward"):
        only = f"only the {way} one's state is passed, with zeros for the other's"
        yield _rewire(knobs, spec, only, lambda to, way=way: to if to[2] == way else None)
        twice = f"the {way} one's state is passed twice"
        yield _rewire(knobs, spec, twice, lambda to, way=way: (to[0], to[1], way))


@cause(
    "C121",
    title="the encoder's given state is not passed",
    sentence="the encoder starts from zeros, not from the state that is given to it",
    remedy="Pass `initial_state=[h, c]` to the encoder.",
    applies=lambda spec, batch: isinstance(spec, EncoderDecoder) and spec.initial_state == "given",
)
def start_encoder_from_zeros(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Nothing of the given state."""
    yield Setting("", turn_cells(knobs, ("encoder/cell",), start=np.zeros((2, 2))))


@cause(
    "C122",
    title="h and c of the encoder's given state are exchanged",
    sentence="h and c of the state that is given to the encoder are exchanged",
    remedy="Keras takes `initial_state=[h, c]`; TF1's `LSTMStateTuple` is `(c, h)`.",
    applies=lambda spec, batch: isinstance(spec, EncoderDecoder) and spec.initial_state == "given",
)
def exchange_given_parts(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """c in h's place, h in c's."""
    yield Setting("", turn_cells(knobs, ("encoder/cell",), start=np.eye(2)[::-1].copy()))


def _rewire(knobs: Knobs, spec: ModelSpec, name: str, source: Callable[[Slot], Slot | None]) -> Setting:
    """The handoff in which each slot of the decoder gets the encoder's slot that `source` says."""
    slots = handoff_slots(spec)
    handoff = np.zeros((len(slots), len(slots)))
    for row, slot in enumerate(slots):
        start = source(slot)
        if start is not None:
            handoff[row, slots.index(start)] = 1.0
    return Setting(name, knobs._replace(handoff=handoff))


def _permute(knobs: Knobs, spec: ModelSpec, name: str, source: Callable[[Slot], Slot]) -> Iterator[Setting]:
    """A handoff that permutes; a record names the state before it, or behind it."""
    setting = _rewire(knobs, spec, name, source)
    assert setting.knobs is not None
    handoff, slots = setting.knobs.handoff, handoff_slots(spec)
    yield setting

    def rename(tensors: Tensors) -> dict[str, np.ndarray]:
        changed = dict(tensors)
        for prefix in ("state/encoder", "gradient/state/encoder"):
            parts = [_read_slot(tensors, prefix, spec, slot) for slot in slots]
            moved = [parts[int(np.argmax(row))] for row in handoff]
            for layer, part in dict.fromkeys((slot[0], slot[1]) for slot in slots):
                held = [array for slot, array in zip(slots, moved, strict=True) if slot[:2] == (layer, part)]
                changed[_name_slot(prefix, spec, layer, part)] = np.concatenate(held, axis=-1)
        return changed

    yield Setting(name, setting.knobs, after=rename)


def _read_slot(tensors: Tensors, prefix: str, spec: ModelSpec, slot: Slot) -> np.ndarray:
    array = tensors[_name_slot(prefix, spec, slot[0], slot[1])]
    if isinstance(spec, EncoderDecoder):
        return array
    return np.split(array, 2, axis=-1)[slot[2] == "backward"]


def _name_slot(prefix: str, spec: ModelSpec, layer: int, part: str) -> str:
    return f"{prefix}/{part}" if isinstance(spec, EncoderDecoder) else f"{prefix}/{layer}/{part}"


def _name_layers(spec: ModelSpec) -> Iterator[tuple[int, str]]:
    top = max(slot[0] for slot in handoff_slots(spec))
    for layer in range(top, -1, -1):
        yield layer, {top: "the top layer", 0: "the bottom layer"}.get(layer, f"layer {layer}")
