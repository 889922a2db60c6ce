"""Faults in the encoder's state on its way to the decoder, and in what the encoder starts from."""

from __future__ import annotations

from oracle.selftest.fault import Edit, Fault
from oracle.selftest.places import TOP

PAIRS = ("pair", "pair-wide")
PAIR_CALL = "decoded, final_state = self.decoder(given, initial_state=state)"
ENCODER_CALL = "encoded, state = self.encoder(self.cast(inputs), initial_state=first_state)"
LOOP_STATE = "initial_state=encoder_state,"
START = '"initial_state": self.start(states)'
JOINED = "states.append([tf.concat(pair, axis=-1) for pair in zip(ahead, behind, strict=True)])"

GIVEN = ("handoff", "decoder/cell/state_h", "decoder/cell/state_c")
"""Forward: the seam, and the first state of the decoder, in which one sees it. Cells and states before are
right."""

CUT = ("handoff", "encoder/cell/h", "encoder/cell/c", "state/encoder")
"""Backward: the seam, and the adjoint of the encoder's last state, which a record also has by itself."""


def _pair(
    name: str, state: str, *causes: str, subjects: tuple[str, ...] = PAIRS, backward: bool = False
) -> Fault:
    """The decoder of `explicit_state` called with another state."""
    edit = Edit(PAIR_CALL, f"decoded, final_state = self.decoder(given, initial_state={state})")
    places = CUT if backward else GIVEN
    return Fault(name, "handoff", "explicit_state", subjects, (edit,), causes, places, backward=backward)


def _loop(name: str, state: str, *causes: str, backward: bool = False) -> Fault:
    """The decoder of `dynamic_rnn` called with another state."""
    edit = Edit(LOOP_STATE, f"initial_state={state},")
    # A v1 graph has no steps: forward the decoder's outputs are the first to be wrong.
    places = ("state/encoder",) if backward else ("output/decoder",)
    subjects = ("loop", "loop-lengths")
    return Fault(name, "handoff", "dynamic_rnn", subjects, (edit,), causes, places, backward=backward)


def _translator(
    name: str,
    states: str,
    *causes: str,
    subjects: tuple[str, ...],
    cell: str = "decoder/cells_0",
    backward: bool = False,
) -> Fault:
    """The decoder of `attention_nmt` called with other states, that of `cell` the first that is wrong."""
    edit = Edit(START, f'"initial_state": self.start({states})')
    # Backward the adjoint of the top layer's last state is the first.
    places = ("handoff", TOP, "state/encoder") if backward else _name_states(cell)
    return Fault(name, "handoff", "attention_nmt", subjects, (edit,), causes, places, backward=backward)


def _name_states(cell: str) -> tuple[str, ...]:
    return ("handoff", f"{cell}/state_h", f"{cell}/state_c")


def _joined(name: str, pair: str, *causes: str) -> Fault:
    """The final states of the two directions joined in another way."""
    joined = f"states.append([{pair} for pair in zip(ahead, behind, strict=True)])"
    # The encoder's directions are right, and the states that it gives are not.
    places = (*_name_states("decoder/cells_0"), "state/encoder")
    subjects = ("luong", "bahdanau-gru-2")
    return Fault(name, "handoff", "attention_nmt", subjects, (Edit(JOINED, joined),), causes, places)


def _first(name: str, state: str, cause: str) -> Fault:
    """The encoder of `explicit_state` called with another first state."""
    call = f"encoded, state = self.encoder(self.cast(inputs), initial_state={state})"
    edits, places = (Edit(ENCODER_CALL, call),), ("encoder/cell",)
    return Fault(name, "handoff", "explicit_state", ("pair",), edits, (cause,), places)


