"""C60: where the gradient is stopped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from oracle.causes.cause import ModelSpec, Setting, Situation, Tensors, cause
from oracle.causes.turning import (
    decoder_cells,
    encoder_cells,
    is_stacked,
    is_translator,
    turn_passes,
)
from oracle.knobs import Knobs


@cause(
    "C601",
    title="the encoder is outside the gradient's reach",
    sentence="no gradient reaches the encoder: it is called outside the tape, or what it gives is stopped",
    remedy="Call the encoder inside `with tf.GradientTape() as tape:`, and leave out `tf.stop_gradient`, "
    "`.numpy()` and `tf.constant` on the way to the decoder.",
    kind="infers",
    wrong="encoded, state = encoder(inputs)\nwith tf.GradientTape() as tape:\n"
    "    decoded, _ = decoder(targets, initial_state=state)",
    right="with tf.GradientTape() as tape:\n    encoded, state = encoder(inputs)\n"
    "    decoded, _ = decoder(targets, initial_state=state)",
)
def cut_encoder(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """At the state, and at the memory where there is one."""
    yield from _cut_state(knobs, oracle, [seam for seam in ("handoff", "memory") if seam in knobs.passes])


@cause(
    "C602",
    title="the gradient is stopped at the state that is handed over",
    sentence="no gradient passes from the decoder's first state to the encoder",
    remedy="Leave out `tf.stop_gradient`, `.numpy()`, `tf.constant` or `tf.Variable.assign` on the encoder's "
    "state.",
    kind="infers",
    applies=is_translator,
)
def cut_handoff(knobs: Knobs, oracle: Tensors, situation: Situation) -> Iterator[Setting]:
    """At the state alone."""
    yield from _cut_state(knobs, oracle, ["handoff"])


@cause(
    "C603",
    title="the gradient is stopped at the attention's memory",
    sentence="no gradient passes from the attention to {setting}: the memory is set up "
    "outside the tape, or stopped",
    remedy="Call `mechanism.setup_memory(encoded, ...)` inside the tape, anew for each batch; a memory that "
    "is given to the constructor is that of the first one.",
    applies=is_translator,
    wrong="mechanism.setup_memory(encoded)\nwith tf.GradientTape() as tape:\n    ...",
    right="with tf.GradientTape() as tape:\n    mechanism.setup_memory(encoded)\n    ...",
)
def cut_memory(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """At the memory, or at the keys made of it, whose layer is then out of reach, too."""
    cut = turn_passes(knobs, "memory")
    yield Setting("the encoder's outputs", cut)
    name = "gradient/decoder/attention_mechanism/memory_layer/kernel"
    yield Setting(
        "the encoder's outputs or the memory layer",
        cut,
        after=lambda tensors: {**tensors, name: np.zeros_like(tensors[name])},
    )


@cause(
    "C604",
    title="the gradient is stopped at the fed attention",
    sentence="no gradient passes through the attention that is fed to the next step",
    remedy="Leave `tf.stop_gradient` out of `cell_input_fn`, and keep the attention a tensor from step to "
    "step.",
    applies=is_translator,
)
def cut_feeding(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """At the feeding."""
    yield Setting("", turn_passes(knobs, "feeding"))


@cause(
    "C605",
    title="the gradient is stopped at an embedding",
    sentence="no gradient reaches the embedding of the {setting}",
    remedy="Look it up inside the tape by `tf.nn.embedding_lookup` or the layer itself, and leave out "
    "`tf.stop_gradient`.",
    applies=is_translator,
)
def cut_embedding(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Of the source, of the target, or of both: at the lookup, or at the vectors."""
    for seam, where in (("embedded", ""), ("read", ": its vectors are stopped")):
        yield Setting(f"source{where}", turn_passes(knobs, f"{seam}_source"))
        yield Setting(f"target{where}", turn_passes(knobs, f"{seam}_target"))
        yield Setting(
            f"source and of the target{where}", turn_passes(knobs, f"{seam}_source", f"{seam}_target")
        )


