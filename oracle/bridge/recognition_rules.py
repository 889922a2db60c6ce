"""The rules by which cells and layers are recognised: one for each family of them.

A rule is given a scope's name and the shapes in it, by their names below it, and answers with what it
found there or with None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass
class Found:
    """A part whose variables have their names below its scope: for each of the layout, the file's."""

    kind: str
    layout: str | None
    sizes: dict[str, Any]
    names: dict[str, str]
    doubt: str = ""


MEMORY_LAYER = "memory layer of an attention"

Rule = Callable[[str, Shapes], Found | None]
"""From a scope's name and the shapes in it to a part."""


def _recurrent(scope: str, shapes: Shapes) -> Found | None:
    """The cells of Keras and tfa: a kernel, a recurrent kernel, a bias."""
    kernel, recurrent = shapes.get("kernel"), shapes.get("recurrent_kernel")
    if kernel is None or recurrent is None or len(kernel) != 2 or len(recurrent) != 2:
        return None
    (features, columns), (outputs, again) = kernel, recurrent
    if columns != again or not outputs:
        return None
    names = {"kernel": "kernel", "recurrent_kernel": "recurrent_kernel"}
    bias = shapes.get("bias")
    sizes: dict[str, Any] = {"features": features, "units": outputs, "use_bias": bias is not None}
    if bias is not None:
        names["bias"] = "bias"
    extra = _extra_recurrent(shapes, sizes, names, columns)
    if extra is not None:
        return extra
    return _choose_recurrent(sizes, names, columns, bias, scope)


def _extra_recurrent(
    shapes: Shapes, sizes: dict[str, Any], names: dict[str, str], columns: int
) -> Found | None:
    units = sizes["units"]

    def with_names(kind: str, layout: str, own: list[str]) -> Found:
        return Found(kind, layout, sizes, {**names, **{name: name for name in own}})

    peepholes = [f"{gate}_gate_peephole_weights" for gate in ("input", "forget", "output")]
    if all(shapes.get(name) == (units,) for name in peepholes) and columns == 4 * units:
        return with_names("tfa PeepholeLSTMCell", "tfa_peephole_lstm", peepholes)
    norms = [
        f"{norm}/{name}"
        for norm in ("kernel_norm", "recurrent_norm", "state_norm")
        for name in ("gamma", "beta")
    ]
    if all(name in shapes for name in norms) and columns == 4 * units:
        return with_names("tfa LayerNormLSTMCell", "tfa_layer_norm_lstm", norms)
    if shapes.get("gamma") == (units,) and columns == units and "beta" not in shapes:
        return with_names("tfa LayerNormSimpleRNNCell", "tfa_layer_norm_simple_rnn", ["gamma"])
    projection = shapes.get("projection_weights")
    if projection is not None and projection[1:] == (units,) and columns == 8 * projection[0]:
        sizes |= {"units": projection[0], "projection": units}
        return with_names("tfa NASCell", "tfa_nas", ["projection_weights"])
    return None


def _choose_recurrent(
    sizes: dict[str, Any], names: dict[str, str], columns: int, bias: Shape | None, scope: str
) -> Found | None:
    units = sizes["units"]
    gates = columns // units if columns % units == 0 else 0
    flat = bias is None or bias == (columns,)
    if gates == 4 and flat:
        return Found("LSTM", "keras_lstm_cell", sizes, names)
    if gates == 3 and bias == (2, columns):
        return Found("GRU, reset_after", "keras_gru_cell", {**sizes, "reset_after": True}, names)
    if gates == 3 and flat:
        doubt = (
            ""
            if bias is not None
            else "without a bias reset_after shows in nothing: set it as the model has it"
        )
        kind = "GRU, not reset_after" if bias is not None else "GRU"
        return Found(kind, "keras_gru_cell", {**sizes, "reset_after": False}, names, doubt)
    if gates == 8 and flat:
        return Found("tfa NASCell", "tfa_nas", sizes, names)
    if gates == 1 and flat:
        if "esn" in scope.lower():
            return Found("tfa ESNCell", "tfa_esn", sizes, names)
        doubt = "an ESNCell has the same variables"
        return Found("SimpleRNN", "keras_simple_rnn_cell", sizes, names, doubt)
    return None


