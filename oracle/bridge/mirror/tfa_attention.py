"""The attention of `tfa.seq2seq`: the mechanisms and the `AttentionWrapper`."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax.numpy as jnp

from jax_models.attention import BahdanauAttention, LuongAttention
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.monotonic import BahdanauMonotonicAttention, LuongMonotonicAttention
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.pieces import Child, Piece, cell_call, wrapper_state
from oracle.bridge.mirror.refusals import refuse, refuse_options
from oracle.bridge.mirror.registry import known
from oracle.frameworks import import_tensorflow, import_tfa


@known("tfa.seq2seq.LuongAttention")
def mirror_luong(mechanism: Any, context: Context) -> Piece:
    """`tfa.seq2seq.LuongAttention`."""
    options = {"units": int(mechanism.units), "scale": bool(mechanism.scale)}
    options |= {"probability_fn": _read_probability(mechanism, context)}
    variables = {"attention_g": "scale_weight"} if mechanism.scale else {}
    return _mechanism(LuongAttention(**options), options, mechanism, context, variables)


@known("tfa.seq2seq.BahdanauAttention")
def mirror_bahdanau(mechanism: Any, context: Context) -> Piece:
    """`tfa.seq2seq.BahdanauAttention`, normalised or not."""
    options = {"units": int(mechanism.units), "normalize": bool(mechanism.normalize)}
    options |= {"probability_fn": _read_probability(mechanism, context)}
    names = _bahdanau_names(mechanism)
    return _mechanism(BahdanauAttention(**options), options, mechanism, context, names)


@known("tfa.seq2seq.LuongMonotonicAttention")
def mirror_luong_monotonic(mechanism: Any, context: Context) -> Piece:
    """`tfa.seq2seq.LuongMonotonicAttention`."""
    options = {"units": int(mechanism.units), "scale": bool(mechanism.scale)}
    options |= _read_monotonic(mechanism, context)
    names = {"attention_score_bias": "attention_score_bias"}
    names |= {"attention_g": "attention_g"} if mechanism.scale else {}
    return _mechanism(LuongMonotonicAttention(**options), options, mechanism, context, names)


@known("tfa.seq2seq.BahdanauMonotonicAttention")
def mirror_bahdanau_monotonic(mechanism: Any, context: Context) -> Piece:
    """`tfa.seq2seq.BahdanauMonotonicAttention`."""
    options = {"units": int(mechanism.units), "normalize": bool(mechanism.normalize)}
    options |= _read_monotonic(mechanism, context)
    names = _bahdanau_names(mechanism) | {"attention_score_bias": "attention_score_bias"}
    return _mechanism(BahdanauMonotonicAttention(**options), options, mechanism, context, names)


@known("tfa.seq2seq.AttentionWrapper")
def mirror_attention_wrapper(wrapper: Any, context: Context) -> Piece:
    """`tfa.seq2seq.AttentionWrapper`, around any cell, with one mechanism or several."""
    _check_wrapper(wrapper, context)
    many = bool(wrapper._is_multi)
    cell = context.cell(wrapper._cell, "cell")
    mechanisms = _list_children(wrapper._attention_mechanisms, "attention_mechanism", many, context)
    layers = _list_children(wrapper._attention_layers or [], "attention_layer", many, context)
    for child in layers:
        if not hasattr(child.piece.module, "features"):
            refuse(
                f"{context.path}/{child.attribute}",
                f"a {child.piece.kind} as an attention layer does not say its width",
                "use a Dense, or register its class with @oracle.mirrors on a module with a field `features`",
            )
    options = {
        "output_attention": bool(wrapper._output_attention),
        "alignment_history": bool(wrapper._alignment_history),
    }

    def listed(children: list[Child]) -> Any:
        modules = tuple(child.piece.module for child in children)
        return (modules if many else modules[0]) if modules else None

    module = AttentionWrapper(
        cell=cell.piece.module,
        attention_mechanism=listed(mechanisms),
        attention_layer=listed(layers),
        **options,
    )
    assert cell.piece.state is not None
    form = wrapper_state(cell.piece.state)
    inner = cell.piece.state

    def initial_state(bound: Any, memories: Any, *, cell_state: Any = None, **given: Any) -> Any:
        """The state before the first step, of what `setup_memory` gave."""
        if cell_state is not None:
            return form.to_port(bound.initial_state(inner.to_ours(cell_state), memories, **given))
        values = (memories[0] if many else memories).values
        return form.to_port(bound.zero_state(values.shape[0], values.dtype, memories=memories, **given))

    return Piece(
        module,
        children=(cell, *mechanisms, *layers),
        options=options | {"multiple": many},
        call=cell_call(form),
        methods={"setup_memory": _setup_memory, "initial_state": initial_state},
        state=form,
    )


def _mechanism(
    module: Any, options: dict[str, Any], mechanism: Any, context: Context, names: dict[str, str]
) -> Piece:
    children = []
    for attribute in ("memory_layer", "query_layer"):
        layer = getattr(mechanism, attribute)
        if layer is not None:
            child = context.child(layer, attribute)
            given = child.piece.options
            wanted = {"units": options["units"], "activation": "linear", "use_bias": False}
            if given != wanted:
                refuse(
                    f"{context.path}/{attribute}",
                    f"a {attribute} with {given} is not the one that the mechanism makes",
                    f"leave it to the mechanism, or give a Dense with {wanted}",
                )
            children.append(child)

    def call(bound: Any, inputs: Any, memory: Any, **noise: Any) -> Any:
        query, state = inputs[:2]
        return bound(memory, query, state, **noise)

    return Piece(
        module,
        context.variables(mechanism, names),
        children=tuple(children),
        options=options,
        call=call,
        methods={
            "setup_memory": _setup_memory,
            "initial_state": lambda bound, memory: bound.initial_state(memory),
            "initial_alignments": lambda bound, memory: bound.initial_alignments(memory),
        },
    )


def _setup_memory(
    bound: Any, memory: Any, memory_sequence_length: Any = None, memory_mask: Any = None, **options: Any
) -> Any:
    """What a mechanism attends to, as a value; TensorFlow keeps it in the mechanism."""
    return bound.setup_memory(
        memory if isinstance(memory, (list, tuple)) else jnp.asarray(memory),
        memory_sequence_length=memory_sequence_length,
        memory_mask=memory_mask,
        **options,
    )


def _list_children(objects: Any, name: str, many: bool, context: Context) -> list[Child]:
    if not many:
        return [context.child(obj, name) for obj in objects]
    return [
        Child(
            context.mirror(obj, f"{name}/{i}"),
            f"{name}_{i}",
            f"{name}/{i}",
            bind=lambda bound, i=i: getattr(bound, name)[i],
        )
        for i, obj in enumerate(objects)
    ]


def _check_wrapper(wrapper: Any, context: Context) -> None:
    default = "AttentionWrapper.__init__.<locals>.cell_input_fn"
    if not _is_made_by_tfa(wrapper._cell_input_fn, default):
        refuse(
            context.path,
            f"its cell_input_fn is a function of your own, {wrapper._cell_input_fn!r}",
            "derive a class from AttentionWrapper and register it with @oracle.mirrors",
        )
    if not _is_made_by_tfa(wrapper._attention_fn, "_compute_attention"):
        refuse(
            context.path,
            f"its attention_fn is a function of your own, {wrapper._attention_fn!r}",
            "derive a class from AttentionWrapper and register it with @oracle.mirrors",
        )
    initial = None if wrapper._initial_cell_state is None else "a tensor"
    refuse_options(
        context.path,
        "AttentionWrapper",
        {
            "initial_cell_state": (
                initial,
                None,
                "it holds one batch's tensor; use get_initial_state(...).clone(cell_state=...)",
            )
        },
    )


def _read_probability(mechanism: Any, context: Context) -> str:
    """The name of the probability function, as it is and not as it was asked for."""
    owner = "LuongAttention" if "LuongAttention" in _class_names(mechanism) else "BahdanauAttention"
    default = mechanism.default_probability_fn
    inner = _closure(default).get("probability_fn")
    names = {import_tensorflow().nn.softmax: "softmax", import_tfa().seq2seq.hardmax: "hardmax"}
    made = _is_made_by_tfa(default, f"{owner}.__init__.<locals>.wrapped_probability_fn")
    if not made or inner not in names or not _is_wrapping(mechanism, default):
        _refuse_probability(context)
    return names[inner]


def _read_monotonic(mechanism: Any, context: Context) -> dict[str, Any]:
    default = mechanism.default_probability_fn
    if (
        not isinstance(default, functools.partial)
        or not _is_made_by_tfa(default.func, "_monotonic_probability_fn")
        or not _is_wrapping(mechanism, default)
    ):
        _refuse_probability(context)
    return {
        "sigmoid_noise": float(default.keywords["sigmoid_noise"]),
        "mode": str(default.keywords["mode"]),
    }


def _is_wrapping(mechanism: Any, default: Any) -> bool:
    """Whether what the mechanism calls is the default, bare or under the mask of the last memory."""
    called = mechanism.probability_fn
    return called is default or (
        _is_mask_of_tfa(called) and _closure(called).get("unwrapped_probability_fn") is default
    )


def _is_mask_of_tfa(function: Any) -> bool:
    """Whether `setup_memory` made this function, as it is written or as AutoGraph rewrote it.

    AutoGraph runs a copy of `setup_memory` in the globals of tfa, under the name `tf__setup_memory`.
    """
    parts = getattr(function, "__qualname__", "").split(".")
    plain = parts == ["AttentionMechanism", "setup_memory", "<locals>", "_mask_probability_fn"]
    rewritten = (
        parts[0] == "outer_factory"
        and "tf__setup_memory" in parts
        and parts[-1] == "_mask_probability_fn"
        and _closure(function).get("ag__") is not None
    )
    if not inspect.isfunction(function) or not (plain or rewritten):
        return False
    origin = function.__module__ or ""
    return origin == "tensorflow_addons.seq2seq.attention_wrapper"


def _refuse_probability(context: Context) -> Any:
    refuse(
        context.path,
        "its probability_fn is not one of tfa's",
        "use softmax or hardmax, or derive a class and register it with @oracle.mirrors",
    )


def _is_made_by_tfa(function: Any, qualname: str) -> bool:
    module = getattr(function, "__module__", None) or ""
    return module.startswith("tensorflow_addons.") and getattr(function, "__qualname__", "") == qualname


def _closure(function: Any) -> dict[str, Any]:
    return dict(inspect.getclosurevars(function).nonlocals) if inspect.isfunction(function) else {}


def _class_names(obj: Any) -> set[str]:
    return {cls.__name__ for cls in type(obj).__mro__}


def _bahdanau_names(mechanism: Any) -> dict[str, str]:
    names = ("attention_v", *(("attention_g", "attention_b") if mechanism.normalize else ()))
    return {name: name for name in names}
