"""The state of an `AttentionWrapper`, and how a loop carries it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Noise = Array | None
"""A mechanism's noise: standard normal numbers [steps, batch, memory], a JAX key, or None."""


class AttentionWrapperState(NamedTuple):
    """What an `AttentionWrapper` carries: `tfa.seq2seq.AttentionWrapperState`, and what TensorFlow hides
    in the mechanisms.

    `alignments`, `alignment_history`, `attention_state`, `memories` and `noise` are tuples with an entry
    for each mechanism if the wrapper has a tuple of mechanisms, and that entry itself if it has one.

    Attributes:
        cell_state: of the wrapped cell.
        attention: of the step before, [batch, attention]; the next step's input is joined to it.
        time: how many steps were made, a scalar.
        alignments: of the step before, [batch, memory].
        alignment_history: of every step, [maximum_steps, batch, memory], zero where no step was made
            yet; () unless the wrapper keeps it.
        attention_state: of the mechanisms, [batch, memory]. For tfa's mechanisms, the alignments.
        memories: what the mechanisms attend to. Constant.
        noise: of the noisy monotonic mechanisms. Constant.
    """

    cell_state: Any
    attention: Float[Array, "batch attention"]
    time: Int[Array, ""]
    alignments: Any
    alignment_history: Any
    attention_state: Any
    memories: Any
    noise: Any

    def clone(self, **changed: Any) -> AttentionWrapperState:
        """A copy with other fields, of the same structure and shapes.

        Raises:
            ValueError: if a new value's structure or shapes differ from the old one's.
        """
        for name, new in changed.items():
            old = getattr(self, name)
            if jax.tree.map(jnp.shape, old) != jax.tree.map(jnp.shape, new):
                raise ValueError(
                    f"{name} has the shapes {jax.tree.map(jnp.shape, new)}, expected "
                    f"{jax.tree.map(jnp.shape, old)}"
                )
        return self._replace(**changed)

    def map_rows(
        self, function: Callable[..., Array], *others: AttentionWrapperState
    ) -> AttentionWrapperState:
        """Apply `function` to the arrays that have the batch in front, and change and with it its rows.

        These are the cell state, the attention, the alignments and the mechanisms' states: what a decoder
        holds back for finished rows, or reorders with the beams. The time, the history, the memories and
        the noise are this state's own, as the TensorArrays are TensorFlow's. Other states of the same
        structure give `function` its further arguments.
        """
        names = ("cell_state", "attention", "alignments", "attention_state")
        return self._replace(
            **{
                name: jax.tree.map(function, getattr(self, name), *(getattr(other, name) for other in others))
                for name in names
            }
        )


class Constants(NamedTuple):
    """What `split_constants` takes out of one `AttentionWrapperState`."""

    memories: Any
    noise: Any


def split_constants(state: Any) -> tuple[Any, tuple[Constants, ...]]:
    """Take the memories and the noise out of every `AttentionWrapperState` in `state`, any pytree.

        moving, constants = split_constants(state)

        def step(moving, inputs):
            state, output = wrapper.apply(variables, join_constants(moving, constants), inputs)
            return split_constants(state)[0], output

        moving, outputs = jax.lax.scan(step, moving, inputs)

    (In `nn.scan`, pass `constants` as an argument with `in_axes=nn.broadcast`.) A loop over the whole
    state gives the same numbers, but its gradient keeps `memories` once a step.

    Returns:
        The state with () in their places, and what was there, for `join_constants`.
    """
    constants = []

    def take(part: Any) -> Any:
        if not _is_wrapper_state(part):
            return part
        constants.append(Constants(part.memories, part.noise))
        return part._replace(memories=(), noise=())

    return jax.tree.map(take, state, is_leaf=_is_wrapper_state), tuple(constants)


def join_constants(moving: Any, constants: Sequence[Constants]) -> Any:
    """The inverse of `split_constants`."""
    remaining = iter(constants)

    def put(part: Any) -> Any:
        return part._replace(**next(remaining)._asdict()) if _is_wrapper_state(part) else part

    return jax.tree.map(put, moving, is_leaf=_is_wrapper_state)


def _is_wrapper_state(part: Any) -> bool:
    return isinstance(part, AttentionWrapperState)