def _tf1_gru(scope: str, shapes: Shapes) -> Found | None:
    names = ["gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"]
    if not all(name in shapes for name in names):
        return None
    gates, candidate = shapes["gates/kernel"], shapes["candidate/kernel"]
    if len(gates) != 2 or len(candidate) != 2 or gates != (candidate[0], 2 * candidate[1]):
        return None
    units, features = candidate[1], candidate[0] - candidate[1]
    if features < 1 or (shapes[names[1]], shapes[names[3]]) != ((2 * units,), (units,)):
        return None
    sizes = {"features": features, "units": units}
    return Found("TF1 GRUCell", "tf1_gru", sizes, {name: name for name in names})


_CELL_NAMES = re.compile(r"(?:^|/)(?:basic_lstm_cell|lstm_cell|layer_norm_basic_lstm_cell)(?:_\d+)?$")
_NORMS = ("input", "forget", "transform", "output", "state")


def _tf1_lstm(scope: str, shapes: Shapes) -> Found | None:
    """The LSTM cells of TF1 and contrib: one kernel, rows [inputs; h]."""
    kernel = shapes.get("kernel")
    if kernel is None or len(kernel) != 2 or kernel[1] % 4 or "recurrent_kernel" in shapes:
        return None
    rows, units = kernel[0], kernel[1] // 4
    bias = shapes.get("bias") == (4 * units,)
    norms = [f"{norm}/{name}" for norm in _NORMS for name in ("gamma", "beta")]
    if all(shapes.get(name) == (units,) for name in norms) and rows > units:
        sizes = {"features": rows - units, "units": units}
        names = {name: name for name in ["kernel", *norms]}
        return Found("contrib LayerNormBasicLSTMCell", "contrib_layer_norm_lstm", sizes, names)
    if not bias:
        return None
    names = {"kernel": "kernel", "bias": "bias"}
    peepholes = [f"w_{gate}_diag" for gate in "ifo"]
    projection = shapes.get("projection/kernel")
    has_peepholes = all(shapes.get(name) == (units,) for name in peepholes)
    has_projection = projection is not None and len(projection) == 2 and projection[0] == units
    if not (has_peepholes or has_projection or _CELL_NAMES.search(scope)):
        return None
    outputs = projection[1] if has_projection and projection is not None else units
    if rows <= outputs:
        return None
    sizes: dict[str, Any] = {"features": rows - outputs, "units": units}
    if not has_peepholes and not has_projection:
        if "layer_norm" in scope:
            sizes["layer_norm"] = False
            return Found(
                "contrib LayerNormBasicLSTMCell without norms", "contrib_layer_norm_lstm", sizes, names
            )
        kind = "TF1 BasicLSTMCell" if "basic" in scope.rpartition("/")[2] else "TF1 LSTMCell"
        return Found(kind, "tf1_lstm", sizes, names)
    traits = []
    if has_peepholes:
        names |= {name: name for name in peepholes}
        sizes["use_peepholes"] = True
        traits.append("peepholes")
    if has_projection:
        names["projection/kernel"] = "projection/kernel"
        sizes["num_proj"] = outputs
        traits.append(f"projection to {outputs}")
    return Found(f"TF1 LSTMCell, {', '.join(traits)}", "tf1_lstm_cell", sizes, names)


def _tf1_basic_rnn(scope: str, shapes: Shapes) -> Found | None:
    kernel, bias = shapes.get("kernel"), shapes.get("bias")
    if not re.search(r"(?:^|/)basic_rnn_cell(?:_\d+)?$", scope) or kernel is None or bias is None:
        return None
    if len(kernel) != 2 or bias != (kernel[1],) or kernel[0] <= kernel[1]:
        return None
    sizes = {"features": kernel[0] - kernel[1], "units": kernel[1]}
    return Found("TF1 BasicRNNCell", "tf1_basic_rnn", sizes, {"kernel": "kernel", "bias": "bias"})


