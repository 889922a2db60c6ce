"""The decoders of `tfa.seq2seq`: `BasicDecoder` and `BeamSearchDecoder`.

Outputs are as long as the loop ran, as in TensorFlow, where that is known: outside `jax.jit`, and within it
for a `TrainingSampler` whose lengths are NumPy arrays. Otherwise they are as long as the bound, zero at the
end, as TensorFlow's are under XLA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_models.beam_search import BeamSearchDecoder
from jax_models.decoder import BasicDecoder
from jax_models.sampler import Sampler, TrainingSampler, read_if_known
from oracle.bridge.mirror.containers import Hidden, compose
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.keras_layers import SizedDense
from oracle.bridge.mirror.mirrored import to_jax
from oracle.bridge.mirror.pieces import Call, Child, Piece, StateForm
from oracle.bridge.mirror.refusals import refuse
from oracle.bridge.mirror.registry import known


class CalledPiece(nn.Module):
    """A module that is called as its piece's live object is: the mirror of a model as an output layer."""

    module: nn.Module
    call: Hidden

    def __call__(self, inputs: Any) -> Any:
        """What the piece computes of `inputs`."""
        return self.call.value(self.module, inputs)


@known("tfa.seq2seq.BasicDecoder")
def mirror_basic_decoder(decoder: Any, context: Context) -> Piece:
    """`tfa.seq2seq.BasicDecoder`, over any cell and sampler that can be mirrored."""
    return mirror_basic_decoder_as(decoder, context, BasicDecoder)


def mirror_basic_decoder_as(decoder: Any, context: Context, make: Callable[..., Any]) -> Piece:
    """As `mirror_basic_decoder`, with a module class of your own: for a subclass that is registered."""
    cell = context.cell(decoder.cell, "cell")
    sampler = context.child(decoder.sampler, "sampler")
    output = _mirror_output_layer(decoder.output_layer, context)
    options = _read_loop(decoder, context) | {"impute_finished": bool(decoder.impute_finished)}
    children = (cell, sampler, *((output,) if output else ()))
    if not isinstance(sampler.piece.module, Sampler):
        kept = tuple(child for child in children if child is not sampler)
        refusal = f"it has a sampler of your own: {sampler.piece.refusal}"
        return Piece(compose(kept, {}), children=kept, options=options, refusal=refusal)
    module = make(
        cell=cell.piece.module,
        sampler=sampler.piece.module,
        output_layer=None if output is None else _callable_module(output.piece),
        **options,
    )
    assert cell.piece.state is not None
    call = _call_basic(cell.piece.state, options, trains=type(sampler.piece.module) is TrainingSampler)
    return Piece(module, children=children, options=options, call=call, keeps_numpy=True)


@known("tfa.seq2seq.BeamSearchDecoder")
def mirror_beam_search(decoder: Any, context: Context) -> Piece:
    """`tfa.seq2seq.BeamSearchDecoder`."""
    function = decoder._embedding_fn
    if function is not None and getattr(function, "__qualname__", "") != _KEPT_EMBEDDING:
        refuse(
            context.path,
            "its embedding_fn is a function of your own",
            "give the decoder the embedding matrix instead",
        )
    cell = context.cell(decoder._cell, "cell")
    output = _mirror_output_layer(decoder._output_layer, context)
    options = _read_loop(decoder, context) | {
        "beam_width": int(decoder._beam_width),
        "length_penalty_weight": float(decoder._length_penalty_weight),
        "coverage_penalty_weight": float(decoder._coverage_penalty_weight),
        "reorder_tensor_arrays": bool(decoder._reorder_tensor_arrays),
        "output_all_scores": bool(decoder._output_all_scores),
    }
    if decoder.impute_finished:
        refuse(context.path, "a beam search with impute_finished=True fails in TensorFlow", "set it to False")
    module = BeamSearchDecoder(
        cell=cell.piece.module,
        output_layer=None if output is None else _callable_module(output.piece),
        **options,
    )
    assert cell.piece.state is not None
    children = (cell, *((output,) if output else ()))
    return Piece(
        module, children=children, options=options, call=_call_beam(cell.piece.state), keeps_numpy=True
    )


_KEPT_EMBEDDING = "BeamSearchDecoder.initialize.<locals>.<lambda>"
"""What TensorFlow keeps of the embedding that a call was given."""


def _read_loop(decoder: Any, context: Context) -> dict[str, Any]:
    bound = decoder.maximum_iterations
    try:
        bound = None if bound is None else int(bound)
    except (TypeError, ValueError):
        refuse(context.path, "its maximum_iterations is a symbol, not a number", "mirror it in eager mode")
    return {"output_time_major": bool(decoder.output_time_major), "maximum_iterations": bound}


def _mirror_output_layer(layer: Any, context: Context) -> Child | None:
    if layer is None:
        return None
    piece = context.mirror(layer, "output_layer")
    if piece.call is None:
        refuse(f"{context.path}/output_layer", piece.refusal, "register its class with @oracle.mirrors")
    if isinstance(piece.module, SizedDense):
        return Child(piece, "output_layer", "output_layer")
    return Child(piece, "output_layer/module", "output_layer")


def _callable_module(piece: Piece) -> nn.Module:
    return (
        piece.module
        if isinstance(piece.module, SizedDense)
        else CalledPiece(piece.module, Hidden(piece.call))
    )


def _call_basic(form: StateForm, options: dict[str, Any], *, trains: bool) -> Call:
    """`decoder(inputs, initial_state=, sequence_length=, ...)` gives (outputs, state, lengths)."""

    def call(
        bound: Any, inputs: Any, initial_state: Any = None, training: bool | None = None, **given: Any
    ) -> Any:
        del training
        lengths_given = given.get("sequence_length")
        outputs, state, lengths = bound(
            None if inputs is None else jax.tree.map(jnp.asarray, inputs),
            initial_state=None if initial_state is None else form.to_ours(to_jax(initial_state)),
            **{name: _as_array(value) for name, value in given.items()},
        )
        steps = read_if_known(lengths)
        if steps is None and trains and isinstance(lengths_given, (np.ndarray, list, tuple)):
            # JAX is tracing, but these lengths are known all the same.
            steps = np.asarray(lengths_given)
        if steps is not None:
            count = int(steps.max(initial=0))
            axis = 0 if options["output_time_major"] else 1
            outputs = jax.tree.map(
                lambda x: jax.lax.slice_in_dim(x, 0, min(count, x.shape[axis]), axis=axis), outputs
            )
        return outputs, form.to_port(state), lengths

    return call


def _call_beam(form: StateForm) -> Call:
    """`decoder(embedding, start_tokens=, end_token=, initial_state=)`."""

    def call(
        bound: Any, embedding: Any, initial_state: Any = None, training: bool | None = None, **given: Any
    ) -> Any:
        del training
        state = None if initial_state is None else form.to_ours(to_jax(initial_state))
        traced = [x for x in jax.tree.leaves((embedding, state)) if isinstance(x, jax.core.Tracer)]
        # The steps that ran are known outside tracing only.
        time = "maximum_iterations" if traced else "steps_run"
        outputs, state, lengths = bound.clone(output_time=time, parent=bound.parent)(
            None if embedding is None else jnp.asarray(embedding),
            initial_state=state,
            **{name: _as_array(value) for name, value in given.items()},
        )
        return outputs, state._replace(cell_state=form.to_port(state.cell_state)), lengths

    return call


def _as_array(value: Any) -> Any:
    return value if value is None or np.ndim(value) == 0 else jnp.asarray(value)
