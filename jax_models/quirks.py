"""What TensorFlow gets wrong and we get wrong with it, so as to verify a port; each behind a switch.

The default of every switch is TensorFlow's behaviour. The other value shows what it should have been. This
list imports nothing; a test holds it against the code.
"""

from __future__ import annotations

from typing import NamedTuple


class Quirk(NamedTuple):
    """One fault, and where it is switched off.

    Args:
        where: the class or function of `jax_models` that has the switch, `module.Name`.
        switch: the field or argument.
        default: TensorFlow's behaviour.
        corrected: what it should have been.
        what: what TensorFlow does, in a sentence.
    """

    where: str
    switch: str
    default: object
    corrected: object
    what: str


QUIRKS = (
    Quirk(
        "attention.AttentionMechanism",
        "masked_score",
        "lowest",
        "minus_infinity",
        "Masked scores are the lowest finite number, not -inf as in contrib: a row masked throughout attends "
        "to everything equally.",
    ),
    Quirk(
        "attention.AttentionMechanism",
        "constructor_lengths",
        "ignored",
        "used",
        "Lengths given to the constructor of a mechanism, without a memory, are ignored when the memory is "
        "set up.",
    ),
    Quirk(
        "monotonic.safe_cumprod",
        "gradient_at_ties",
        "tensorflow",
        "split",
        "Where a clipped value equals its bound, above all p = 0 and p = 1, it gets the whole gradient, not "
        "half of it.",
    ),
    Quirk(
        "monotonic.monotonic_attention",
        "gradient_at_zero_factors",
        "tensorflow",
        "exact",
        "In hard mode a factor 1 - p that is exactly 0 gets no gradient, though its true one is not 0.",
    ),
    Quirk(
        "decoder.dynamic_decode",
        "impute_mask",
        "tensorflow",
        "batch",
        "impute_finished shapes its flags [batch, 1], which masks the wrong elements of a state of rank 3 "
        "whose second axis is as long as the batch.",
    ),
    Quirk(
        "beam_search.BeamSearchDecoder",
        "length_penalty_precision",
        "tensorflow",
        "logits",
        "The length penalty is computed in float32, whatever the precision of the logits.",
    ),
    Quirk(
        "scheduled_sampler.ScheduledEmbeddingTrainingSampler",
        "vector_probability",
        "tensorflow",
        "per_row",
        "A probability for each row, though documented, draws [batch, batch] choices and fails.",
    ),
    Quirk(
        "losses.sequence_loss",
        "unnormalized_targets",
        "tensorflow",
        "exact",
        "The gradient takes for granted that targets which are distributions sum to 1.",
    ),
    Quirk(
        "keras_dropout.choose_dropout_masks",
        "mask_reset",
        "never",
        "every_call",
        "A decoder never resets the dropout masks of a Keras cell: in eager mode those of its first step "
        "serve all steps and calls, without training too.",
    ),
    Quirk(
        "keras_rnn.LSTM",
        "dropout_every_step",
        None,
        False,
        "With the options that cuDNN could run, LSTM and GRU drop their inputs by a new mask every step, on "
        "CPU too; with any other option by one mask for all steps.",
    ),
    Quirk(
        "keras_rnn.LSTM",
        "unrolled_zeros",
        "tensorflow",
        "reversed",
        "An unrolled layer that goes backwards zeroes its outputs by the mask that is not reversed.",
    ),
    Quirk(
        "keras_activations.gelu",
        "exact_root",
        False,
        True,
        "In float64 it divides by the root of 2 rounded to float32, a relative error of 2e-8.",
    ),
)
"""Every switch of this kind."""
