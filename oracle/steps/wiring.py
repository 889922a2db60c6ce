"""What a model is made of, as far as its steps are recorded: its layers, and the seams between them.

A layer is one of the reference Flax modules, run at all steps at once on what is recorded of its inputs and
states. A seam says where such an input comes from: the decoder's first state is the encoder's last, the
memory is the encoder's outputs without padding. Both are pure JAX functions of values by name, so that their
derivatives say what the adjoint of each value has to be. Names are those of `oracle.recorder.Taps`, without
`step/`: `encoder/cell/h` [batch, time, units]. Values that the batch holds are `batch/source`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from oracle.spec import AttentionNMT, EncoderDecoder

Values = Mapping[str, Any]

Run = Callable[[Values], Any]
"""Of values by name, and of the batch's by `batch/...`."""


@dataclass(frozen=True)
class Layer:
    """A layer.

    Args:
        site: the path of its leaves.
        reads: the names of what it reads.
        gives: of what it gives.
        run: of its leaves and of values, what it gives, by name.
    """

    site: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    run: Callable[[Mapping[str, Array], Values], dict[str, Array]]


@dataclass(frozen=True)
class Seam:
    """Where something comes from that a layer reads.

    Args:
        name: for people.
        into: the name of what is read.
        reads: the names of what it comes from.
        run: of values, what is read; as large as what `choose` takes.
        choose: the part of what is read that this seam makes.
        counts: of the batch, what of it is real [batch, time]; None for all.
    """

    name: str
    into: str
    reads: tuple[str, ...]
    run: Run
    choose: Callable[[Array], Array] = field(default=lambda array: array)
    counts: Callable[[Values], Array] | None = None


def find_wiring(spec: EncoderDecoder | AttentionNMT) -> tuple[tuple[Layer, ...], tuple[Seam, ...]]:
    """The layers and the seams of a model, each in the order of the forward pass."""
    return _wire_translator(spec) if isinstance(spec, AttentionNMT) else _wire_sequences(spec)


def _wire_sequences(spec: EncoderDecoder) -> tuple[tuple[Layer, ...], tuple[Seam, ...]]:
    from jax_models.cells import BasicLSTMCell
    from jax_models.keras_layers import Dense
    from jax_models.losses import mean_squared_error

    cells = {"encoder/cell": spec.encoder, "decoder/cell": spec.decoder}
    layers = [_cell(site, BasicLSTMCell(cell.units, cell.forget_bias), "ch") for site, cell in cells.items()]
    source_length = _lengths("source") if spec.lengths else None
    target_length = _lengths("target") if spec.lengths else None
    given = spec.initial_state == "given"

    seams = [Seam("encoder/cell/input", "encoder/cell/input", ("batch/source",), lambda v: v["batch/source"])]
    seams += _state("encoder/cell", "ch", source_length, given=given)
    seams.append(
        Seam(
            "decoder/cell/input", "decoder/cell/input", ("batch/target",), lambda v: v["batch/target"][:, :-1]
        )
    )
    for part in "ch":
        read = {"exchanged": {"c": "h", "h": "c"}[part]}.get(spec.handoff, part)

        def hand_over(v: Values, read: str = read) -> Array:
            last = _last(v[f"encoder/cell/{read}"], source_length and source_length(v))
            return {"zeros": jnp.zeros_like, "stopped": jax.lax.stop_gradient}.get(spec.handoff, _same)(last)

        into = f"decoder/cell/state_{part}"
        seams.append(Seam("handoff", into, (f"encoder/cell/{read}",), hand_over, _first))
    seams += _state("decoder/cell", "ch", target_length, first=False)
    output = "decoder/cell/h"

    def decoded(v: Values) -> Array:
        return _zero_past(v["decoder/cell/h"], target_length and target_length(v))

    if spec.projection:
        layers.append(_dense("projection", Dense(spec.target_features)))
        seams.append(Seam("projection/input", "projection/input", (output,), decoded))
        output = "projection/output"

    def loss(v: Values) -> Array:
        prediction = v[output] if spec.projection else decoded(v)
        return mean_squared_error(prediction, v["batch/target"][:, 1:])

    seams.append(Seam("loss", "loss", (output, "batch/target"), loss))
    return tuple(layers), tuple(seams)


