"""Places of a fault whose name depends on the model that it is seeded in. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from oracle.spec import AttentionNMT, Spec

TOP = "the top of the encoder"
"""The encoder's last layer, whose adjoints come first in the backward pass."""

JOINED = "what reads the first layer's outputs"
"""The first to read the joined outputs of both directions of the encoder's first layer: the next layer, or
the memory if there is none."""

ATTENTION = "what gives the attention"
"""The layer whose output the attention is, or the mechanism where there is no layer."""

MEMORY = ("memory", "decoder/attention_mechanism/memory")
"""The memory, wrong as it is made: the seam between encoder and mechanism, and what is recorded there."""


def find_places(places: Iterable[str], spec: Spec) -> tuple[str, ...]:
    """Paths of layers, seams and tensors: places under the names that they have in a model.

    Args:
        places: paths, and the names above.
        spec: the model.
    """
    return tuple(path for place in places for path in _find(place, spec))


def _find(place: str, spec: Spec) -> tuple[str, ...]:
    if not isinstance(spec, AttentionNMT):
        return (place,)
    if place == TOP:
        return (f"encoder/layers_{spec.layers - 1}",)
    if place == JOINED and spec.layers > 1:
        return tuple(f"encoder/layers_1/{way}/cell/input" for way in ("forward", "backward"))
    if place == JOINED:
        return (*MEMORY, "output/encoder")
    if place == ATTENTION:
        has_layer = spec.attention.layer_units is not None
        return ("decoder/attention_layer/output" if has_layer else "decoder/attention_mechanism/alignments",)
    return (place,)
