"""A translator: a bidirectional encoder, and a decoder that attends to it.

Read it beside `tf_models/attention_nmt.py`, which says the same with `tfa.seq2seq`.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_models.attention import AttentionMechanism, BahdanauAttention, LuongAttention
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.beam_search import BeamSearchDecoder
from jax_models.beam_search_ops import tile_batch
from jax_models.decoder import BasicDecoder, BasicDecoderOutput
from jax_models.keras_cells import GRUCell, LSTMCell
from jax_models.keras_layers import Dense, Embedding
from jax_models.keras_rnn import GRU, LSTM
from jax_models.keras_stack import StackedRNNCells
from jax_models.keras_wrappers import Bidirectional
from jax_models.losses import sequence_loss
from jax_models.monotonic import BahdanauMonotonicAttention, LuongMonotonicAttention
from jax_models.sampler import Feed, GreedyEmbeddingSampler, TrainingSampler

Cell = Literal["lstm", "gru"]

LossAverage = Literal["tokens", "steps", "rows"]
"""All tokens; at each step the rows that have one, summed over the steps; a row's tokens summed, and averaged
over the rows, the loss of Luong, Brevdo & Zhao (2017)."""

Mechanism = Literal["luong", "bahdanau", "luong_monotonic", "bahdanau_monotonic"]


class Decoded(NamedTuple):
    """What the decoder gives. `states` has a state for each layer, an `LSTMState` or a GRU's h."""

    logits: Float[Array, "batch tgt_time vocab"]
    alignments: Float[Array, "batch tgt_time src_time"]
    states: tuple[Any, ...]


class Translation(NamedTuple):
    """What the forward pass gives: the encoder's outputs and final states, and the decoder's."""

    encoded: Float[Array, "batch src_time memory"]
    encoder_states: tuple[Any, ...]
    decoded: Decoded


class AligningOutput(NamedTuple):
    """What `AligningDecoder` emits: a `BasicDecoderOutput`, and where the step attended to."""

    rnn_output: Any
    sample_id: Any
    alignments: Any


class AligningDecoder(BasicDecoder):
    """A decoder over an `AttentionWrapper` that emits each step's alignments."""

    def step(self, time: Any, inputs: Any, state: Any, feed: Feed) -> tuple[Any, Any, Any, Array]:
        """One step of the decoder."""
        outputs, next_state, next_inputs, finished = super().step(time, inputs, state, feed)
        assert isinstance(outputs, BasicDecoderOutput)
        return AligningOutput(*outputs, next_state.alignments), next_state, next_inputs, finished


class Encoder(nn.Module):
    """Embeds the source and reads it from both ends, layer upon layer."""

    vocab: int
    embedding_size: int
    cell: Cell
    units: int
    layer_count: int
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.embedding = Embedding(self.vocab, self.embedding_size, param_dtype=self.param_dtype)
        layer = {"lstm": LSTM, "gru": GRU}[self.cell]
        self.layers = [
            Bidirectional(
                layer(
                    units=self.units,
                    return_sequences=True,
                    return_state=True,
                    param_dtype=self.param_dtype,
                ),
                merge_mode="concat",
            )
            for _ in range(self.layer_count)
        ]

    def embed(self, source: Int[Array, "batch src_time"]) -> Float[Array, "batch src_time embedding"]:
        """The vectors of the ids."""
        return self.embedding(source)

    def __call__(
        self,
        embedded: Float[Array, "batch src_time embedding"],
        source_length: Int[Array, " batch"],
    ) -> tuple[Float[Array, "batch src_time memory"], tuple[Any, ...]]:
        """Returns the memory, zero past the lengths, and of each layer both directions' final states."""
        mask = jnp.arange(embedded.shape[1]) < source_length[:, None]
        outputs, states = embedded, []
        for layer in self.layers:
            outputs, (ahead, behind) = layer(outputs, mask=mask)
            states.append(jax.tree.map(join_directions, ahead, behind))
        return outputs, tuple(states)


