"""The project's own ports, mirrored live: no mapping is written, and the numbers are those of `jax_models`."""

from __future__ import annotations

import numpy as np
import pytest

from oracle.live_port import LivePort, compare_live
from oracle.spec import LSTM, Attention, AttentionNMT, EncoderDecoder

pytestmark = [pytest.mark.tf, pytest.mark.jax]

tf = pytest.importorskip("tests.parity.tensorflow_side").tf

SPEC = EncoderDecoder(3, 2, LSTM(5), LSTM(5))
RNG = np.random.default_rng(0)
BATCH = {"source": RNG.normal(size=(4, 6, 3)), "target": RNG.normal(size=(4, 5, 2))}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("lengths", [False, True])
def test_dynamic_rnn(mode, lengths):
    """The TF1 original, its cells built by `track_tf1_style_variables`."""
    from tf_models.dynamic_rnn import DynamicRNN

    limits = {
        "source_length": np.array([6, 2, 4, 0], np.int32),
        "target_length": np.array([4, 4, 1, 0], np.int32),
    }
    batch = BATCH | (limits if lengths else {})

    def build():
        port = DynamicRNN(SPEC)

        def loss(batch):
            return port.forward(batch)[1]

        def reference(mirror, params, batch):
            import jax.numpy as jnp

            model, own = mirror.model, params["model"]
            _, state = model.encoder_cell.dynamic_rnn(
                batch["source"], sequence_length=batch.get("source_length"), params=own["encoder_cell"]
            )
            decoded, _ = model.decoder_cell.dynamic_rnn(
                batch["target"][:, :-1],
                sequence_length=batch.get("target_length"),
                initial_state=state,
                params=own["decoder_cell"],
            )
            outputs = model.projection.apply(decoded, params=own["projection"])
            return jnp.mean(jnp.square(outputs - batch["target"][:, 1:]))

        return LivePort({"model": port}, batch, loss, reference, "dynamic_rnn")

    comparison = compare_live(build, mode=mode)
    assert comparison.matches, comparison.findings


def explicit(make, *, meant="state"):
    """A port with encoder, decoder and projection as attributes, held to what was `meant`."""

    def build():
        from tf_models.explicit_state import swap_batch_and_time

        port = make()

        def loss(batch):
            encoded, state = port.encoder(swap_batch_and_time(batch["source"]))
            if hasattr(port, "hand_over"):
                encoded, state = port.encode(swap_batch_and_time(batch["source"]))
                return port.decode(batch, encoded, state)[1]
            targets = swap_batch_and_time(batch["target"])
            decoded, _ = port.decoder(targets[:-1], initial_state=state)
            return tf.reduce_mean(tf.square(port.projection(decoded) - targets[1:]))

        def reference(mirror, params, batch):
            import jax.numpy as jnp

            model, own = mirror.model, params["model"]
            source, targets = (jnp.swapaxes(batch[name], 0, 1) for name in ("source", "target"))
            _, *state = model.encoder.rnn.apply(source, params=own["encoder"]["rnn"])
            state = state[::-1] if meant == "exchanged" else state
            outputs, _, _ = model.decoder.decoder.apply(
                targets[:-1],
                initial_state=state,
                sequence_length=np.full(source.shape[1], len(targets) - 1),
                params=own["decoder"]["decoder"],
            )
            outputs = model.projection.apply(outputs.rnn_output, params=own["projection"])
            return jnp.mean(jnp.square(outputs - targets[1:]))

        return LivePort({"model": port}, BATCH, loss, reference, "explicit_state")

    return build


def test_explicit_state():
    """The right conversion: Keras layers and tfa's decoder within layers of one's own."""
    from tf_models.explicit_state import ExplicitState

    comparison = compare_live(explicit(lambda: ExplicitState(SPEC, tf.float64)))
    assert comparison.matches, comparison.findings


