"""Features of lines: stable values, defined on every text, windows see what a shorter text would see."""

import numpy as np
import pytest

from corpusmill.prox.line_features import (
    N_LOCAL,
    SCALARS,
    bucket_ids,
    line_features,
    nonblank,
    tokens_of,
)

BOUNDARY = {
    "no line": [],
    "empty line": [""],
    "one character": ["a"],
    "nul": ["\x00"],
    "lone surrogate": ["\ud800 word"],
    "right to left": ["\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd"],
    "cjk": ["\u4e2d\u6587\u5b57\u3002", "\ud55c\uad6d\uc5b4"],
    "astral": ["\U0001f600 \U00020000"],
    "only marks": ["|||", "- - -"],
    "carriage return": ["a\rb"],
}


@pytest.mark.parametrize("lines", BOUNDARY.values(), ids=BOUNDARY.keys())
def test_features_are_finite_and_complete_on_boundary_texts(lines):
    features = line_features(lines)
    scalars = features.scalars()
    assert scalars.shape == (len(lines), len(SCALARS))
    assert features.local.shape == (len(lines), N_LOCAL)
    assert np.isfinite(scalars).all()
    assert len(features.offsets) == len(lines) + 1
    assert features.offsets[-1] == len(features.words)


def test_a_line_of_ten_megabytes_costs_a_bounded_number_of_words():
    features = line_features(["word, " * 1_700_000])
    assert len(features.words) < 100
    assert np.isfinite(features.scalars()).all()


def test_feature_values_are_those_that_the_shipped_weights_were_trained_on():
    features = line_features(["Read more: https://example.org", "He left in 1999, at 8 o'clock."])
    values = dict(zip(SCALARS, features.scalars()[1].tolist(), strict=True))
    assert values["ends_sentence"] == 1.0
    assert values["digit_share"] == pytest.approx(5 / 30)
    assert values["log_words"] == pytest.approx(np.log1p(7))
    assert values["log_lines"] == pytest.approx(np.log1p(2))
    assert features.scalars()[0, SCALARS.index("has_link")] == 1.0
    # CRC-32 of the tokens: a change here makes every stored model useless
    assert features.words[: features.offsets[1]].tolist()[:2] == [0x98574167, 0x8B52F27C]
    assert tokens_of("He left in 1999") == ["he", "left", "in", "0000"]


def test_a_window_has_the_features_of_the_same_lines_alone():
    lines = ["Home", "A first sentence stands here.", "Home", "About us", "Contact"]
    window, alone = line_features(lines).window(1, 4), line_features(lines[1:4])
    assert np.array_equal(window.scalars(), alone.scalars())
    assert np.array_equal(window.words, alone.words)
    assert np.array_equal(window.offsets, alone.offsets)
    assert np.array_equal(window.edges, alone.edges)


def test_duplicates_are_counted_within_the_window_only():
    column = SCALARS.index("duplicate")
    features = line_features(["Home", "Text", "Home"])
    assert features.scalars()[:, column].tolist() == [1.0, 0.0, 1.0]
    assert features.window(1, 3).scalars()[:, column].tolist() == [0.0, 0.0]


def test_surrounding_white_space_changes_nothing():
    a, b = line_features(["  Some words here. \t"]), line_features(["Some words here."])
    assert np.array_equal(a.scalars(), b.scalars())
    assert np.array_equal(a.words, b.words)


def test_bucket_ids_keep_row_zero_for_no_token():
    rows = bucket_ids(np.array([0, 1, 12345, 2**32 - 1], dtype=np.uint32), 64)
    assert rows[0] == 0
    assert ((rows[1:] >= 1) & (rows[1:] < 64)).all()


def test_nonblank_lists_the_lines_with_text():
    assert nonblank(["", "a", " \t", "b", "\u3000"]) == [1, 3]