class Decoder(nn.Module):
    """Cells that are fed their attention to the encoder's outputs, step by step."""

    vocab: int
    embedding_size: int
    cell: Cell
    units: int
    layer_count: int
    mechanism: Mechanism
    attention_units: int
    attention_scaled: bool
    attention_layer_units: int | None
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        dtype = self.param_dtype
        self.embedding = Embedding(self.vocab, self.embedding_size, param_dtype=dtype)
        cell = {"lstm": LSTMCell, "gru": GRUCell}[self.cell]
        self.cells = [cell(self.units, param_dtype=dtype) for _ in range(self.layer_count)]
        self.attention_mechanism = make_mechanism(
            self.mechanism, self.attention_units, self.attention_scaled, dtype
        )
        width = self.attention_layer_units
        self.attention_layer = None if width is None else nn.Dense(width, use_bias=False, param_dtype=dtype)
        self.output_layer = Dense(self.vocab, param_dtype=dtype)

        stack = self.cells[0] if self.layer_count == 1 else StackedRNNCells(tuple(self.cells))
        self.wrapper = AttentionWrapper(stack, self.attention_mechanism, attention_layer=self.attention_layer)
        self.decoder = AligningDecoder(
            cell=self.wrapper, sampler=TrainingSampler(), output_layer=self.output_layer
        )

    def embed(self, target: Int[Array, "batch tgt_time"]) -> Float[Array, "batch tgt_time embedding"]:
        """The vectors of the ids."""
        return self.embedding(target)

    def __call__(
        self,
        embedded: Float[Array, "batch tgt_time embedding"],
        memory: Float[Array, "batch src_time memory"],
        states: tuple[Any, ...],
        *,
        source_length: Int[Array, " batch"],
        target_length: Int[Array, " batch"],
    ) -> Decoded:
        """Run over the embedded target (teacher forcing), each layer from its state in `states`."""
        memories = self.wrapper.setup_memory(memory, memory_sequence_length=source_length)
        outputs, final_state, _ = self.decoder(
            embedded, initial_state=self.start(states, memories), sequence_length=target_length
        )
        return Decoded(outputs.rnn_output, outputs.alignments, self.unpack(final_state.cell_state))

    def start(self, states: tuple[Any, ...], memories: Any) -> Any:
        """The wrapper's state before the first step, its cells in `states`."""
        return self.wrapper.initial_state(states[0] if self.layer_count == 1 else states, memories)

    def unpack(self, cell_state: Any) -> tuple[Any, ...]:
        """A state a layer, of the state of one cell or of a stack."""
        return (cell_state,) if self.layer_count == 1 else tuple(cell_state)

    @nn.compact
    def decode(
        self,
        memory: Float[Array, "batch src_time memory"],
        states: tuple[Any, ...],
        *,
        source_length: Int[Array, " batch"],
        start_token: int,
        end_token: int,
        maximum_iterations: int,
        beam_width: int | None = None,
        length_penalty_weight: float = 0.0,
    ) -> tuple[Int[Array, "batch time ..."], Int[Array, "batch ..."]]:
        """Translate without a target: greedily, or with `beam_width` by beams. Returns ids and lengths."""
        options: dict[str, Any] = {
            "output_layer": self.output_layer,
            "maximum_iterations": maximum_iterations,
            "loop": "while",
        }
        start_tokens = jnp.full(len(source_length), start_token)
        if beam_width is None:
            decoder = BasicDecoder(cell=self.wrapper, sampler=GreedyEmbeddingSampler(), **options)
        else:
            decoder = BeamSearchDecoder(
                cell=self.wrapper,
                beam_width=beam_width,
                length_penalty_weight=length_penalty_weight,
                **options,
            )
            memory, source_length, states = tile_batch((memory, source_length, states), beam_width)
        memories = self.wrapper.setup_memory(memory, memory_sequence_length=source_length)
        outputs, _, lengths = decoder(
            self.table(),
            start_tokens=start_tokens,
            end_token=end_token,
            initial_state=self.start(states, memories),
        )
        return outputs.sample_id if beam_width is None else outputs.predicted_ids, lengths

    def table(self) -> Float[Array, "vocab embedding"]:
        """The embeddings as a matrix."""
        return self.embedding(jnp.arange(self.vocab))