@pytest.mark.parametrize(
    "variant",
    ["state_discarded", "initial_state_none", "initial_state_zeros", "zeros_silenced", "exchanged"],
)
def test_implicit_state_is_red(variant):
    """Each wrong conversion differs from what was meant."""
    from tf_models.implicit_state import VARIANTS

    comparison = compare_live(explicit(lambda: VARIANTS[variant](SPEC, tf.float64)))
    assert not comparison.matches
    found = {row.name: row.status for row in comparison.findings}
    expected = "mismatch" if variant == "exchanged" else "none"
    assert found["gradient/model/encoder/cell/kernel"] == expected


def test_exchanged_state_is_what_it_says():
    """The mirror of the wrong conversion computes the wrong numbers, if told to exchange the states."""
    from tf_models.implicit_state import Exchanged

    comparison = compare_live(explicit(lambda: Exchanged(SPEC, tf.float64), meant="exchanged"))
    assert comparison.matches, comparison.findings


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("mechanism", ["luong", "bahdanau"])
def test_attention_nmt(cell, mechanism, monkeypatch):
    """The translator, whose decoder is a subclass that is registered in a line."""
    import tf_models.attention_nmt as ports
    from jax_models.attention_nmt import AligningDecoder
    from oracle.bridge.mirror import mirrors, registry
    from oracle.bridge.mirror.tfa_decoder import mirror_basic_decoder_as

    monkeypatch.setattr(registry, "_USERS", {})
    mirrors(ports.AligningDecoder)(
        lambda decoder, context: mirror_basic_decoder_as(decoder, context, AligningDecoder)
    )
    attention = Attention(mechanism, 6 if mechanism == "luong" else 4, True, 5)
    spec = AttentionNMT(9, 8, 4, cell, 3, 2, attention)
    batch = {
        "source": RNG.integers(1, 9, (3, 5)).astype(np.int32),
        "source_length": np.array([5, 2, 3], np.int32),
        "target": RNG.integers(1, 8, (3, 5)).astype(np.int32),
        "target_length": np.array([3, 2, 1], np.int32),
    }

    def build():
        port = ports.AttentionNMT(spec, tf.float64)

        def loss(batch):
            lengths = batch["source_length"], batch["target_length"]
            memory, states = port.encoder(port.encoder.embed(batch["source"]), lengths[0])
            decoded = port.decoder(
                port.decoder.embed(batch["target"][:, :-1]),
                memory,
                states,
                source_length=lengths[0],
                target_length=lengths[1],
            )
            value = ports.masked_loss(decoded.logits, batch["target"][:, 1:], lengths[1])
            return value, {"alignments": decoded.alignments[:, :3]}

        def reference(mirror, params, batch):
            import jax.numpy as jnp

            from jax_models.seq2seq import sequence_loss

            encoder, own = mirror.model.encoder, params["model"]["encoder"]
            outputs = encoder.embedding.apply(batch["source"], params=own["embedding"])
            mask, states = np.arange(5) < batch["source_length"][:, None], []
            for name in ("layers_0", "layers_1"):
                outputs, *parts = encoder.children[name].apply(outputs, mask=mask, params=own[name])
                half = len(parts) // 2
                pairs = zip(parts[:half], parts[half:], strict=True)
                states.append([jnp.concatenate(pair, -1) for pair in pairs])
            states = [state if len(state) > 1 else state[0] for state in states]

            decoder, own = mirror.model.decoder, params["model"]["decoder"]
            memory = decoder.wrapper.setup_memory(
                outputs, memory_sequence_length=batch["source_length"], params=own["wrapper"]
            )
            state = decoder.wrapper.initial_state(memory, cell_state=states, params=own["wrapper"])
            embedded = decoder.embedding.apply(batch["target"][:, :-1], params=own["embedding"])
            decoded, _, _ = decoder.decoder.apply(
                embedded, initial_state=state, sequence_length=batch["target_length"], params=own["decoder"]
            )
            steps = decoded.rnn_output.shape[1]
            weights = (np.arange(steps) < batch["target_length"][:, None]).astype(outputs.dtype)
            targets = jnp.asarray(batch["target"][:, 1 : 1 + steps])
            loss = sequence_loss(decoded.rnn_output, targets, jnp.asarray(weights))
            return loss, {"alignments": decoded.alignments}

        return LivePort({"model": port}, batch, loss, reference, "attention_nmt")

    comparison = compare_live(build)
    assert comparison.matches, comparison.findings
