"""Where the parts of an attention NMT model live, on both sides."""

from __future__ import annotations

from oracle.bridge.attention_layouts import attention_layer, bahdanau_attention, luong_attention
from oracle.bridge.keras_layouts import keras_dense, keras_embedding, keras_gru_cell, keras_lstm_cell
from oracle.bridge.layout import Layout
from oracle.bridge.site import Site
from oracle.spec import Attention, AttentionNMT


def find_nmt_sites(spec: AttentionNMT) -> tuple[Site, ...]:
    """The sites of `jax_models.attention_nmt` and of the variables of `tf_models.attention_nmt`.

    The variables are named by attributes, as in a TF2 checkpoint of the port's `encoder` and `decoder`.
    """
    cell = {"lstm": keras_lstm_cell, "gru": keras_gru_cell}[spec.cell]
    memory = decoder_units = 2 * spec.units
    width = spec.attention.layer_units
    attended = memory if width is None else width

    sites = [_site("encoder/embedding", keras_embedding(spec.source_vocab, spec.embedding))]
    for i in range(spec.layers):
        layout = cell(memory if i else spec.embedding, spec.units)
        for direction in ("forward", "backward"):
            there = f"encoder/layers/{i}/{direction}_layer/cell"
            sites.append(_site(f"encoder/layers_{i}/{direction}/cell", layout, there))
    sites.append(_site("decoder/embedding", keras_embedding(spec.target_vocab, spec.embedding)))
    for i in range(spec.layers):
        layout = cell(decoder_units if i else spec.embedding + attended, decoder_units)
        sites.append(_site(f"decoder/cells_{i}", layout, f"decoder/cells/{i}"))
    mechanism = _mechanism_layout(spec.attention, query=decoder_units, memory=memory)
    sites.append(_site("decoder/attention_mechanism", mechanism))
    if width is not None:
        sites.append(_site("decoder/attention_layer", attention_layer(decoder_units + memory, width)))
    sites.append(_site("decoder/output_layer", keras_dense(attended, spec.target_vocab)))
    return tuple(sites)


def _mechanism_layout(attention: Attention, *, query: int, memory: int) -> Layout:
    monotonic = attention.mechanism.endswith("monotonic")
    if attention.mechanism.startswith("luong"):
        return luong_attention(memory, attention.units, scale=attention.scaled, monotonic=monotonic)
    return bahdanau_attention(query, memory, attention.units, normalize=attention.scaled, monotonic=monotonic)


def _site(path: str, layout: Layout, variables: str | None = None) -> Site:
    """A site whose variables lie under `variables`, by default under the path of its leaves."""
    prefix = path if variables is None else variables
    return Site(path, layout, {name: f"{prefix}/{name}" for name in layout.variables})
