"""Where a spec's parts live: for each cell or layer, its leaves' path, its layout, its variables' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from oracle.bridge.layout import Layout
from oracle.bridge.layouts import dense, keras_lstm, tf1_lstm
from oracle.spec import Spec

Convention = Literal["tf1", "keras"]
"""How variables are named and laid out: by TF1 variable scopes, or by Keras attributes."""


@dataclass(frozen=True)
class Site:
    """One cell or layer.

    Args:
        path: the path of its leaves on the oracle's side, `encoder/cell`.
        layout: how its variables hold its leaves.
        variables: for each variable of the layout, its whole name in the model or checkpoint.
    """

    path: str
    layout: Layout
    variables: Mapping[str, str]


def find_sites(spec: Spec, convention: Convention) -> tuple[Site, ...]:
    """The sites of a spec's port.

    `tf1` is how `tf_models/dynamic_rnn.py` names its variables, and with it any graph that runs
    `dynamic_rnn` over a `BasicLSTMCell` in the scopes `encoder` and `decoder`. `keras` is by attributes,
    as a TF2 checkpoint of `tf_models/explicit_state.py` does.
    """
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
