"""`tfa.seq2seq.AttentionWrapper`: a recurrent cell that attends to a memory at every step.

The wrapper is itself a cell, `state, output = wrapper(state, inputs)`. All that a step needs is in its
state, the memory included, so that a decoder carries the state and nothing else:

    memories = wrapper.setup_memory(encoder_outputs, memory_sequence_length=lengths)
    state = wrapper.initial_state(encoder_state, memories)
    for inputs in ...:                              # or nn.scan, or jax.lax.scan over wrapper.apply
        state, output = wrapper(state, inputs)

The memory and the noise in the state never change. A scan does not know that of its carry, and would keep
a copy of the memory of every step for the gradient; `attention_state.split_constants` takes them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jax_models.attention import AttentionMechanism, AttentionMemory
from jax_models.attention_state import AttentionWrapperState, Noise
from jax_models.cell_calls import check_cell
from jax_models.checks import (
    check_array,
    check_callable,
    check_fields,
    check_key,
    check_size,
)

CellInputFunction = Callable[[Any, Array], Any]
"""`cell_inputs = cell_input_fn(inputs, attention)`; of any structure that the cell takes."""

AttentionFunction = Callable[..., tuple[Array, Array, Any]]
"""Like `compute_attention`: the same arguments, the same results."""


def join_inputs(inputs: Array, attention: Array) -> Array:
    """Input feeding (Luong et al. 2015, section 3.3): [inputs; attention], the default `cell_input_fn`."""
    inputs = check_array(
        "AttentionWrapper: inputs",
        inputs,
        (*attention.shape[:-1], "features"),
        "float",
        hint="Maybe they are ids, or have a time axis, or you want a cell_input_fn of your own",
    )
    return jnp.concatenate([inputs, attention], axis=-1)


def compute_attention(
    mechanism: AttentionMechanism,
    memory: AttentionMemory,
    cell_output: Float[Array, "batch query"],
    attention_state: Any,
    attention_layer: Callable[[Array], Array] | None,
    *,
    noise: Float[Array, "batch memory"] | None = None,
    key: PRNGKeyArray | Array | None = None,
) -> tuple[Float[Array, "batch attention"], Float[Array, "batch memory"], Any]:
    """One mechanism's part of a step, the default `attention_fn`.

    The context is the average of the values under the alignments; the attention is `attention_layer` of
    [cell_output; context], or the context if there is no layer.

    Returns:
        The attention, the alignments, and the mechanism's next state.
    """
    alignments, next_state = mechanism(memory, cell_output, attention_state, noise=noise, key=key)
    context = jnp.einsum("bm,bmd->bd", alignments, memory.values)
    if attention_layer is None:
        return context, alignments, next_state
    return attention_layer(jnp.concatenate([cell_output, context], -1)), alignments, next_state


class AttentionWrapper(nn.Module):
    """A cell, joined with one attention mechanism or several: `tfa.seq2seq.AttentionWrapper`.

        cell_state', cell_output = cell(cell_state, cell_input_fn(inputs, attention))
        attention' = attention_fn(mechanism, memory, cell_output, ...)

    With several mechanisms their attentions are concatenated. Wrappers do not share their attention
    layers, even if they share a mechanism.

    Attributes:
        cell: the recurrent cell.
        attention_mechanism: one, or a sequence; as with every other attribute that may be a sequence,
            one and a sequence of one differ in the structure of the state only.
        attention_layer_size: the width of the attention, for each mechanism. Gives each a dense layer
            without bias, `attention_layer` (or `attention_layer_0`, ...).
        alignment_history: whether the state keeps the alignments of all steps.
        cell_input_fn: joins a step's inputs and the attention of the step before.
        output_attention: whether the step's output is the attention (Luong) or the cell's (Bahdanau).
            Either way the attention is fed to the next step.
        attention_layer: instead of `attention_layer_size`, your own modules; each has a field `features`,
            the width of what it returns, as `nn.Dense` has.
        attention_fn: stands in for `compute_attention`.
        param_dtype: the dtype of the attention layers that the wrapper makes.
    """

    cell: nn.Module
    attention_mechanism: AttentionMechanism | Sequence[AttentionMechanism]
    attention_layer_size: int | Sequence[int] | None = None
    alignment_history: bool = False
    cell_input_fn: CellInputFunction = join_inputs
    output_attention: bool = True
    attention_layer: nn.Module | Sequence[nn.Module] | None = None
    attention_fn: AttentionFunction = compute_attention
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        check_cell("AttentionWrapper: cell", self.cell)
        for name in ("cell_input_fn", "attention_fn"):
            check_callable(f"AttentionWrapper: {name}", getattr(self, name), optional=False)
        if self.attention_layer_size is not None and self.attention_layer is not None:
            raise ValueError("attention_layer_size and attention_layer were both given, expected at most one")
        if not self._mechanisms:
            raise ValueError("attention_mechanism is empty, expected one at least")
        for mechanism in _as_tuple(self.attention_mechanism):
            if not isinstance(mechanism, AttentionMechanism):
                raise TypeError(
                    f"attention_mechanism is {mechanism!r}, expected an AttentionMechanism or a sequence"
                )
        for name in ("attention_layer_size", "attention_layer"):
            given = getattr(self, name)
            if given is not None and len(_as_tuple(given)) != self._mechanisms:
                raise ValueError(
                    f"{name} has {len(_as_tuple(given))} entries, expected one for each of the "
                    f"{self._mechanisms} attention mechanisms"
                )
        for size in () if self.attention_layer_size is None else _as_tuple(self.attention_layer_size):
            check_size("attention_layer_size", size)
        for layer in () if self.attention_layer is None else _as_tuple(self.attention_layer):
            if not isinstance(getattr(layer, "features", None), int):
                raise TypeError(
                    f"attention_layer {type(layer).__name__} has no field `features: int`, the width of "
                    "what it returns, which is needed for the attention before the first step"
                )
            check_size("attention_layer: features", layer.features)
        super().__post_init__()

    def setup_memory(
        self,
        memory: Array | Sequence[Array],
        *,
        memory_sequence_length: Array | Sequence[Array | None] | None = None,
        memory_mask: Array | Sequence[Array | None] | None = None,
        **options: Any,
    ) -> AttentionMemory | tuple[AttentionMemory, ...]:
        """`AttentionMechanism.setup_memory` of each mechanism. An argument that is no sequence is for all.

        Returns:
            The memory, or a tuple with one for each mechanism: what `initial_state` wants.
        """
        count = self._mechanisms
        return self._like_mechanisms(
            mechanism.setup_memory(m, memory_sequence_length=length, memory_mask=mask, **options)
            for mechanism, m, length, mask in zip(
                _as_tuple(self.attention_mechanism),
                _for_each(memory, count, "memory"),
                _for_each(memory_sequence_length, count, "memory_sequence_length"),
                _for_each(memory_mask, count, "memory_mask"),
                strict=True,
            )
        )

    def initial_state(
        self,
        cell_state: Any,
        memories: AttentionMemory | Sequence[AttentionMemory],
        *,
        maximum_steps: int | None = None,
        noise: Noise | Sequence[Noise] = None,
    ) -> AttentionWrapperState:
        """The state before the first step: no attention yet, and the cell in `cell_state`.

        Args:
            cell_state: where the cell begins: `cell.zero_state(...)`, or the encoder's final state (in
                TensorFlow `initial_cell_state`, or `get_initial_state(...).clone(cell_state=...)`).
            memories: what `setup_memory` returned.
            maximum_steps: how many steps of alignments to keep, needed for (only) `alignment_history`.
                The alignments of steps beyond are dropped.
            noise: for the monotonic mechanisms with noise: normal numbers [steps, batch, memory] (the
                alignments of steps beyond are NaN), or a key, folded with the time.

        Raises:
            ValueError: if the batches differ, or `maximum_steps` is missing.
        """
        ready = _as_tuple(memories) if not isinstance(memories, AttentionMemory) else (memories,)
        mechanisms = _as_tuple(self.attention_mechanism)
        for memory in ready:
            if not isinstance(memory, AttentionMemory):
                raise TypeError(
                    f"memories holds a {type(memory).__name__}, expected what wrapper.setup_memory returns"
                )
        if len(ready) != len(mechanisms):
            raise ValueError(f"memories has {len(ready)} entries for {len(mechanisms)} attention mechanisms")
        check_size("maximum_steps", maximum_steps, optional=True)
        batch, dtype = ready[0].values.shape[0], ready[0].values.dtype
        for leaf in jax.tree.leaves((cell_state, [m.values for m in ready])):
            if jnp.ndim(leaf) and leaf.shape[0] != batch:
                raise ValueError(
                    f"cell_state and memories have the batches {leaf.shape[0]} and {batch}, expected one. "
                    "Maybe one of them was not tiled with tile_batch for a beam search decoder."
                )
        noises = _for_each(noise, len(mechanisms), "noise")
        for one, memory in zip(noises, ready, strict=True):
            _check_noise(one, memory)
        alignments = self._like_mechanisms(
            mechanism.initial_alignments(m) for mechanism, m in zip(mechanisms, ready, strict=True)
        )
        history = self._like_mechanisms(() for _ in mechanisms)
        if self.alignment_history:
            if maximum_steps is None:
                raise ValueError("maximum_steps is None, but alignment_history=True needs to know it")
            history = jax.tree.map(lambda a: jnp.zeros((maximum_steps, *a.shape), a.dtype), alignments)
        return AttentionWrapperState(
            cell_state=cell_state,
            attention=jnp.zeros((batch, self._attention_width(ready)), dtype),
            time=jnp.zeros((), jnp.int32),
            alignments=alignments,
            alignment_history=history,
            attention_state=self._like_mechanisms(
                mechanism.initial_state(m) for mechanism, m in zip(mechanisms, ready, strict=True)
            ),
            memories=self._like_mechanisms(ready),
            noise=self._like_mechanisms(noises),
        )

    def zero_state(
        self,
        batch: int,
        dtype: DTypeLike,
        *,
        memories: AttentionMemory | Sequence[AttentionMemory],
        maximum_steps: int | None = None,
        noise: Noise | Sequence[Noise] = None,
    ) -> AttentionWrapperState:
        """`initial_state` with the cell's zero state."""
        return self.initial_state(
            self.cell.zero_state(batch, dtype), memories, maximum_steps=maximum_steps, noise=noise
        )

    @nn.compact
    def __call__(
        self, state: AttentionWrapperState, inputs: Any, **cell_arguments: Any
    ) -> tuple[AttentionWrapperState, Float[Array, "batch output"]]:
        """Advance one step. `cell_arguments` go to the cell.

        Returns:
            The new state, and the attention or the cell's output, as `output_attention` says.

        Raises:
            TypeError: if `state` is not an AttentionWrapperState.
        """
        if not isinstance(state, AttentionWrapperState):
            raise TypeError(
                f"state is a {type(state).__name__}, expected an AttentionWrapperState. Maybe you passed "
                "the cell's state instead of wrapper.initial_state(cell_state, memories)."
            )
        cell_inputs = self.cell_input_fn(inputs, state.attention)
        cell_state, cell_output = self.cell(state.cell_state, cell_inputs, **cell_arguments)

        attentions, alignments, next_states = [], [], []
        for mechanism, layer, memory, attention_state, noise in zip(
            _as_tuple(self.attention_mechanism),
            self._attention_layers(),
            self._per_mechanism(state.memories),
            self._per_mechanism(state.attention_state),
            self._per_mechanism(state.noise),
            strict=True,
        ):
            attended = self.attention_fn(
                mechanism, memory, cell_output, attention_state, layer, **_noise_at(noise, state.time)
            )
            for results, result in zip((attentions, alignments, next_states), attended, strict=True):
                results.append(result)

        attention = jnp.concatenate(attentions, axis=-1)
        history = state.alignment_history
        if self.alignment_history:
            history = self._like_mechanisms(
                kept.at[state.time].set(new, mode="drop")
                for kept, new in zip(self._per_mechanism(history), alignments, strict=True)
            )
        new_state = state._replace(
            cell_state=cell_state,
            attention=attention,
            time=state.time + 1,
            alignments=self._like_mechanisms(alignments),
            alignment_history=history,
            attention_state=self._like_mechanisms(next_states),
        )
        return new_state, attention if self.output_attention else cell_output

    @property
    def output_size(self) -> int:
        """The width of the output, as far as it does not depend on the memory.

        Raises:
            ValueError: if the output is the context, which is as wide as the memory.
        """
        if not self.output_attention:
            return self.cell.output_size
        if self.attention_layer_size is None and self.attention_layer is None:
            raise ValueError("output_size: the output is the context, which is as wide as the memory")
        return self._attention_width(())

    @property
    def _mechanisms(self) -> int:
        return len(_as_tuple(self.attention_mechanism))

    def _per_mechanism(self, field: Any) -> tuple:
        """A field of the state as a tuple with an entry for each mechanism."""
        return (field,) if isinstance(self.attention_mechanism, AttentionMechanism) else field

    def _like_mechanisms(self, entries: Any) -> Any:
        """The inverse of `_per_mechanism`."""
        entries = tuple(entries)
        return entries[0] if isinstance(self.attention_mechanism, AttentionMechanism) else entries

    def _attention_width(self, memories: tuple[AttentionMemory, ...]) -> int:
        if self.attention_layer_size is not None:
            return sum(_as_tuple(self.attention_layer_size))
        if self.attention_layer is not None:
            return sum(layer.features for layer in _as_tuple(self.attention_layer))
        return sum(memory.values.shape[-1] for memory in memories)

    def _attention_layers(self) -> tuple[nn.Module | None, ...]:
        if self.attention_layer is not None:
            return _as_tuple(self.attention_layer)
        if self.attention_layer_size is None:
            return (None,) * self._mechanisms
        single = isinstance(self.attention_mechanism, AttentionMechanism)
        return tuple(
            nn.Dense(
                size,
                use_bias=False,
                param_dtype=self.param_dtype,
                name="attention_layer" if single else f"attention_layer_{i}",
            )
            for i, size in enumerate(_as_tuple(self.attention_layer_size))
        )


def _as_tuple(field: Any) -> tuple:
    return tuple(field) if isinstance(field, (tuple, list)) else (field,)


def _for_each(argument: Any, count: int, name: str) -> tuple:
    """An argument for each of `count` mechanisms."""
    if not isinstance(argument, (tuple, list)):
        return (argument,) * count
    if len(argument) != count:
        raise ValueError(f"{name} has {len(argument)} entries for {count} attention mechanisms")
    return tuple(argument)


def _check_noise(noise: Any, memory: AttentionMemory) -> None:
    if noise is None:
        return
    dtype = getattr(noise, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, jnp.floating):
        check_array("noise", noise, ("steps", *memory.values.shape[:2]), "float")
    else:
        check_key("noise", noise)


def _noise_at(noise: Noise, time: Array) -> dict[str, Array]:
    """One step's noise, as arguments of the attention function."""
    if noise is None:
        return {}
    if jnp.issubdtype(noise.dtype, jnp.floating):
        return {"noise": jnp.take(noise, time, axis=0, mode="fill")}
    return {"key": jax.random.fold_in(noise, time)}