def _wire_translator(spec: AttentionNMT) -> tuple[tuple[Layer, ...], tuple[Seam, ...]]:
    from jax_models.attention_nmt import make_mechanism, masked_loss
    from jax_models.keras_cells import GRUCell, LSTMCell
    from jax_models.keras_layers import Dense

    cell = {"lstm": LSTMCell, "gru": GRUCell}[spec.cell]
    parts = "ch" if spec.cell == "lstm" else "h"
    length = _lengths("source")
    layers = [_embedding("encoder/embedding", lambda v: v["batch/source"])]
    seams: list[Seam] = []
    below: tuple[str, ...] = ("encoder/embedding/output",)

    def embedded(v: Values) -> Array:
        return v["encoder/embedding/output"]

    outputs: Run = embedded
    for i in range(spec.layers):
        ahead, behind = (f"encoder/layers_{i}/{way}/cell" for way in ("forward", "backward"))
        for site in (ahead, behind):
            layers.append(_cell(site, cell(spec.units), parts))

            def read(v: Values, of: Run = outputs, turned: bool = site == behind) -> Array:
                return _reverse(of(v), length(v)) if turned else of(v)

            seams.append(Seam(f"{site}/input", f"{site}/input", below, read, counts=length))
            seams += _state(site, parts, length)

        def join_directions(v: Values, ahead: str = ahead, behind: str = behind) -> Array:
            both = v[f"{ahead}/h"], _reverse(v[f"{behind}/h"], length(v))
            return _zero_past(jnp.concatenate(both, axis=-1), length(v))

        outputs, below = join_directions, (f"{ahead}/h", f"{behind}/h")

    mechanism, top = "decoder/attention_mechanism", f"decoder/cells_{spec.layers - 1}/h"
    alignments, memory = f"{mechanism}/alignments", f"{mechanism}/memory"
    width = spec.attention.layer_units
    layers.append(_embedding("decoder/embedding", lambda v: v["batch/target"][:, :-1]))
    seams.append(Seam("memory", memory, below, outputs))

    def attend(v: Values) -> Array:
        return jnp.einsum("btm,bmd->btd", v[alignments], v[memory])

    attention, attended = (attend, (alignments, memory))
    if width is not None:
        attention, attended = (
            lambda v: v["decoder/attention_layer/output"],
            ("decoder/attention_layer/output",),
        )
    for i in range(spec.layers):
        site = f"decoder/cells_{i}"
        layers.append(_cell(site, cell(2 * spec.units), parts))
        if i == 0:
            seams += _feed(spec, attended, attention)
        else:
            under = f"decoder/cells_{i - 1}/h"
            seams.append(Seam(f"{site}/input", f"{site}/input", (under,), lambda v, under=under: v[under]))
        for part in parts:
            finals = tuple(f"encoder/layers_{i}/{way}/cell/{part}" for way in ("forward", "backward"))

            def hand_over(v: Values, finals: tuple[str, ...] = finals) -> Array:
                return jnp.concatenate([_last(v[name], length(v)) for name in finals], axis=-1)

            seams.append(Seam("handoff", f"{site}/state_{part}", finals, hand_over, _first))
        seams += _state(site, parts, None, first=False)
    seams.append(Seam(f"{mechanism}/query", f"{mechanism}/query", (top,), lambda v: v[top]))
    attention_of = spec.attention
    module = make_mechanism(attention_of.mechanism, attention_of.units, attention_of.scaled, jnp.float64)
    layers.append(_mechanism(mechanism, module, length))
    if width is not None:
        site = "decoder/attention_layer"
        layers.append(_dense(site, Dense(width, use_bias=False)))

        def join(v: Values) -> Array:
            return jnp.concatenate([v[top], attend(v)], axis=-1)

        seams.append(Seam(f"{site}/input", f"{site}/input", (top, alignments, memory), join))
    site = "decoder/output_layer"
    layers.append(_dense(site, Dense(spec.target_vocab)))
    seams.append(Seam(f"{site}/input", f"{site}/input", attended, attention))
    logits = f"{site}/output"

    def loss(v: Values) -> Array:
        target = v["batch/target"][:, 1:]
        missing = target.shape[1] - v[logits].shape[1]
        padded = jnp.pad(v[logits], [(0, 0), (0, missing), (0, 0)])
        return masked_loss(padded, target, v["batch/target_length"], spec.loss)

    seams.append(Seam("loss", "loss", (logits,), loss))
    return tuple(layers), tuple(seams)


def _feed(spec: AttentionNMT, attended: tuple[str, ...], attention: Run) -> list[Seam]:
    """What the lowest cell of the decoder reads: a vector of the target, and the attention before."""
    into, embedded = "decoder/cells_0/input", "decoder/embedding/output"

    def read(v: Values) -> Array:
        return v[embedded][:, : v[into].shape[1]]

    def feed(v: Values) -> Array:
        return jnp.pad(attention(v), [(0, 0), (1, 0), (0, 0)])[:, :-1]

    return [
        Seam(into, into, (embedded,), read, lambda array: array[..., : spec.embedding]),
        Seam("feeding", into, attended, feed, lambda array: array[..., spec.embedding :]),
    ]


