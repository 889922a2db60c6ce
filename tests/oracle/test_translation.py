"""The translators on their trained weights and real texts: gradients and tokens, on both sides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from oracle import zoo
from oracle.check import Request, check
from oracle.cli import run
from oracle.decoding import DecodeOptions, make_decoding, read_decoding, write_decoding
from oracle.errors import CaseError, UsageError
from oracle.runner import InProcess
from oracle.text import EOS, PAD
from oracle.translation import TranslationRequest, tell_difference, translate

TRANSLATORS = [choice.name for choice in zoo.choose("attention-nmt")]


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
@pytest.mark.parametrize("port", TRANSLATORS)
def test_trained_gradients_match_in_float64(port: str, mode: str) -> None:
    with InProcess() as runner:
        (comparison,) = check(Request((port,), mode=mode), runner)
    assert comparison.matches, comparison.findings
    assert comparison.oracle.weights in (choice.variant.weights.name for choice in zoo.choose(port))
    (loss,) = [row.oracle_value for row in comparison.rows if row.name == "loss"]
    # It has learnt, from some 4.5, and is not so sure that its gradients are rounding errors.
    assert 1e-3 < loss < (0.1 if "dates" in comparison.oracle.data else 1.5)


def count_padding(logits, target, target_length, average):
    import tensorflow as tf
    import tensorflow_addons as tfa

    return tfa.seq2seq.sequence_loss(logits, target, tf.ones_like(logits[:, :, 0]))


def count_one_more(logits, target, target_length, average):
    import tensorflow as tf
    import tensorflow_addons as tfa

    weights = tf.sequence_mask(target_length + 1, target.shape[1], dtype=logits.dtype)
    return tfa.seq2seq.sequence_loss(logits, target, weights)


def average_over_the_batch(logits, target, target_length, average):
    import tensorflow as tf
    import tensorflow_addons as tfa

    weights = tf.sequence_mask(target_length, target.shape[1], dtype=logits.dtype)
    by_step = tfa.seq2seq.sequence_loss(
        logits, target, weights, average_across_timesteps=False, average_across_batch=False
    )
    return tf.reduce_mean(tf.reduce_sum(by_step, axis=1))


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize("wrong_loss", [count_padding, count_one_more, average_over_the_batch])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_a_wrong_mask_of_the_loss_is_found_on_the_default_data(
    wrong_loss: Callable, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tf_models import attention_nmt

    monkeypatch.setattr(attention_nmt, "masked_loss", wrong_loss)
    with InProcess() as runner:
        request = Request(("attention_nmt/lstm",), mode="eager", batch_size=batch_size)
        (comparison,) = check(request, runner)
    statuses = {row.name: row.status for row in comparison.rows}
    assert statuses["loss"] == statuses["gradient/decoder/output_layer/bias"] == "mismatch"
    assert statuses["output/logits"] == "match"


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize(
    "port, mode, right",
    [
        ("attention_nmt/lstm", "function", 90),
        ("attention_nmt/lstm", "eager", 90),
        ("attention_nmt/gru", "function", 90),
        ("attention_nmt/monotonic", "eager", 3),
        ("attention_nmt/stacked", "function", 5),
    ],
)
def test_held_out_texts_are_translated_alike(port: str, mode: str, right: int) -> None:
    request = TranslationRequest(port, rows=100, mode=mode, length_penalty_weight=0.6)
    with InProcess() as runner:
        translations = translate(request, runner)
    assert translations.agree, [row for row in translations.rows if not row.agrees]
    assert sum(row.expected in row.greedy for row in translations.rows) >= right
    assert sum(row.expected == row.beams[0][0] for row in translations.rows) >= right
    assert all(len(set(row.beams[0])) > 1 for row in translations.rows)


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_beams_may_be_more_than_the_vocabulary_has_tokens() -> None:
    request = TranslationRequest(texts=("3 mars 1987", "5.7.2031"), beam_width=20)
    with InProcess() as runner:
        translations = translate(request, runner)
    assert translations.agree
    assert [len(row.beams[0]) for row in translations.rows] == [20, 20]
    assert translations.rows[0].beams[0][0] == "1987-03-03"


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_a_port_that_decodes_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from tf_models.attention_nmt import AttentionNMT

    rightly = AttentionNMT.greedy_decode

    def confuse(self: AttentionNMT, source: tf.Tensor, *arguments: object, **options: object) -> object:
        return rightly(self, tf.reverse(source, [0]), *arguments, **options)

    monkeypatch.setattr(AttentionNMT, "greedy_decode", confuse)
    request = TranslationRequest(texts=("3.3.1987", "5.7.2031"), mode="eager")
    with InProcess() as runner:
        translations = translate(request, runner)
    assert not translations.agree
    assert translations.rows[0].greedy == ("2031-07-05", "1987-03-03")
    assert translations.rows[0].differs == "greedily, token 1"


def test_the_first_token_that_differs_is_named_and_what_follows_an_end_plays_no_part() -> None:
    options = DecodeOptions(maximum_iterations=5, beam_width=2)
    greedy, beams = np.asarray([[5, 6, EOS, 7]]), np.asarray([[[5, 6], [6, 5], [EOS, 7], [8, EOS]]])
    first = make_decoding(greedy, beams, options)

    def tell(place: tuple[int, ...], token: int, what: str) -> str:
        changed = {"greedy": greedy.copy(), "beams": beams.copy()}
        changed[what][place] = token
        return tell_difference(first, make_decoding(**changed, options=options), 0)

    assert tell((0, 3), 9, "greedy") == ""
    assert tell((0, 3, 0), 9, "beams") == ""
    assert tell((0, 1), 9, "greedy") == "greedily, token 2"
    assert tell((0, 2, 1), 8, "beams") == "beam 2, token 3"
    # A beam that has ended on one side alone is named so.
    assert tell((0, 2, 0), 9, "beams") == "beam 1, token 3, where TensorFlow's ends"
    assert tell((0, 1, 1), EOS, "beams") == "beam 2, token 2, where Flax's ends"


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_decode_prints_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--processes", "1", "--mode", "eager"]
    assert run(["decode", "3 mars 1987", *options]) == 0
    said = capsys.readouterr().out
    assert "1987-03-03" in said
    assert "PASS attention_nmt/lstm: 1 of 1 translated alike" in said
    assert run(["decode", "--rows", "2", "--output-format", "json", *options]) == 0
    written = json.loads(capsys.readouterr().out)
    assert [row["agrees"] for row in written["rows"]] == [True, True]
    assert all(len(row["beams"]["flax"]) == 4 for row in written["rows"])


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_a_translator_is_trained_and_its_checkpoint_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = ["source\ttarget\tlocale"] + [f"{day}.3.1987\t1987-03-{day}\tde" for day in range(10, 30)]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs) + "\n")
    weights, data = str(tmp_path / "model"), ["--data", str(tmp_path / "pairs.tsv")]
    training = ["--steps", "2", "--output", weights, "--batch-size", "4", "--weight-decay", "0.1", *data]
    assert run(["train", "attention_nmt/gru", *training]) == 0
    assert "of 2 held-out pairs translated rightly" in capsys.readouterr().out
    options = ["--weights", weights, "--batch-size", "3", "--mode", "eager", "--processes", "1", *data]
    assert run(["compare", "attention-nmt/gru", *options]) == 0
    said = capsys.readouterr().out
    assert f"weights: {weights}; data: {data[1]}" in said
    assert "PASS attention_nmt/gru" in said


@pytest.mark.parametrize(
    "options, kind, said",
    [
        (
            {"model": "dynamic_rnn"},
            UsageError,
            "dynamic_rnn/full is no translator; choose from attention_nmt",
        ),
        ({"model": "attention_nmt"}, UsageError, "is several translators; choose one of"),
        ({"seed": -1}, UsageError, "seed -1"),
        ({"weights": ""}, UsageError, "path of the weights is empty"),
        ({"beam_width": 1001}, UsageError, "a number from 1 to 1000"),
        ({"model": "attention-nmt/gruu"}, UsageError, "did you mean 'attention_nmt/gru'"),
        ({"mode": "xla"}, UsageError, "no decoding in mode 'xla'"),
        ({"texts": ("a", "")}, UsageError, "empty"),
        ({"rows": 0}, UsageError, "nothing to translate"),
        ({"rows": 301}, UsageError, "there are 300 pairs"),
        ({"beam_width": 0}, UsageError, "beam_width is 0"),
        ({"maximum_length": 0}, UsageError, "maximum length is 0"),
        ({"length_penalty_weight": -1.0}, UsageError, "length_penalty_weight is -1"),
        ({"length_penalty_weight": float("nan")}, UsageError, "length_penalty_weight is nan"),
        ({"data": "none.tsv"}, CaseError, "none.tsv"),
    ],
)
def test_bad_requests_are_refused_before_a_framework_is_imported(
    options: dict, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said), InProcess() as runner:
        translate(TranslationRequest(**options), runner)


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_characters_that_are_not_known_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["decode", "3€1987", "--mode", "eager", "--processes", "1"]) == 0
    assert "3€1987: the translator does not know €" in capsys.readouterr().out


@pytest.mark.tf
@pytest.mark.jax
@pytest.mark.slow
def test_a_closed_pipe_is_no_finding() -> None:
    decode = [sys.executable, "-m", "oracle", "decode", "3.3.1987", "--mode", "eager"]
    process = subprocess.Popen(decode, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(timeout=300) == 141
    process.stderr.close()


def test_what_follows_the_end_is_cut() -> None:
    options = DecodeOptions(maximum_iterations=4)
    greedy = np.array([[5, EOS, 7], [6, 7, 8]])
    beams = np.array([[[5], [6], [7], [8]], [[EOS], [5], [EOS], [9]]])
    decoding = make_decoding(greedy, beams, options)
    assert decoding.greedy.tolist() == [[5, EOS, PAD, PAD], [6, 7, 8, EOS]]
    assert decoding.beams[:, :, 0].tolist() == [[5, 6, 7, 8], [EOS, PAD, PAD, PAD]]


def test_a_decoding_survives_a_file(tmp_path) -> None:
    rng = np.random.default_rng(0)
    decoding = make_decoding(
        rng.integers(3, 9, (2, 5)), rng.integers(3, 9, (2, 5, 3)), DecodeOptions(maximum_iterations=5)
    )
    write_decoding(decoding, tmp_path / "decoding.safetensors")
    read = read_decoding(tmp_path / "decoding.safetensors")
    assert np.array_equal(read.greedy, decoding.greedy)
    assert np.array_equal(read.beams, decoding.beams)
