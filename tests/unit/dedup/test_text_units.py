"""Units of a text: their places, when two are equal, what is left without some."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.dedup.text_units import unit_digest, unit_spans, without_units

TEXTS = st.text(st.sampled_from(list("ab \n\t\u2028\u00a0\x0c")), max_size=60)


def units(text: str, unit: str) -> list[str]:
    return [text[span.start : span.end] for span in unit_spans(text, unit)]


@pytest.mark.parametrize(
    ("text", "lines", "paragraphs"),
    [
        ("", [], []),
        ("\n \n\t\n", [], []),
        ("a", ["a"], ["a"]),
        ("a\nb\n\nc", ["a", "b", "c"], ["a\nb", "c"]),
        ("\n a\n  \nb \n", [" a", "b "], [" a", "b "]),
        ("a\n\n\n\nb\nc", ["a", "b", "c"], ["a", "b\nc"]),
        ("a\u2028b\rc", ["a\u2028b\rc"], ["a\u2028b\rc"]),
    ],
)
def test_only_a_line_break_ends_a_line_and_only_a_blank_line_a_paragraph(text, lines, paragraphs):
    assert units(text, "line") == lines
    assert units(text, "paragraph") == paragraphs


def test_equal_units_differ_in_white_space_only():
    same = {unit_digest(text, 2) for text in ("one two", " one\ttwo ", "one\n  two", "one\u00a0two")}
    assert len(same) == 1
    assert same != {unit_digest("One two", 2)}
    assert same != {unit_digest("onetwo x", 2)}


def test_units_of_too_few_words_have_no_digest():
    assert unit_digest("one two", 3) is None
    assert unit_digest("one two three", 3) is not None
    assert unit_digest("", 1) is None


@pytest.mark.parametrize(
    ("text", "removed", "left"),
    [
        ("a\nb\nc", [1], "a\nc"),
        ("a\n\nb\n\nc", [1], "a\n\nc"),
        ("a\n\nb\n\nc", [0], "b\n\nc"),
        ("a\n\nb\n\nc\n", [2], "a\n\nb"),
        ("a\nb\nc", [1, 2], "a"),
        ("a\nb\n  c", [0, 1], "  c"),
        ("a \n\nb\n", [], "a \n\nb\n"),
        ("a\nb", [0, 1], ""),
    ],
)
def test_what_is_left_stands_as_far_apart_as_it_did(text, removed, left):
    spans = list(unit_spans(text, "line"))
    assert without_units(text, [spans[n] for n in removed]) == left


@given(TEXTS, st.sampled_from(["line", "paragraph"]), st.sets(st.integers(0, 20)))
def test_exactly_the_other_units_are_left_in_order(text, unit, removed):
    spans = list(unit_spans(text, unit))
    left = without_units(text, [span for n, span in enumerate(spans) if n in removed])
    wanted = [found.strip() for n, found in enumerate(units(text, unit)) if n not in removed]
    assert [found.strip() for found in units(left, unit)] == wanted


@given(TEXTS, st.sampled_from(["line", "paragraph"]))
def test_spans_are_in_order_and_hold_all_but_white_space(text, unit):
    spans = list(unit_spans(text, unit))
    bounds = [bound for span in spans for bound in span]
    assert bounds == sorted(set(bounds))
    assert "".join("".join(units(text, unit)).split()) == "".join(text.split())