def _state(
    site: str, parts: str, length: Run | None, *, first: bool = True, given: bool = False
) -> list[Seam]:
    """Each step's state is what the step before gave; the first, if it is no other's, zeros or given."""
    seams = []
    for part in parts:
        name, initial = f"{site}/{part}", f"batch/initial_state/{part}"

        def begin(v: Values, name: str = name, initial: str = initial) -> Array:
            return v[initial] if given else jnp.zeros_like(v[name][:, 0])

        def go_on(v: Values, name: str = name) -> Array:
            return v[name][:, :-1]

        def counts(v: Values, name: str = name) -> Array:
            assert length is not None
            return length(v)[:, 1:]

        into = f"{site}/state_{part}"
        if first:
            seams.append(Seam(f"{site}/state", into, (initial,) if given else (), begin, _first))
        seams.append(
            Seam(
                f"{site}/state", into, (name,), go_on, lambda array: array[:, 1:], counts if length else None
            )
        )
    return seams


def _cell(site: str, module: Any, parts: str) -> Layer:
    from jax_models.cell_base import LSTMState

    reads = (f"{site}/input", *(f"{site}/state_{part}" for part in parts))
    gives = tuple(f"{site}/{part}" for part in parts)

    def run(leaves: Mapping[str, Array], v: Values) -> dict[str, Array]:
        inputs, *states = (v[name] for name in reads)
        flat = [_merge_steps(state) for state in states]
        state = LSTMState(*flat) if len(flat) == 2 else flat[0]
        new, _ = module.apply({"params": leaves}, state, _merge_steps(inputs))
        arrays = new if len(flat) == 2 else (new,)
        return {
            name: array.reshape(old.shape) for name, array, old in zip(gives, arrays, states, strict=True)
        }

    return Layer(site, reads, gives, run)


def _dense(site: str, module: Any) -> Layer:
    def run(leaves: Mapping[str, Array], v: Values) -> dict[str, Array]:
        return {f"{site}/output": module.apply({"params": leaves}, v[f"{site}/input"])}

    return Layer(site, (f"{site}/input",), (f"{site}/output",), run)


def _embedding(site: str, ids: Run) -> Layer:
    def run(leaves: Mapping[str, Array], v: Values) -> dict[str, Array]:
        return {f"{site}/output": leaves["embedding"][ids(v)]}

    return Layer(site, (), (f"{site}/output",), run)


def _mechanism(site: str, module: Any, length: Run) -> Layer:
    names = tuple(f"{site}/{part}" for part in ("memory", "query", "alignments"))

    def run(leaves: Mapping[str, Array], v: Values) -> dict[str, Array]:
        memory, queries, alignments = (v[name] for name in names)

        params = {"params": leaves}
        mask = length(v).astype(bool)
        ready = module.apply(params, memory, memory_mask=mask, method="setup_memory")
        first = module.apply(params, ready, method="initial_state")[:, None]
        before = jnp.concatenate([first, alignments[:, :-1]], axis=1)

        def attend(query: Array, previous: Array) -> Array:
            return module.apply(params, ready, query, previous)[0]

        # What came before is recorded, so that the steps need not wait for each other.
        return {f"{site}/alignments": jax.vmap(attend, in_axes=1, out_axes=1)(queries, before)}

    return Layer(site, names, (f"{site}/alignments",), run)


def _lengths(name: str) -> Run:
    """1 for the steps [batch, time] of a row up to its length."""

    def count(v: Values) -> Array:
        time = v[f"batch/{name}"].shape[1] - (name == "target")
        return (jnp.arange(time) < v[f"batch/{name}_length"][:, None]).astype(jnp.int32)

    return count


def _merge_steps(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _same(array: Array) -> Array:
    return array


def _first(array: Array) -> Array:
    return array[:, 0]


def _last(array: Array, counts: Array | None) -> Array:
    """The last step of each row that counts; zeros if none does."""
    if counts is None:
        return array[:, -1]
    index = jnp.sum(counts, axis=1).astype(jnp.int32)
    chosen = jnp.take_along_axis(array, jnp.maximum(index - 1, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where(index[:, None] > 0, chosen, jnp.zeros_like(chosen))


def _zero_past(array: Array, counts: Array | None) -> Array:
    return array if counts is None else jnp.where(counts[..., None] > 0, array, jnp.zeros_like(array))


def _reverse(array: Array, counts: Array) -> Array:
    """Each row's steps in reverse, up to its length; what is past that stays."""
    time, length = jnp.arange(array.shape[1]), jnp.sum(counts, axis=1).astype(jnp.int32)[:, None]
    index = jnp.where(time < length, length - 1 - time, time)
    return jnp.take_along_axis(array, index[..., None], axis=1)
