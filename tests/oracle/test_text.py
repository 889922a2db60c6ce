from __future__ import annotations

import re

import numpy as np
import pytest

from oracle.errors import CaseError
from oracle.text import (
    BOS,
    EOS,
    PAD,
    UNK,
    TextPair,
    Vocabulary,
    build_vocabularies,
    dates,
    draw_batch,
    encode_batch,
    names,
    read_pairs,
    split_pairs,
)

PAIRS = (TextPair("ab", "xyz", "de"), TextPair("b", "y", "fr"), TextPair("cab", "zz", "en"))


def test_the_dates_are_dates_and_no_text_stands_for_two():
    pairs = dates()
    assert len(pairs) > 2900
    assert all(re.fullmatch(r"(19[5-9]|20[0-4])\d-(0[1-9]|1[0-2])-[0-3]\d", pair.target) for pair in pairs)
    assert len({pair.source for pair in pairs}) == len(pairs)
    assert TextPair("28 décembre 1962", "1962-12-28", "fr") in pairs


def test_the_names_are_there():
    assert TextPair("Swedish", "Schwedisch", "de") in names()
    assert len({pair.source for pair in names()}) == len(names()) > 1300


def test_a_vocabulary_encodes_and_decodes():
    vocabularies = build_vocabularies(PAIRS)
    assert (vocabularies.source.characters, vocabularies.target.characters) == ("abc", "xyz")
    assert len(vocabularies.source) == 7
    assert vocabularies.source.encode("ca?") == [6, 4, UNK]
    assert vocabularies.source.decode([BOS, 6, 4, UNK, EOS, 5]) == "ca\N{REPLACEMENT CHARACTER}"
    for pair in PAIRS:
        assert vocabularies.target.decode(vocabularies.target.encode(pair.target)) == pair.target


def test_a_batch_is_padded_and_its_lengths_count_the_end():
    batch = encode_batch(PAIRS, build_vocabularies(PAIRS), source_time=4)
    assert batch["source"].tolist() == [[4, 5, PAD, PAD], [5, PAD, PAD, PAD], [6, 4, 5, PAD]]
    assert batch["source_length"].tolist() == [2, 1, 3]
    assert batch["target"].tolist() == [
        [BOS, 4, 5, 6, EOS],
        [BOS, 5, EOS, PAD, PAD],
        [BOS, 6, 6, EOS, PAD],
    ]
    assert batch["target_length"].tolist() == [4, 2, 3]
    assert all(array.dtype == np.int32 for array in batch.values())


def test_a_batch_is_drawn_by_its_seed():
    vocabularies, pairs = build_vocabularies(dates()), dates()
    one = draw_batch(pairs, vocabularies, seed=3, batch_size=8)
    again = draw_batch(pairs, vocabularies, seed=3, batch_size=8)
    other = draw_batch(pairs, vocabularies, seed=4, batch_size=8)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["target"], other["target"])


def test_pairs_are_split():
    train, held_out = split_pairs(dates(), held_out=300)
    assert len(held_out) == 300
    assert {*train, *held_out} == {*dates()}
    assert len(train) + 300 == len(dates())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: expected the header"),
        ("source\ttarget\n", "line 1: expected the header"),
        ("source\ttarget\tlocale\n", "no pairs"),
        ("source\ttarget\tlocale\na\tb\n", "line 2: 2 columns"),
        ("source\ttarget\tlocale\na\tb\tde\n\tb\tde\n", "line 3: the source is empty"),
        ("source\ttarget\tlocale\na\tb\tde\n\n", "line 3: 1 columns"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "pairs.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CaseError, match=f"pairs.tsv: {message}"):
        read_pairs(path)


def test_an_absent_or_undecodable_file_is_named(tmp_path):
    with pytest.raises(CaseError, match="absent.tsv: cannot be read"):
        read_pairs(tmp_path / "absent.tsv")
    (tmp_path / "latin.tsv").write_bytes("source\ttarget\tlocale\nä\tb\tde\n".encode("latin-1"))
    with pytest.raises(CaseError, match="latin.tsv: cannot be read"):
        read_pairs(tmp_path / "latin.tsv")


def test_bad_requests_say_what_is_wrong():
    vocabularies = build_vocabularies(PAIRS)
    with pytest.raises(CaseError, match="a source of 3 tokens, more than the 2 steps"):
        encode_batch(PAIRS, vocabularies, source_time=2)
    with pytest.raises(CaseError, match="batch size 4 of 3 pairs"):
        draw_batch(PAIRS, vocabularies, seed=0, batch_size=4)
    with pytest.raises(CaseError, match="held_out 3 of 3"):
        split_pairs(PAIRS, held_out=3)
    with pytest.raises(CaseError, match="no token 9"):
        vocabularies.source.decode([9])
    with pytest.raises(CaseError, match="more than once"):
        Vocabulary("aba")
    with pytest.raises(CaseError, match="no pairs"):
        build_vocabularies([])
