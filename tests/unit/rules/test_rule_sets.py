"""The measures of C4, Gopher and FineWeb on small texts, with the traps that the definitions hold."""

import pytest

from corpusmill.rules import c4, fineweb, gopher_quality, gopher_repetition
from corpusmill.rules.c4 import LineRules
from corpusmill.rules.segment import Segmenter


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter()


@pytest.fixture
def rewrite(segmenter):
    def run(text, **rules):
        return c4.rewrite(text, LineRules(**rules), segmenter.n_sentences)

    return run


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("Three words here.", "Three words here."),
        ("Two words.", None),
        ("No mark at the end", None),
        ("It goes on and on...", None),
        ('He said "it is so"', 'He said "it is so"'),
        ("A fact of note.[1]", "A fact of note."),
        ("A fact of note. [1]", None),
        ("A fact [12] and [edit] more[citation needed].", "A fact  and  more."),
        ("Please enable JavaScript to go on.", None),
        ("We are proud of our Privacy Policy here.", None),
        ("This site uses cookies for you.", None),
        ("Here is " + "x" * 1001 + ".", None),
        ("  padded line of text.  ", "padded line of text."),
    ],
)
def test_c4_keeps_and_cleans_lines(rewrite, line, kept):
    assert rewrite(line).text == (kept or "")


def test_c4_without_the_end_rule_keeps_lines_without_marks(rewrite):
    assert rewrite("no mark at the end", need_end_punctuation=False).text == "no mark at the end"


def test_c4_reports_the_first_line_that_would_drop_the_document(rewrite):
    measures = rewrite("First line of it.\nA { in a sentence here.\nSome Lorem Ipsum in a line.").measures
    assert (measures["c4_curly_bracket_line"], measures["c4_lorem_ipsum_line"]) == (2, 3)


def test_c4_ignores_a_curly_bracket_in_a_line_that_is_removed_before(rewrite):
    assert rewrite("{ short\nuse javascript { here and now.").measures["c4_curly_bracket_line"] == 0


def test_c4_splits_lines_at_every_line_boundary(rewrite):
    assert rewrite("One two three.\x0bFour five six.\u2028Seven eight nine.").measures["c4_n_lines"] == 3


def test_gopher_quality_counts_blank_lines_and_case_sensitive_stop_words(segmenter):
    text = "- The be\n\n\u2022 to and...\n# of"
    measures = gopher_quality.line_measures(text) | gopher_quality.word_measures(text, segmenter.words(text))
    assert measures["gopher_quality_bullet_line_ratio"] == 2 / 4
    assert measures["gopher_quality_end_ellipsis_line_ratio"] == 1 / 4
    assert measures["gopher_quality_n_stop_words"] == 4
    assert measures["gopher_quality_hash_ratio"] == 1 / 9


def test_ellipses_do_not_overlap(segmenter):
    text = "a .... \u2026 b"
    assert gopher_quality.word_measures(text, segmenter.words(text))["gopher_quality_ellipsis_ratio"] == 2 / 4


def test_paragraphs_are_stripped_and_lines_are_not():
    measures = gopher_repetition.line_measures("\nsame\n\nsame\n")
    assert measures["gopher_repetition_dup_para_frac"] == 1 / 2
    assert measures["gopher_repetition_dup_line_frac"] == 2 / 4
    assert measures["gopher_repetition_dup_line_char_frac"] == 4 / 12


def test_the_top_n_gram_is_the_first_of_the_most_frequent():
    words = ["bb", "c", "bb", "c", "dddd", "e", "dddd", "e"]
    measures = gopher_repetition.n_gram_measures("x" * 100, words)
    assert measures["gopher_repetition_top_2_gram"] == 2 * len("bb c") / 100


def test_a_short_text_without_repetition_has_a_large_top_n_gram():
    words = ["one", "two", "three", "four", "five", "."]
    measures = gopher_repetition.n_gram_measures("one two three four five.", words)
    assert measures["gopher_repetition_top_2_gram"] > 0.2


def test_repeated_n_grams_compare_concatenated_words():
    words = ["a", "bc", "d", "e", "f", "ab", "c", "d", "e", "f"]
    assert gopher_repetition.n_gram_measures("x" * 10, words)["gopher_repetition_dup_5_grams"] == 6 / 10


def test_fineweb_ignores_blank_lines_but_does_not_strip():
    measures = fineweb.line_measures("End.\n \nEnd. \nEnd.\r\n")
    assert measures["fineweb_n_lines"] == 3
    assert measures["fineweb_line_punct_ratio"] == 1 / 3
    assert measures["fineweb_short_line_ratio"] == 1.0
    assert fineweb.line_measures("same\nsame")["fineweb_char_dup_ratio"] == 4 / 8
    assert fineweb.word_measures("a\nb", 2) == {"fineweb_list_ratio": 0.5}


def test_measures_of_an_empty_text_are_null_or_zero(segmenter):
    words = segmenter.words("")
    measures = {
        **gopher_quality.line_measures(""),
        **gopher_quality.word_measures("", words),
        **gopher_repetition.line_measures(""),
        **gopher_repetition.n_gram_measures("", []),
        **fineweb.line_measures(""),
        **fineweb.word_measures("", 0),
    }
    assert set(measures.values()) == {None, 0.0}
