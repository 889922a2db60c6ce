"""Where a spec's parts live: for each cell or layer, its leaves' path, its layout, its variables' names."""

from __future__ import annotations

import functools

from oracle.bridge.layout import Layout
from oracle.bridge.layouts import dense, keras_lstm, tf1_lstm
from oracle.bridge.nmt_sites import find_nmt_sites
from oracle.bridge.site import Convention, Site
from oracle.errors import BridgeError
from oracle.spec import AttentionNMT, Spec

__all__ = ["Convention", "Site", "find_sites"]


@functools.cache
def find_sites(spec: Spec, convention: Convention) -> tuple[Site, ...]:
    """The sites of a spec's port.

    `tf1` is how `tf_models/dynamic_rnn.py` names its variables, and with it any graph that runs
    `dynamic_rnn` over a `BasicLSTMCell` in the scopes `encoder` and `decoder`. `keras` is by attributes,
    as a TF2 checkpoint of `tf_models/explicit_state.py` does.

    Raises:
        BridgeError: if ports of the spec have no such names.
    """
    if isinstance(spec, AttentionNMT):
        if convention == "tf1":
            raise BridgeError(
                "the translator's variables are named by attributes, as in a TF2 checkpoint of "
                "`tf_models/attention_nmt.py`, and these by TF1 scopes; give a TF2 checkpoint"
            )
        return find_nmt_sites(spec)
    sites = []
    for scope, features, cell in (
        ("encoder", spec.source_features, spec.encoder),
        ("decoder", spec.target_features, spec.decoder),
    ):
        if convention == "tf1":
            layout, prefix = tf1_lstm(features, cell.units), f"{scope}/rnn/basic_lstm_cell"
        else:
            layout = keras_lstm(features, cell.units, forget_bias=cell.forget_bias)
            prefix = f"{scope}/cell"
        sites.append(Site(f"{scope}/cell", layout, _prefixed(layout, prefix)))
    if spec.projection:
        layout = dense(spec.decoder.units, spec.target_features)
        sites.append(Site("projection", layout, _prefixed(layout, "projection")))
    return tuple(sites)


def _prefixed(layout: Layout, prefix: str) -> dict[str, str]:
    return {name: f"{prefix}/{name}" for name in layout.variables}