@cause(
    "C606",
    title="the gradient is stopped between encoder layers",
    sentence="no gradient passes from an encoder layer to the one below",
    remedy="Leave out what stops it between the layers: `tf.stop_gradient`, `.numpy()`, a tape for each "
    "layer.",
    applies=is_stacked,
)
def cut_layers(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Between every two layers."""
    if "layers" in knobs.passes:
        yield Setting("", turn_passes(knobs, "layers"))


@cause(
    "C608",
    title="the gradient is stopped at the batch",
    sentence="no gradient reaches {setting}",
    remedy="Only a gradient by the data is lost, none of the weights': `tape.watch` the tensors, and leave "
    "out `tf.stop_gradient` and `.numpy()` on them.",
    applies=lambda spec, batch: not is_translator(spec),
)
def cut_batch(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """At what is read, or at what the outputs are held to."""
    yield Setting("the source that is read", turn_passes(knobs, "read_source"))
    yield Setting("the target that is read", turn_passes(knobs, "read_target"))
    yield Setting("the target that the outputs are held to", turn_passes(knobs, "labels"))
    yield Setting("the target", turn_passes(knobs, "read_target", "labels"))
    every = turn_passes(knobs, "read_source", "read_target", "labels")
    yield Setting("source and target", every)


@cause(
    "C607",
    title="the gradient through time is truncated",
    sentence="the gradient through time is truncated in {setting}",
    remedy="Leave `tf.stop_gradient` out of the loop over the steps, and keep the state a tensor across "
    "chunks.",
)
def truncate(knobs: Knobs, spec: ModelSpec, batch: Tensors) -> Iterator[Setting]:
    """Stopped at every step, beyond the last steps, or between chunks."""
    groups = {
        "the encoder": encoder_cells(knobs),
        "the decoder": decoder_cells(knobs),
        "encoder and decoder": tuple(knobs.cells),
    }
    for name, paths in groups.items():
        longest = max(np.shape(knobs.cells[path].through_time)[0] for path in paths)
        yield _truncate(knobs, f"{name}: none passes a step", paths, 1, whole_chunks=True)
        for steps in _spans(longest):
            yield _truncate(knobs, f"{name}: in chunks of {steps} steps", paths, steps, whole_chunks=True)
            yield _truncate(knobs, f"{name}: to the last {steps} steps", paths, steps, whole_chunks=False)


def _cut_state(knobs: Knobs, oracle: Tensors, seams: list[str]) -> Iterator[Setting]:
    """The state that a record names lies before the seam, or behind it, where it keeps its adjoint."""
    cut = turn_passes(knobs, *seams)
    kept = {name: array for name, array in oracle.items() if name.startswith("gradient/state/encoder")}
    yield Setting("", cut)
    yield Setting("", cut, after=lambda tensors: {**tensors, **kept})


def _truncate(knobs: Knobs, name: str, paths: tuple[str, ...], steps: int, *, whole_chunks: bool) -> Setting:
    """The gradient kept within chunks of steps, or within the last steps."""
    turned = {}
    for path in paths:
        cell = knobs.cells[path]
        passes = np.array(cell.through_time, np.float64)
        number = np.arange(len(passes))
        # The way from the first step is the handoff's, which has a seam of its own.
        stopped = number % steps == 0 if whole_chunks else number == len(passes) - steps
        passes[stopped & (number > 0)] = 0.0
        turned[path] = cell._replace(through_time=passes)
    return Setting(name, knobs._replace(cells={**knobs.cells, **turned}))


def _spans(longest: int) -> list[int]:
    """The lengths that truncations are likely to have: every small one, then round ones."""
    return [steps for steps in (*range(2, 11), 12, 15, 16, 20, 25, 32, 50, 64, 100) if steps < longest]
