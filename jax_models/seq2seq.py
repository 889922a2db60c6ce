"""All of `tfa.seq2seq`, under its names."""

from __future__ import annotations

from jax_models.attention import AttentionMechanism, BahdanauAttention, LuongAttention, hardmax
from jax_models.attention_state import AttentionWrapperState
from jax_models.attention_wrapper import AttentionWrapper
from jax_models.beam_search import (
    BeamSearchDecoder,
    BeamSearchDecoderOutput,
    BeamSearchDecoderState,
    FinalBeamSearchDecoderOutput,
)
from jax_models.beam_search_ops import gather_tree, gather_tree_from_array, tile_batch
from jax_models.decoder import BaseDecoder, BasicDecoder, BasicDecoderOutput, Decoder, dynamic_decode
from jax_models.losses import SequenceLoss, sequence_loss
from jax_models.monotonic import (
    BahdanauMonotonicAttention,
    LuongMonotonicAttention,
    monotonic_attention,
    safe_cumprod,
)
from jax_models.sampler import (
    CustomSampler,
    GreedyEmbeddingSampler,
    InferenceSampler,
    SampleEmbeddingSampler,
    Sampler,
    TrainingSampler,
)
from jax_models.scheduled_sampler import ScheduledEmbeddingTrainingSampler, ScheduledOutputTrainingSampler

__all__ = [
    "AttentionMechanism",
    "AttentionWrapper",
    "AttentionWrapperState",
    "BahdanauAttention",
    "BahdanauMonotonicAttention",
    "BaseDecoder",
    "BasicDecoder",
    "BasicDecoderOutput",
    "BeamSearchDecoder",
    "BeamSearchDecoderOutput",
    "BeamSearchDecoderState",
    "CustomSampler",
    "Decoder",
    "FinalBeamSearchDecoderOutput",
    "GreedyEmbeddingSampler",
    "InferenceSampler",
    "LuongAttention",
    "LuongMonotonicAttention",
    "SampleEmbeddingSampler",
    "Sampler",
    "ScheduledEmbeddingTrainingSampler",
    "ScheduledOutputTrainingSampler",
    "SequenceLoss",
    "TrainingSampler",
    "dynamic_decode",
    "gather_tree",
    "gather_tree_from_array",
    "hardmax",
    "monotonic_attention",
    "safe_cumprod",
    "sequence_loss",
    "tile_batch",
]
