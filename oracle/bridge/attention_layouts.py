"""The layouts of `tfa.seq2seq`'s attention mechanisms and of its `AttentionWrapper`.

The variables of a mechanism are named by the attribute that holds them in TensorFlow
(`memory_layer/kernel`, `attention_v`, ...), never by their TensorFlow names: two of Bahdanau's kernels
are called `kernel:0` there. The leaves have the same names, so that these layouts only nest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oracle.bridge.layout import Layout, join, whole


def luong_attention(depth: int, units: int, *, scale: bool = False, monotonic: bool = False) -> Layout:
    """`LuongAttention`, or `LuongMonotonicAttention`, of a memory [batch, memory, depth]."""
    shapes: dict[str, tuple[int, ...]] = {"memory_layer/kernel": (depth, units)}
    if scale:
        shapes["attention_g"] = ()
    if monotonic:
        shapes["attention_score_bias"] = ()
    return _same(shapes)


def bahdanau_attention(
    query: int, depth: int, units: int, *, normalize: bool = False, monotonic: bool = False
) -> Layout:
    """`BahdanauAttention`, or `BahdanauMonotonicAttention`, of queries [batch, query]."""
    shapes: dict[str, tuple[int, ...]] = {
        "memory_layer/kernel": (depth, units),
        "query_layer/kernel": (query, units),
        "attention_v": (units,),
    }
    if normalize:
        shapes |= {"attention_g": (), "attention_b": (units,)}
    if monotonic:
        shapes["attention_score_bias"] = ()
    return _same(shapes)


def attention_layer(features: int, units: int) -> Layout:
    """What `attention_layer_size` makes: a dense layer without bias, of [cell_output; context]."""
    return _same({"kernel": (features, units)})


def attention_wrapper(
    cell: Layout,
    attention_mechanism: Layout | Sequence[Layout],
    *,
    attention_layer: Layout | Sequence[Layout] | None = None,
) -> Layout:
    """`AttentionWrapper`, of its parts' layouts: `cell/...`, `attention_mechanism/...` (or
    `attention_mechanism_0/...` and so on for a sequence) and `attention_layer/...` likewise.
    """
    parts = {"cell": cell}
    for name, given in (
        ("attention_mechanism", attention_mechanism),
        ("attention_layer", attention_layer),
    ):
        if isinstance(given, Layout):
            parts[name] = given
        elif given is not None:
            parts |= {f"{name}_{i}": part for i, part in enumerate(given)}
    return join({(name, name): part for name, part in parts.items()})


def _same(shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    return Layout(shapes, shapes, tuple(whole(name, name, shape) for name, shape in shapes.items()))