def _attention(scope: str, shapes: Shapes) -> Found | None:
    """Mechanisms of tfa.seq2seq and contrib. A memory layer may be missing: TF1 puts it elsewhere."""
    memory, query = shapes.get("memory_layer/kernel"), shapes.get("query_layer/kernel")
    units = shapes.get("attention_v")
    monotonic = shapes.get("attention_score_bias") == ()
    scaled = shapes.get("attention_g") == ()
    options = [name for name in ("attention_g", "attention_score_bias") if shapes.get(name) == ()]
    names = {name: name for name in options}
    if memory is not None:
        names["memory_layer/kernel"] = "memory_layer/kernel"
    if units is not None and query is not None and len(units) == 1 and query[1:] == units:
        names |= {"query_layer/kernel": "query_layer/kernel", "attention_v": "attention_v"}
        if "attention_b" in shapes:
            names["attention_b"] = "attention_b"
        sizes = {"query": query[0], "units": units[0], "normalize": scaled, "monotonic": monotonic}
        kind = "BahdanauMonotonicAttention" if monotonic else "BahdanauAttention"
        layout = "bahdanau_attention"
    elif units is None and query is None and (options or (memory is not None and "attention" in scope)):
        sizes = {"scale": scaled, "monotonic": monotonic}
        kind, layout = "LuongMonotonicAttention" if monotonic else "LuongAttention", "luong_attention"
    else:
        return None
    if memory is not None and len(memory) == 2:
        sizes |= {"depth": memory[0], "units": memory[1]}
    return Found(kind, layout, sizes, names)


def _dense(scope: str, shapes: Shapes) -> Found | None:
    kernel, bias = shapes.get("kernel"), shapes.get("bias")
    if kernel is None or len(kernel) != 2 or (bias is not None and bias != (kernel[1],)):
        return None
    last = scope.rpartition("/")[2]
    names = {"kernel": "kernel"} | ({"bias": "bias"} if bias is not None else {})
    sizes: dict[str, Any] = {"features": kernel[0], "units": kernel[1]}
    if re.fullmatch(r"attention_layer(?:_\d+)?", last) and bias is None:
        return Found("attention layer", "attention_layer", sizes, names)
    readings = []
    if bias is not None and not re.search(r"dense|proj|output|logits|linear|fc|layer", last, re.IGNORECASE):
        if kernel[1] % 4 == 0 and kernel[0] > kernel[1] // 4:
            units = kernel[1] // 4
            readings.append(f"tf1_lstm with features = {kernel[0] - units}, units = {units}")
        if kernel[0] > kernel[1]:
            readings.append(f"tf1_basic_rnn with features = {kernel[0] - kernel[1]}, units = {kernel[1]}")
    doubt = f"by its shapes it may be {' or '.join(readings)}" if readings else ""
    kind = MEMORY_LAYER if re.fullmatch(r"memory_layer(?:_\d+)?", last) else "Dense"
    return Found(kind, "keras_dense", {**sizes, "use_bias": bias is not None}, names, doubt)


def _embedding(scope: str, shapes: Shapes) -> Found | None:
    shape = shapes.get("embeddings")
    if shape is None or len(shape) != 2:
        return None
    sizes = {"input_dim": shape[0], "output_dim": shape[1]}
    return Found("Embedding", "keras_embedding", sizes, {"embeddings": "embeddings"})


_NUMBERED: tuple[tuple[Rule, tuple[str, ...]], ...] = (
    (_recurrent, ("kernel", "recurrent_kernel", "bias")),
    (_recurrent, ("kernel", "recurrent_kernel")),
    (_dense, ("kernel", "bias")),
)


def _places(scope: str, shapes: Shapes) -> Found | None:
    """Layers of Keras 3's files, whose variables are numbered in the order of their making."""
    if scope.rpartition("/")[2] != "vars":
        return None
    numbers = [str(index) for index in range(len(shapes)) if str(index) in shapes]
    if not numbers or len(numbers) != len(shapes):
        return None
    owner = scope.rpartition("/")[0]
    if len(numbers) == 1 and len(shapes["0"]) == 2:
        last = owner.rpartition("/")[2]
        rule, name = (_embedding, "embeddings") if "embedding" in last else (_dense, "kernel")
        found = rule(owner, {name: shapes["0"]})
        if found is not None and "dense" not in last and rule is _dense:
            found.doubt = "an Embedding has the same shape"
        return _rename(found, {name: "0"})
    for rule, names in _NUMBERED:
        if len(names) == len(numbers):
            found = rule(owner, {name: shapes[number] for name, number in zip(names, numbers, strict=True)})
            if found is not None:
                return _rename(found, dict(zip(names, numbers, strict=True)))
    return None


def _rename(found: Found | None, numbers: Mapping[str, str]) -> Found | None:
    if found is not None:
        found.names = {name: numbers[inner] for name, inner in found.names.items()}
    return found


RULES: tuple[Rule, ...] = (
    _places,
    _recurrent,
    _tf1_gru,
    _tf1_lstm,
    _tf1_basic_rnn,
    _attention,
    _embedding,
    _dense,
)
"""The rules in the order in which they are tried: what has most variables first."""
