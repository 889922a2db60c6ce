"""`oracle decode`."""

from __future__ import annotations

import sys
from typing import Literal

from oracle.commands.options import Quiet, Verbose


def decode(
    *texts: str,
    model: str = "attention_nmt/lstm",
    rows: int = 8,
    weights: str | None = None,
    data: str | None = None,
    seed: int = 0,
    mode: Literal["function", "eager"] | None = None,
    beam_width: int = 4,
    length_penalty_weight: float = 0.0,
    maximum_length: int | None = None,
    processes: Literal[1, 2] = 2,
    output_format: Literal["text", "json"] = "text",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Translate texts with TensorFlow and with Flax, greedily and by beam search.

    Exits with 0 if both give the same tokens, with 1 if they do not.

    Parameters
    ----------
    texts
        What to translate. Without any, texts that the translator was not trained on.
    model
        A translator: `attention_nmt/lstm`, `.../gru`, `.../monotonic` or `.../stacked`.
    rows
        How many texts are drawn.
    weights
        The prefix of a TensorFlow checkpoint, or `random`. By default, trained weights.
    data
        A TSV file with the header `source`, `target`, `locale`, to draw from.
    seed
        The seed of every random choice.
    mode
        How TensorFlow decodes, by default in `tf.function`. tfa's beam search has no kernel for XLA.
    beam_width
        How many beams the search keeps.
    length_penalty_weight
        The exponent of the length penalty; 0 for none.
    maximum_length
        How many characters at most, the end counted as one.
    processes
        2 runs TensorFlow and JAX at the same time; 1 runs them here, one after the other.
    output_format
        A table for people, or JSON for programs, with every beam.
    verbose
        Let the frameworks' messages through, and print tracebacks.
    quiet
        Print the verdict alone.
    """
    from oracle.progress import show_progress
    from oracle.report.terminal import open_terminal
    from oracle.report.translations import print_translations, render_translations_json, render_verdict
    from oracle.runner import InProcess, TwoProcesses
    from oracle.translation import TranslationRequest, translate

    request = TranslationRequest(
        model,
        texts,
        rows,
        weights,
        data,
        seed,
        mode,
        beam_width,
        length_penalty_weight,
        maximum_length,
    )
    runner = InProcess() if processes == 1 else TwoProcesses(verbose=verbose)
    with show_progress("translating", quiet=quiet), runner:
        translations = translate(request, runner)
    if output_format == "json":
        sys.stdout.write(render_translations_json(translations))
    elif quiet:
        print(render_verdict(translations))
    else:
        print_translations(translations, open_terminal())
    sys.stdout.flush()
    return 0 if translations.agree else 1