_ZEROS = "[tf.zeros_like(part) for part in state]"
_SWAPPED = "[state[::-1] for state in states]"
_BOTTOM = "[*states[:1], *([tf.zeros_like(part) for part in state] for state in states[1:])]"
_TOP = "[*([tf.zeros_like(part) for part in state] for state in states[:-1]), *states[-1:]]"
_BOTH = ("luong", "bahdanau-gru-2")
_HALVES = "[[{} for ahead, back in [tf.split(part, 2, -1) for part in state]] for state in states]"
_STACKED = ("bahdanau-gru-2", "bahdanau-monotonic-2")

FAULTS = (
    _pair("state-not-passed", "None", "C101", subjects=("pair", "pair-bare", "pair-wide")),
    _pair("state-zeros", _ZEROS, "C101"),
    _pair("state-exchanged", "state[::-1]", "C102"),
    _pair("state-h-alone", "[state[0], tf.zeros_like(state[1])]", "C103"),
    _pair("state-c-alone", "[tf.zeros_like(state[0]), state[1]]", "C104"),
    _pair("state-h-twice", "[state[0], state[0]]", "C105"),
    _pair("state-c-twice", "[state[1], state[1]]", "C105"),
    _pair(
        "state-stopped",
        "[tf.stop_gradient(part) for part in state]",
        "C601",
        subjects=("pair", "pair-bare"),
        backward=True,
    ),
    Fault(
        "encoder-outside-tape",
        "handoff",
        "explicit_state",
        ("pair",),
        (Edit(ENCODER_CALL, f"with tape.stop_recording():\n                {ENCODER_CALL}"),),
        ("C601",),
        CUT,
        backward=True,
    ),
    _first("given-state-not-passed", "None", "C121"),
    _first("given-state-exchanged", "first_state and first_state[::-1]", "C122"),
    _loop("loop-state-not-passed", "self.decoder_cell.zero_state(tf.shape(target)[0], target.dtype)", "C101"),
    _loop("loop-state-exchanged", "v1.nn.rnn_cell.LSTMStateTuple(encoder_state.h, encoder_state.c)", "C102"),
    _loop(
        "loop-state-h-alone",
        "v1.nn.rnn_cell.LSTMStateTuple(tf.zeros_like(encoder_state.c), encoder_state.h)",
        "C103",
    ),
    _loop(
        "loop-state-stopped",
        "v1.nn.rnn_cell.LSTMStateTuple(*map(tf.stop_gradient, encoder_state))",
        "C601",
        backward=True,
    ),
    _translator(
        "states-not-passed",
        "[[tf.zeros_like(part) for part in state] for state in states]",
        "C101",
        subjects=("luong", "bahdanau-gru-2"),
    ),
    _translator("states-exchanged", _SWAPPED, "C102", subjects=("luong", "bahdanau-monotonic-2")),
    _translator("states-bottom-alone", _BOTTOM, "C107", subjects=_STACKED, cell="decoder/cells_1"),
    _translator("states-top-alone", _TOP, "C107", subjects=_STACKED),
    _translator("states-top-everywhere", "states[-1:] * len(states)", "C106", subjects=_STACKED),
    _translator(
        "states-bottom-everywhere",
        "states[:1] * len(states)",
        "C106",
        subjects=_STACKED,
        cell="decoder/cells_1",
    ),
    _translator("states-layers-exchanged", "states[::-1]", "C108", subjects=_STACKED),
    _translator(
        "states-stopped",
        "[[tf.stop_gradient(part) for part in state] for state in states]",
        "C602",
        subjects=("luong", "bahdanau-gru-2"),
        backward=True,
    ),
    _translator(
        "directions-exchanged", _HALVES.format("tf.concat([back, ahead], -1)"), "C109", subjects=_BOTH
    ),
    _translator(
        "directions-forward-alone", _HALVES.format("tf.concat([ahead, 0 * back], -1)"), "C110", subjects=_BOTH
    ),
    _translator(
        "directions-backward-twice", _HALVES.format("tf.concat([back, back], -1)"), "C110", subjects=_BOTH
    ),
    _joined("encoder-states-joined-wrong-way", "tf.concat(pair[::-1], axis=-1)", "C109"),
)
