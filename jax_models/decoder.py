"""Decoding: a cell, a sampler and an output layer, stepped until every row is finished.

The loop is a scan over a fixed number of steps, so that it differentiates and compiles; once all rows
are finished its steps change nothing, as TensorFlow's loop, which stops there, would have it.

Source: `tfa.seq2seq.dynamic_decode`, `Decoder`, `BaseDecoder` and `BasicDecoder` of TensorFlow Addons
0.23, whose names and defaults these are.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jax_models.attention_state import join_constants, split_constants
from jax_models.cell_base import PerStep
from jax_models.checks import check_array, check_callable, check_choice, check_size, read_if_known
from jax_models.decode_loop import Carry, ImputeMask, advance, fit_steps, map_rows, run_scan, run_while
from jax_models.sampler_base import Feed, Sampler

OutputTime = Literal["maximum_iterations", "steps_run"]
"""How long the outputs are: the bound, as in TensorFlow under XLA, or the steps run, as in eager mode."""

Loop = Literal["scan", "while"]
"""A scan differentiates; a while loop, for inference, stops when all rows are finished."""


class Decoder(nn.Module, metaclass=abc.ABCMeta):
    """The interface of `tfa.seq2seq.Decoder`: what `dynamic_decode` asks of a decoder.

    It has no hidden state: what TensorFlow's decoders store when they are initialised is in the `Feed`.
    """

    @abc.abstractmethod
    def initialize(self, *args: Any, **kwargs: Any) -> tuple[Array, Any, Any, Feed]:
        """Return `finished` [batch], the first inputs, the initial state and the feed."""

    @abc.abstractmethod
    def step(self, time: Any, inputs: Any, state: Any, feed: Feed) -> tuple[Any, Any, Any, Array]:
        """Return the outputs, the next state, the next inputs and `finished`."""

    def finalize(self, outputs: Any, final_state: Any, sequence_lengths: Any, feed: Feed) -> tuple[Any, Any]:
        """Turn the time-major outputs [steps, batch, ...] and the state into what is returned."""
        return outputs, final_state

    @property
    def tracks_own_finished(self) -> bool:
        """Whether `step` returns all that are finished, and not only those that finish at this step.

        Such a decoder's state has the `lengths` if it moves rows about.
        """
        return False


class BaseDecoder(Decoder, kw_only=True):
    """A decoder that is called like a layer, as `tfa.seq2seq.BaseDecoder`: the call decodes.

    Its attributes are the options of `dynamic_decode`. TensorFlow's `parallel_iterations` and
    `swap_memory` have no meaning here.
    """

    output_time_major: bool = False
    impute_finished: bool = False
    maximum_iterations: int | None = None
    output_time: OutputTime = "maximum_iterations"
    impute_mask: ImputeMask = "tensorflow"
    loop: Loop = "scan"

    def __post_init__(self) -> None:
        _check_options(
            type(self).__name__, self.maximum_iterations, self.output_time, self.impute_mask, self.loop
        )
        super().__post_init__()

    def __call__(self, inputs: Any, *, initial_state: Any = None, **kwargs: Any) -> tuple[Any, Any, Array]:
        """Decode from `initialize(inputs, initial_state=..., **kwargs)`. See `dynamic_decode`."""
        return dynamic_decode(
            self,
            output_time_major=self.output_time_major,
            impute_finished=self.impute_finished,
            maximum_iterations=self.maximum_iterations,
            output_time=self.output_time,
            impute_mask=self.impute_mask,
            loop=self.loop,
            decoder_init_input=inputs,
            decoder_init_kwargs={"initial_state": initial_state, **kwargs},
        )


class BasicDecoderOutput(NamedTuple):
    """`rnn_output` [batch, time, units or vocab] and `sample_id` [batch, time, ...]."""

    rnn_output: Any
    sample_id: Any


class BasicDecoder(BaseDecoder):
    """A cell whose inputs a sampler chooses, as `tfa.seq2seq.BasicDecoder`.

    Attributes:
        cell: called as `state, output = cell(state, inputs)`.
        sampler: what is emitted, and read at the next step.
        output_layer: a module or function applied to the cell's output, or None.
    """

    cell: nn.Module
    sampler: Sampler
    output_layer: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        check_callable("BasicDecoder: cell", self.cell, optional=False)
        check_callable("BasicDecoder: output_layer", self.output_layer)
        if not isinstance(self.sampler, Sampler):
            raise TypeError(f"BasicDecoder: sampler is {self.sampler!r}, expected a Sampler")
        super().__post_init__()

    def initialize(
        self, inputs: Any, *, initial_state: Any = None, dropout_masks: Any = None, **kwargs: Any
    ) -> tuple[Array, Any, Any, Feed]:
        """Initialise the sampler with `inputs` and `kwargs`.

        Args:
            inputs: what the sampler's `initialize` takes first.
            initial_state: the cell's, a pytree of arrays [batch, ...].
            dropout_masks: those of the cell, a pytree of which each step gets row t of what is marked
                `PerStep`, and the rest whole. `choose_dropout_masks` of `jax_models.keras_dropout`
                makes them as TensorFlow's Keras cells do, which in eager mode keep one mask for all steps
                and calls.
            kwargs: the further arguments of the sampler's `initialize`.
        """
        if initial_state is None:
            raise ValueError(
                "BasicDecoder: initial_state is missing, expected the cell's state. Maybe "
                "cell.zero_state(batch, dtype)?"
            )
        finished, first_inputs, feed = self.sampler.initialize(inputs, **kwargs)
        check_batch(initial_state, finished.shape[0])
        feed = Feed(feed.rows, (feed.constants, dropout_masks))
        return finished, first_inputs, initial_state, feed

    def step(self, time: Any, inputs: Any, state: Any, feed: Feed) -> tuple[Any, Any, Any, Array]:
        """Call the cell, the output layer and the sampler."""
        rows, (constants, masks) = feed
        arguments = {}
        if masks is not None:
            # Masks have no gradient, so that reading rows of a constant costs the backward pass nothing.
            arguments["dropout_masks"] = jax.tree.map(
                lambda mask: mask.masks[time] if _is_per_step(mask) else mask,
                masks,
                is_leaf=_is_per_step,
            )
        cell_state, output = self.cell(state, inputs, **arguments)
        if self.output_layer is not None:
            output = self.output_layer(output)
        own = Feed(rows, constants)
        sample_ids = self.sampler.sample(time, output, cell_state, own)
        finished, next_inputs, next_state = self.sampler.next_inputs(
            time, output, cell_state, sample_ids, own
        )
        return BasicDecoderOutput(output, sample_ids), next_state, next_inputs, finished


def dynamic_decode(
    decoder: Decoder,
    *,
    output_time_major: bool = False,
    impute_finished: bool = False,
    maximum_iterations: int | None = None,
    output_time: OutputTime = "maximum_iterations",
    impute_mask: ImputeMask = "tensorflow",
    loop: Loop = "scan",
    decoder_init_input: Any = None,
    decoder_init_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Any, Any, Int[Array, "*rows"]]:
    """Step a decoder until all rows are finished, as `tfa.seq2seq.dynamic_decode`.

    The step at which a row finishes (it emits the end token) is kept, and counted in its length. A row
    that is finished goes on being stepped while others are not: by default its outputs and its state go
    on changing, and so padded inputs are part of the final state and of the gradients.

    Call it within a module's method or under `apply`: the decoder is bound to its parameters.

    Args:
        decoder: a `BaseDecoder` is initialised with `decoder_init_input` and `decoder_init_kwargs`,
            another `Decoder` without arguments.
        output_time_major: return [time, batch, ...] and not [batch, time, ...].
        impute_finished: zero the outputs and keep the state of rows that were finished before the step.
            Arrays of rank 0, and what is no row of the batch (an alignment history), are not kept.
        maximum_iterations: the number of steps; by default, with a training sampler, those of its
            inputs, and else an error, as in TensorFlow under XLA.
        output_time: "maximum_iterations": the outputs have as many steps, zero once all rows are
            finished. "steps_run": they are cut, as in eager TensorFlow, to the steps that ran, which is
            the largest length; this needs concrete values and fails under `jax.jit`.
        impute_mask: TensorFlow shapes the flags [batch, 1] and broadcasts them. That is wrong for rank
            3, where they fall on the second axis: an error, or silence where it has the size of the
            batch. "tensorflow" does the same (rank 1 states are an error, too); "batch" keeps to the
            first axis.
        decoder_init_input: the first argument of the decoder's `initialize`.
        decoder_init_kwargs: the further arguments of the decoder's `initialize`.
        loop: "while" stops early and cannot be differentiated in reverse.

    Returns:
        The outputs, the final state, and the lengths [batch] (or as the decoder's state has them) as
        int32.

    Raises:
        ValueError: on missing or impossible options, or a step that changes the structure, shape or
            dtype of the state or the inputs.
    """
    _check_options("dynamic_decode", maximum_iterations, output_time, impute_mask, loop)
    if not isinstance(decoder, Decoder):
        raise TypeError(f"dynamic_decode: decoder is a {type(decoder).__name__}, expected a Decoder")
    if isinstance(decoder, BaseDecoder):
        start = decoder.initialize(decoder_init_input, **(decoder_init_kwargs or {}))
    else:
        start = decoder.initialize()
    finished, inputs, state, feed = start
    finished = check_array("decoder: finished, of initialize,", finished, ("batch", ...), "boolean")
    steps = _count_steps(maximum_iterations, feed.rows)
    if impute_finished and finished.ndim != 1:
        raise ValueError(
            f"dynamic_decode: impute_finished with flags of shape {finished.shape}, expected [batch]. "
            "Beam search cannot impute, and fails in TensorFlow, too: its beams change places"
        )
    feed = feed._replace(rows=jax.tree.map(lambda rows: fit_steps(rows, steps), feed.rows))
    lengths = jnp.zeros(finished.shape, jnp.int32)
    # What a state never changes is no part of the carry, of which the gradient keeps a copy a step.
    moving, held = split_constants(state)
    carry = Carry(moving, inputs, finished, lengths, jnp.zeros((), jnp.int32))

    def step(decoder: Decoder, carry: Carry, time: Any, rows: Any) -> tuple[Carry, Any]:
        step_feed = Feed(rows, feed.constants)
        carry = carry._replace(state=join_constants(carry.state, held))
        carry, outputs = advance(decoder, carry, time, step_feed, impute_mask if impute_finished else None)
        return carry._replace(state=split_constants(carry.state)[0]), outputs

    # A while loop cannot create parameters.
    run = run_while if loop == "while" and not decoder.is_initializing() else run_scan
    carry, outputs = run(decoder, step, carry, feed.rows, steps)
    outputs, final_state = decoder.finalize(outputs, join_constants(carry.state, held), carry.lengths, feed)
    if output_time == "steps_run":
        steps_run = read_if_known(carry.steps_run)
        if steps_run is None:
            raise ValueError(
                'dynamic_decode: output_time="steps_run" needs the number of steps, which is not known '
                'under jax.jit or jax.vmap. Use "maximum_iterations" there, and cut or mask the outputs'
            )
        outputs = jax.tree.map(lambda x: x[: int(steps_run)], outputs)
    if not output_time_major:
        outputs = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)
    return outputs, final_state, carry.lengths


def check_batch(state: Any, batch: int, *, hint: str = "") -> None:
    """Raise ValueError unless the rows of `state` are `batch`."""

    def check(x: Any) -> Any:
        if jnp.ndim(x) and x.shape[0] != batch:
            raise ValueError(
                f"decoder: initial_state has an array of shape {x.shape}, expected [{batch}, ...].{hint}"
            )
        return x

    map_rows(check, state)


def _check_options(
    owner: str, maximum_iterations: Any, output_time: Any, impute_mask: Any, loop: Any
) -> None:
    check_size(f"{owner}: maximum_iterations", maximum_iterations, optional=True)
    check_choice(f"{owner}: output_time", output_time, ("maximum_iterations", "steps_run"))
    check_choice(f"{owner}: impute_mask", impute_mask, ("tensorflow", "batch"))
    check_choice(f"{owner}: loop", loop, ("scan", "while"))


def _is_per_step(mask: Any) -> bool:
    return isinstance(mask, PerStep)


def _count_steps(maximum_iterations: int | None, rows: Any) -> int:
    if maximum_iterations is not None:
        return maximum_iterations
    leaves = jax.tree.leaves(rows)
    if not leaves:
        raise ValueError("dynamic_decode: maximum_iterations is missing: nothing else bounds the loop")
    return leaves[0].shape[0]
