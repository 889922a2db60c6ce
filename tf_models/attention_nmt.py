"""A translator on `tfa.seq2seq`: a bidirectional encoder, and a decoder that attends to it.

Read it beside `jax_models/attention_nmt.py`, which says the same in Flax.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_addons as tfa

from oracle.spec import Attention, LossAverage
from oracle.spec import AttentionNMT as Spec
from tf_models.port import Batch, Step, dense_gradient

State = list[tf.Tensor]
"""A Keras cell's state: an LSTM's [h, c], a GRU's [h]."""


class Decoded(NamedTuple):
    """What the decoder gives: [batch, tgt_time, vocab], [batch, tgt_time, src_time], a state a layer."""

    logits: tf.Tensor
    alignments: tf.Tensor
    states: list[State]


class AligningOutput(NamedTuple):
    """What `AligningDecoder` emits: tfa's `BasicDecoderOutput`, and where the step attended to."""

    rnn_output: Any
    sample_id: Any
    alignments: Any


class AligningDecoder(tfa.seq2seq.BasicDecoder):
    """A decoder over an `AttentionWrapper` that emits each step's alignments.

    tfa's own way to them, `alignment_history`, is an array without a size, which XLA cannot compile.
    """

    @property
    def output_size(self) -> AligningOutput:
        """The shapes of what a step emits, without the batch."""
        return AligningOutput(*super().output_size, tf.TensorShape([self.cell.state_size.alignments]))

    @property
    def output_dtype(self) -> AligningOutput:
        """The dtypes of what a step emits."""
        return AligningOutput(*super().output_dtype, tf.as_dtype(self.dtype))

    def step(
        self, time: Any, inputs: Any, state: Any, training: bool | None = None
    ) -> tuple[AligningOutput, Any, Any, Any]:
        """One step of the decoder."""
        outputs, next_state, next_inputs, finished = super().step(time, inputs, state, training)
        return AligningOutput(*outputs, next_state.alignments), next_state, next_inputs, finished


class StackBeamSearchDecoder(tfa.seq2seq.BeamSearchDecoder):
    """A beam search that a stack of cells can take in `tf.function` too.

    tfa's keeps the initial state as an attribute, where Keras wraps the tuple of a stack's states, and
    TensorFlow 2.15 cannot trace a loop over the wrapper.
    """

    def initialize(
        self, embedding: Any, *, start_tokens: Any, end_token: Any, initial_state: Any
    ) -> tuple[Any, Any, Any]:
        """The first state of the search, its cells' states in plain tuples."""
        finished, inputs, state = super().initialize(
            embedding, start_tokens=start_tokens, end_token=end_token, initial_state=initial_state
        )
        plain = tf.nest.pack_sequence_as(initial_state, tf.nest.flatten(state.cell_state))
        return finished, inputs, state._replace(cell_state=plain)


