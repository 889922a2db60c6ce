"""A site: where one cell or layer lives on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from oracle.bridge.layout import Layout

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