class AttentionNMT(nn.Module):
    """Encoder and decoder.

    Attributes:
        source_vocab: number of source tokens, the padding among them.
        target_vocab: number of target tokens.
        embedding: width of both embeddings.
        cell: the kind of every cell.
        units: units of each direction of the encoder; the decoder's cells have twice as many.
        layers: layers of the encoder and of the decoder.
        mechanism: the decoder's attention mechanism.
        attention_units: its depth.
        attention_scaled: Luong's `scale`, Bahdanau's `normalize`.
        attention_layer_units: width of the attention layer; None for none.
        param_dtype: dtype of the parameters that `init` makes.
    """

    source_vocab: int
    target_vocab: int
    embedding: int
    cell: Cell
    units: int
    layers: int
    mechanism: Mechanism
    attention_units: int
    attention_scaled: bool = False
    attention_layer_units: int | None = None
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        self.encoder = Encoder(
            self.source_vocab, self.embedding, self.cell, self.units, self.layers, self.param_dtype
        )
        self.decoder = Decoder(
            self.target_vocab,
            self.embedding,
            self.cell,
            2 * self.units,
            self.layers,
            self.mechanism,
            self.attention_units,
            self.attention_scaled,
            self.attention_layer_units,
            self.param_dtype,
        )

    def __call__(
        self,
        source: Int[Array, "batch src_time"],
        target: Int[Array, "batch target_time"],
        *,
        source_length: Int[Array, " batch"],
        target_length: Int[Array, " batch"],
    ) -> Translation:
        """Read `source`, then predict `target[:, 1:]` from `target[:, :-1]`.

        Ids have no gradient, their vectors have: that of the perturbations `embedded_source` and
        `embedded_target`, and that of each layer's handed over state, of `encoder_state_0_h` and so on.
        """
        embedded = self.perturb("embedded_source", self.encoder.embed(source))
        read = self.perturb("embedded_target", self.decoder.embed(target[:, :-1]))
        memory, states = self.encoder(embedded, source_length)
        handed_over = tuple(self._perturb_state(i, state) for i, state in enumerate(states))
        decoded = self.decoder(
            read, memory, handed_over, source_length=source_length, target_length=target_length
        )
        return Translation(memory, states, decoded)

    def greedy_decode(
        self,
        source: Int[Array, "batch src_time"],
        source_length: Int[Array, " batch"],
        *,
        start_token: int,
        end_token: int,
        maximum_iterations: int,
    ) -> tuple[Int[Array, "batch time"], Int[Array, " batch"]]:
        """Translate by the most probable token at each step.

        Returns:
            Ids, up to and with the end token (what follows it in a row means nothing; zeros after the
            longest row), and lengths. The time is `maximum_iterations`.
        """
        memory, states = self.encoder(self.encoder.embed(source), source_length)
        return self.decoder.decode(
            memory,
            states,
            source_length=source_length,
            start_token=start_token,
            end_token=end_token,
            maximum_iterations=maximum_iterations,
        )

    def beam_search_decode(
        self,
        source: Int[Array, "batch src_time"],
        source_length: Int[Array, " batch"],
        *,
        start_token: int,
        end_token: int,
        maximum_iterations: int,
        beam_width: int,
        length_penalty_weight: float = 0.0,
    ) -> tuple[Int[Array, "batch time beam"], Int[Array, "batch beam"]]:
        """Translate by the most probable sequences found.

        Returns:
            Ids, the best beam first, filled up with the end token, and lengths. The time is
            `maximum_iterations`.
        """
        memory, states = self.encoder(self.encoder.embed(source), source_length)
        return self.decoder.decode(
            memory,
            states,
            source_length=source_length,
            start_token=start_token,
            end_token=end_token,
            maximum_iterations=maximum_iterations,
            beam_width=beam_width,
            length_penalty_weight=length_penalty_weight,
        )

    def _perturb_state(self, layer: int, state: Any) -> Any:
        name = f"encoder_state_{layer}"
        if self.cell == "gru":
            return self.perturb(f"{name}_h", state)
        return type(state)(self.perturb(f"{name}_c", state.c), self.perturb(f"{name}_h", state.h))


def make_mechanism(
    mechanism: Mechanism, units: int, scaled: bool, param_dtype: DTypeLike
) -> AttentionMechanism:
    """The mechanism of a name, with Luong's `scale` or Bahdanau's `normalize` as `scaled` says."""
    if mechanism.startswith("luong"):
        luong = LuongAttention if mechanism == "luong" else LuongMonotonicAttention
        return luong(units=units, scale=scaled, param_dtype=param_dtype)
    bahdanau = BahdanauAttention if mechanism == "bahdanau" else BahdanauMonotonicAttention
    return bahdanau(units=units, normalize=scaled, param_dtype=param_dtype)


def join_directions(ahead: Float[Array, "batch units"], behind: Float[Array, "batch units"]) -> Array:
    """The final states of the two directions, side by side."""
    return jnp.concatenate([ahead, behind], axis=-1)


def masked_loss(
    logits: Float[Array, "batch tgt_time vocab"],
    target: Int[Array, "batch tgt_time"],
    target_length: Int[Array, " batch"],
    average: LossAverage = "tokens",
) -> Float[Array, ""]:
    """The cross-entropy by token without the padding, averaged as `LossAverage` says."""
    weights = (jnp.arange(target.shape[1]) < target_length[:, None]).astype(logits.dtype)
    if average == "tokens":
        return sequence_loss(logits, target, weights)
    if average == "steps":
        return jnp.sum(sequence_loss(logits, target, weights, average_across_timesteps=False))
    each = {"average_across_timesteps": False, "average_across_batch": False}
    return jnp.sum(sequence_loss(logits, target, weights, **each)) / len(target)