class Encoder(tf.Module):
    """Embeds the source and reads it from both ends, layer upon layer."""

    def __init__(self, spec: Spec, dtype: tf.DType) -> None:
        super().__init__()
        self.embedding = tf.keras.layers.Embedding(spec.source_vocab, spec.embedding, dtype=dtype)
        layer = {"lstm": tf.keras.layers.LSTM, "gru": tf.keras.layers.GRU}[spec.cell]
        self.layers = [
            tf.keras.layers.Bidirectional(
                layer(spec.units, return_sequences=True, return_state=True, dtype=dtype),
                merge_mode="concat",
                dtype=dtype,
            )
            for _ in range(spec.layers)
        ]

    def embed(self, source: tf.Tensor) -> tf.Tensor:
        """The vectors [batch, src_time, embedding] of the ids."""
        return self.embedding(source)

    def __call__(self, embedded: tf.Tensor, source_length: tf.Tensor) -> tuple[tf.Tensor, list[State]]:
        """Returns the memory, zero past the lengths, and of each layer both directions' final states."""
        mask = tf.sequence_mask(source_length, embedded.shape[1])
        outputs, states = embedded, []
        for layer in self.layers:
            outputs, *parts = layer(outputs, mask=mask)
            ahead, behind = parts[: len(parts) // 2], parts[len(parts) // 2 :]
            states.append([tf.concat(pair, axis=-1) for pair in zip(ahead, behind, strict=True)])
        return outputs, states


class Decoder(tf.Module):
    """Cells that are fed their attention to the encoder's outputs, step by step."""

    def __init__(self, spec: Spec, dtype: tf.DType, *, unrolled: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        self.unrolled = unrolled
        self.embedding = tf.keras.layers.Embedding(spec.target_vocab, spec.embedding, dtype=dtype)
        cell = {"lstm": tf.keras.layers.LSTMCell, "gru": tf.keras.layers.GRUCell}[spec.cell]
        self.cells = [cell(2 * spec.units, dtype=dtype) for _ in range(spec.layers)]
        self.attention_mechanism = make_mechanism(spec.attention, dtype)
        width = spec.attention.layer_units
        self.attention_layer = (
            None if width is None else tf.keras.layers.Dense(width, use_bias=False, dtype=dtype)
        )
        self.output_layer = tf.keras.layers.Dense(spec.target_vocab, dtype=dtype)

        one = spec.layers == 1
        stack = self.cells[0] if one else tf.keras.layers.StackedRNNCells(list(self.cells), dtype=dtype)
        self.wrapper = tfa.seq2seq.AttentionWrapper(
            stack, self.attention_mechanism, attention_layer=self.attention_layer, dtype=dtype
        )
        self.decoder = AligningDecoder(
            self.wrapper, tfa.seq2seq.TrainingSampler(), self.output_layer, dtype=dtype
        )

    def embed(self, target: tf.Tensor) -> tf.Tensor:
        """The vectors [batch, tgt_time, embedding] of the ids."""
        return self.embedding(target)

    def __call__(
        self,
        embedded: tf.Tensor,
        memory: tf.Tensor,
        states: list[State],
        *,
        source_length: tf.Tensor,
        target_length: tf.Tensor,
    ) -> Decoded:
        """Run over the embedded target (teacher forcing), each layer from its state in `states`."""
        steps = embedded.shape[1]
        self.attention_mechanism.setup_memory(memory, memory_sequence_length=source_length)
        # XLA must know how many steps there are at most.
        self.decoder.maximum_iterations = steps
        options = {"initial_state": self.start(states), "sequence_length": target_length}
        if self.unrolled:
            return self.unroll(embedded, **options)
        outputs, final_state, _ = self.decoder(embedded, **options)
        # The loop ends with the longest row.
        return Decoded(
            pad_steps(outputs.rnn_output, steps),
            pad_steps(outputs.alignments, steps),
            self.unpack(final_state.cell_state),
        )

    def unroll(self, embedded: tf.Tensor, **options: Any) -> Decoded:
        """The decoder's steps one by one, in Python. As in the loop, nothing is done once all rows end."""
        finished, inputs, state = self.decoder.initialize(embedded, **options)
        logits, alignments = [], []
        for time in range(embedded.shape[1]):
            goes_on = tf.logical_not(tf.reduce_all(finished))
            outputs, next_state, inputs, ends = self.decoder.step(tf.constant(time), inputs, state)
            finished = tf.logical_or(finished, ends)
            logits.append(tf.where(goes_on, outputs.rnn_output, tf.zeros_like(outputs.rnn_output)))
            alignments.append(tf.where(goes_on, outputs.alignments, tf.zeros_like(outputs.alignments)))
            state = state.clone(
                cell_state=tf.nest.map_structure(
                    lambda new, old, go=goes_on: tf.where(go, new, old),
                    next_state.cell_state,
                    state.cell_state,
                ),
                attention=next_state.attention,
                alignments=next_state.alignments,
                attention_state=next_state.attention_state,
            )
        return Decoded(tf.stack(logits, axis=1), tf.stack(alignments, axis=1), self.unpack(state.cell_state))

    def start(self, states: list[State]) -> Any:
        """The wrapper's state before the first step, its cells in `states`."""
        first = self.wrapper.get_initial_state(batch_size=tf.shape(states[0][0])[0], dtype=self.dtype)
        return first.clone(cell_state=tf.nest.pack_sequence_as(first.cell_state, tf.nest.flatten(states)))

    def unpack(self, cell_state: Any) -> list[State]:
        """A state a layer, of the state of one cell or of a stack."""
        flat = tf.nest.flatten(cell_state)
        size = len(flat) // len(self.cells)
        return [flat[i : i + size] for i in range(0, len(flat), size)]

    def decode(
        self,
        memory: tf.Tensor,
        states: list[State],
        *,
        source_length: tf.Tensor,
        start_token: int,
        end_token: int,
        maximum_iterations: int,
        beam_width: int | None = None,
        length_penalty_weight: float = 0.0,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Translate without a target: greedily, or with `beam_width` by beams. Returns ids and lengths."""
        options: dict[str, Any] = {
            "output_layer": self.output_layer,
            "maximum_iterations": maximum_iterations,
            "dtype": self.dtype,
        }
        start_tokens = tf.fill([tf.shape(source_length)[0]], start_token)
        if beam_width is None:
            # A sampler keeps the embeddings that it sees first, so that each call needs one of its own.
            decoder = tfa.seq2seq.BasicDecoder(self.wrapper, tfa.seq2seq.GreedyEmbeddingSampler(), **options)
        else:
            decoder = StackBeamSearchDecoder(
                self.wrapper, beam_width, length_penalty_weight=length_penalty_weight, **options
            )
            tiled: Any = tfa.seq2seq.tile_batch([memory, source_length, states], beam_width)
            memory, source_length, states = tiled
        self.attention_mechanism.setup_memory(memory, memory_sequence_length=source_length)
        outputs, _, lengths = decoder(
            self.table(),
            start_tokens=start_tokens,
            end_token=end_token,
            initial_state=self.start(states),
        )
        return outputs.sample_id if beam_width is None else outputs.predicted_ids, lengths

    def table(self) -> tf.Tensor:
        """The embeddings as a matrix."""
        if not self.embedding.built:
            self.embedding(tf.zeros([1, 1], tf.int32))
        return tf.convert_to_tensor(self.embedding.embeddings)


class AttentionNMT(tf.Module):
    """Encoder and decoder, with Adam, which can let the weights decay."""

    convention = "keras"

    def __init__(
        self,
        spec: Spec,
        dtype: tf.DType,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float | None = None,
        unrolled: bool = False,
    ) -> None:
        super().__init__()
        self.loss_average: LossAverage = spec.loss
        self.encoder = Encoder(spec, dtype)
        self.decoder = Decoder(spec, dtype, unrolled=unrolled)
        self.optimizer = tf.keras.optimizers.Adam(learning_rate, weight_decay=weight_decay)

    def step(self, batch: Batch) -> Step:
        """Compute the outputs, the loss and its gradients under a `tf.GradientTape`."""
        source_length, target_length = batch["source_length"], batch["target_length"]
        with tf.GradientTape() as tape:
            embedded = {"source": self.encoder.embed(batch["source"])}
            embedded["target"] = self.decoder.embed(batch["target"][:, :-1])
            tape.watch(embedded)
            memory, states = self.encoder(embedded["source"], source_length)
            decoded = self.decoder(
                embedded["target"],
                memory,
                states,
                source_length=source_length,
                target_length=target_length,
            )
            loss = masked_loss(decoded.logits, batch["target"][:, 1:], target_length, self.loss_average)
        forward = {"output/encoder": memory}
        forward |= name_states("encoder", states)
        forward |= {"output/logits": decoded.logits, "output/alignments": decoded.alignments}
        forward |= name_states("decoder", decoded.states)
        others = {f"embedded/{name}": vectors for name, vectors in embedded.items()}
        others |= name_states("encoder", states)
        gradients: Any = tape.gradient(loss, (self.variables_by_name(), others))
        of_variables, of_others = (
            {name: dense_gradient(gradient) for name, gradient in part.items()} for part in gradients
        )
        return Step(forward, loss, of_others, of_variables)

    def train_step(self, batch: Batch) -> tf.Tensor:
        """One step of the optimizer, the gradients' norm clipped to 1. Gives the loss before it."""
        step, variables = self.step(batch), self.variables_by_name()
        clipped, _ = tf.clip_by_global_norm([step.variable_gradients[name] for name in variables], 1.0)
        self.optimizer.apply_gradients(zip(clipped, variables.values(), strict=True))
        return step.loss

    def greedy_decode(
        self,
        source: tf.Tensor,
        source_length: tf.Tensor,
        *,
        start_token: int,
        end_token: int,
        maximum_iterations: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Translate by the most probable token at each step.

        Returns:
            Ids [batch, time], up to and with the end token (what follows it in a row means nothing), and
            lengths [batch]. The time is that of the longest row.
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
        source: tf.Tensor,
        source_length: tf.Tensor,
        *,
        start_token: int,
        end_token: int,
        maximum_iterations: int,
        beam_width: int,
        length_penalty_weight: float = 0.0,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Translate by the most probable sequences found.

        Returns:
            Ids [batch, time, beam], the best beam first, filled up with the end token, and lengths
            [batch, beam].
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

    def variables_by_name(self) -> dict[str, tf.Variable]:
        """The trainable variables by attribute, as a TF2 checkpoint names them. Empty before a step."""
        if not self.decoder.output_layer.built:
            return {}
        encoder, decoder = self.encoder, self.decoder
        holders: dict[str, Any] = {"encoder/embedding": encoder.embedding}
        for i, layer in enumerate(encoder.layers):
            for direction in ("forward_layer", "backward_layer"):
                holders[f"encoder/layers/{i}/{direction}/cell"] = getattr(layer, direction).cell
        holders["decoder/embedding"] = decoder.embedding
        holders |= {f"decoder/cells/{i}": cell for i, cell in enumerate(decoder.cells)}
        mechanism = decoder.attention_mechanism
        for name in ("memory_layer", "query_layer"):
            if getattr(mechanism, name, None) is not None:
                holders[f"decoder/attention_mechanism/{name}"] = getattr(mechanism, name)
        holders["decoder/attention_mechanism"] = mechanism
        if decoder.attention_layer is not None:
            holders["decoder/attention_layer"] = decoder.attention_layer
        holders["decoder/output_layer"] = decoder.output_layer
        named = {
            f"{path}/{attribute}": getattr(holder, attribute)
            for path, holder in holders.items()
            for attribute in ATTRIBUTES
            if getattr(holder, attribute, None) is not None
        }
        # LuongAttention keeps what it names attention_g, in checkpoints too, under another attribute.
        if getattr(mechanism, "scale_weight", None) is not None:
            named["decoder/attention_mechanism/attention_g"] = mechanism.scale_weight
        return named


ATTRIBUTES = (
    "embeddings",
    "kernel",
    "recurrent_kernel",
    "bias",
    "attention_v",
    "attention_g",
    "attention_b",
    "attention_score_bias",
)
"""Whatever holds a variable in one of the layers."""


def build(spec: Spec, *, variant: str, dtype: tf.DType, unrolled: bool = False) -> AttentionNMT:
    """Make the port. There is one variant.

    Unrolled is the decoder alone: Keras' unrolled layers go wrong backwards under a mask (docs/quirks.md).
    """
    del variant
    return AttentionNMT(spec, dtype, unrolled=unrolled)


def make_mechanism(attention: Attention, dtype: tf.DType) -> tfa.seq2seq.AttentionMechanism:
    """The mechanism that is described. What a mechanism attends to is set up anew for each batch."""
    mechanism, scaled = {
        "luong": (tfa.seq2seq.LuongAttention, "scale"),
        "luong_monotonic": (tfa.seq2seq.LuongMonotonicAttention, "scale"),
        "bahdanau": (tfa.seq2seq.BahdanauAttention, "normalize"),
        "bahdanau_monotonic": (tfa.seq2seq.BahdanauMonotonicAttention, "normalize"),
    }[attention.mechanism]
    return mechanism(attention.units, **{scaled: attention.scaled}, dtype=dtype)


def masked_loss(
    logits: tf.Tensor, target: tf.Tensor, target_length: tf.Tensor, average: LossAverage = "tokens"
) -> tf.Tensor:
    """The cross-entropy by token without the padding, averaged as `oracle.spec.LossAverage` says."""
    weights = tf.sequence_mask(target_length, target.shape[1], dtype=logits.dtype)
    if average == "tokens":
        return tfa.seq2seq.sequence_loss(logits, target, weights)
    if average == "steps":
        by_step = tfa.seq2seq.sequence_loss(logits, target, weights, average_across_timesteps=False)
        return tf.reduce_sum(by_step)
    crossent = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=logits)
    return tf.reduce_sum(crossent * weights) / tf.cast(tf.shape(target)[0], logits.dtype)


def name_states(scope: str, states: list[State]) -> dict[str, tf.Tensor]:
    """Name each layer's state as a record does: `state/encoder/0/h`, and for an LSTM `.../c`."""
    named = {}
    for i, state in enumerate(states):
        named |= {f"state/{scope}/{i}/{part}": array for part, array in zip("hc", state, strict=False)}
    return named


def pad_steps(outputs: tf.Tensor, steps: int) -> tf.Tensor:
    """Append zeros up to `steps`, as XLA's loop does by itself. [batch, time, ...]."""
    missing = steps - tf.shape(outputs)[1]
    padded = tf.pad(outputs, [[0, 0], [0, missing], [0, 0]])
    return tf.ensure_shape(padded, [outputs.shape[0], steps, outputs.shape[2]])
