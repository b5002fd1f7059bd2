"""Words and sentences are those of spaCy's English tokenizer and sentencizer."""

import time

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.rules import english_tokens, segment
from corpusmill.rules.segment import Segmenter


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter()


@pytest.fixture(scope="module")
def pipeline():
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return nlp


def test_words_are_spacys_tokens_without_whitespace(segmenter):
    text = "Don't stop\u2014cannot, gonna im a.m. 1,234.5 e-mail"
    assert segmenter.words(text).words == [
        "Do",
        "n't",
        "stop",
        "—",
        "cannot",
        ",",
        "gon",
        "na",
        "i",
        "m",
        "a.m.",
        "1,234.5",
        "e",
        "-",
        "mail",
    ]


def test_sums_count_words_that_are_no_symbols_and_words_with_letters(segmenter):
    words = segmenter.words("one 22 -- \uff11 #")
    assert words.words == ["one", "22", "--", "\uff11", "#"]
    assert (words.n_named, words.n_named_chars, words.n_alpha) == (2, 5, 1)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 1),
        ("   ", 1),
        ("One. Two.", 2),
        ("One.\nTwo", 2),
        ("One.  Two", 2),
        ("One. ", 1),
        ("One.\n", 2),
        ('He said "no." Then left.', 2),
        ("Wait... what?! Yes.", 2),
    ],
)
def test_sentences_are_counted_as_the_sentencizer_does(segmenter, text, n):
    assert segmenter.n_sentences(text) == n


PIECES = st.sampled_from(
    ["a", "The", "end.", ".", "!", "?", '"', ")", ":)", "U.S.", "...", "1.5", "\u3002", "\u2026", "'s"]
)
GAPS = st.sampled_from([" ", "", "  ", "\n", "\t", "\u00a0", " \n", "\u3000", "\x1c"])


@given(st.lists(st.tuples(PIECES, GAPS), max_size=30))
@settings(max_examples=300, deadline=None)
def test_words_and_sentences_equal_spacys_pipeline(segmenter, pipeline, parts):
    text = "".join(piece + gap for piece, gap in parts)
    document = pipeline(text)
    assert segmenter.words(text).words == [t.text.strip() for t in document if t.text.strip()]
    assert segmenter.n_sentences(text) == max(1, sum(1 for _ in document.sents))
    assert segmenter.n_words(text) == len(segmenter.words(text).words)


def test_a_full_memory_changes_no_result(monkeypatch):
    monkeypatch.setattr(segment, "MEMO_CHUNKS", 4)
    monkeypatch.setattr(english_tokens, "RELOAD_AFTER", 12)
    text = "One can't know. Two don't care! Three shouldn't?"
    small = Segmenter()
    results = {(tuple(small.words(text).words), small.n_sentences(text)) for _ in range(3)}
    fresh = Segmenter()
    assert results == {(tuple(fresh.words(text).words), fresh.n_sentences(text))}


def test_the_name_that_spacy_refuses_is_dropped_as_the_reference_does(segmenter):
    assert segmenter.words("x IS_ALPHA (IS_ALPHA).").words == ["x", "(", ")", "."]
    assert segmenter.words("x ORTH_IS_ALPHA").words == ["x", "ORTH_IS_ALPHA"]


def test_long_runs_of_punctuation_are_cut_instead_of_costing_quadratic_time(segmenter):
    text = "!?,;" * 50_000
    started = time.process_time()
    assert len(segmenter.words(text).words) == 200_000
    assert time.process_time() - started < 20  # spaCy needs hours; a bound on the kind, not on the speed


def test_lone_surrogates_are_tokenised_as_replacement_characters(segmenter):
    assert segmenter.words("a \ud800 b").words == ["a", "\ufffd", "b"]
