"""The samplers of `tfa.seq2seq`. They have no weights; what is random in them is given as data."""

from __future__ import annotations

from typing import Any

from jax_models.sampler import GreedyEmbeddingSampler, SampleEmbeddingSampler, TrainingSampler
from jax_models.scheduled_sampler import ScheduledEmbeddingTrainingSampler, ScheduledOutputTrainingSampler
from oracle.bridge.mirror.context import Context
from oracle.bridge.mirror.keras_layers import Weightless
from oracle.bridge.mirror.pieces import Piece
from oracle.bridge.mirror.refusals import refuse
from oracle.bridge.mirror.registry import known

NO_CALL = "a sampler has no call of its own; it is a decoder's"


@known("tfa.seq2seq.TrainingSampler")
def mirror_training(sampler: Any, context: Context) -> Piece:
    """`tfa.seq2seq.TrainingSampler`."""
    del context
    options = {"time_major": bool(sampler.time_major)}
    return Piece(TrainingSampler(**options), options=options, refusal=NO_CALL)


@known("tfa.seq2seq.GreedyEmbeddingSampler")
def mirror_greedy(sampler: Any, context: Context) -> Piece:
    """`tfa.seq2seq.GreedyEmbeddingSampler`, which is given its embedding with each call."""
    _check_embedding(sampler, context, "GreedyEmbeddingSampler")
    return Piece(GreedyEmbeddingSampler(), refusal=NO_CALL)


@known("tfa.seq2seq.SampleEmbeddingSampler")
def mirror_sample(sampler: Any, context: Context) -> Piece:
    """`tfa.seq2seq.SampleEmbeddingSampler`, whose draws the decoder is given as `sample_ids` or a `key`."""
    _check_embedding(sampler, context, "GreedyEmbeddingSampler")
    temperature = None if sampler.softmax_temperature is None else float(sampler.softmax_temperature)
    module = SampleEmbeddingSampler(softmax_temperature=temperature)
    return Piece(module, options={"softmax_temperature": temperature}, refusal=NO_CALL)


@known("tfa.seq2seq.ScheduledEmbeddingTrainingSampler")
def mirror_scheduled_embedding(sampler: Any, context: Context) -> Piece:
    """`tfa.seq2seq.ScheduledEmbeddingTrainingSampler`; its draws are given as `sample_ids`."""
    _check_embedding(sampler, context, "ScheduledEmbeddingTrainingSampler")
    options = {"time_major": bool(sampler.time_major)} | _read_probability(sampler, context)
    return Piece(ScheduledEmbeddingTrainingSampler(**options), options=options, refusal=NO_CALL)


@known("tfa.seq2seq.ScheduledOutputTrainingSampler")
def mirror_scheduled_output(sampler: Any, context: Context) -> Piece:
    """`tfa.seq2seq.ScheduledOutputTrainingSampler`; its draws are given as `choices`."""
    if sampler.next_inputs_fn is not None:
        _refuse_function(context, "next_inputs_fn")
    options = {"time_major": bool(sampler.time_major)} | _read_probability(sampler, context)
    return Piece(ScheduledOutputTrainingSampler(**options), options=options, refusal=NO_CALL)


@known("tfa.seq2seq.InferenceSampler", "tfa.seq2seq.CustomSampler")
def mirror_functions(sampler: Any, context: Context) -> Piece:
    """Samplers that are made of functions of the user's: what they compute is not known."""
    kind = type(sampler).__name__
    refusal = (
        f"{kind} is made of functions of your own; derive a class from {kind} and register it with "
        f"@oracle.mirrors, on jax_models.seq2seq.{kind} with the same functions in JAX"
    )
    del context
    return Piece(Weightless(), refusal=refusal)


def _check_embedding(sampler: Any, context: Context, owner: str) -> None:
    function = sampler.embedding_fn
    # Without one, TensorFlow keeps a function of the first embedding that it was given.
    kept = f"{owner}.initialize.<locals>.<lambda>"
    if function is not None and getattr(function, "__qualname__", "") != kept:
        _refuse_function(context, "embedding_fn")


def _refuse_function(context: Context, name: str) -> None:
    refuse(
        context.path,
        f"its {name} is a function of your own",
        "give the decoder the embedding matrix instead, or register a class of your own with @oracle.mirrors",
    )


def _read_probability(sampler: Any, context: Context) -> dict[str, Any]:
    probability = sampler.sampling_probability
    try:
        return {"sampling_probability": float(probability)}
    except (TypeError, ValueError):
        refuse(context.path, "its sampling_probability is no number", "give one number for all rows")
