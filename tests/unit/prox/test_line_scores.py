"""Scores of removed lines: hand-counted values, unsure lines left out."""

import numpy as np
import pytest

from corpusmill.prox.labelled_pages import LabelledPage
from corpusmill.prox.line_scores import macro_scores, micro_scores


def page(lines, labels):
    return LabelledPage("id", "d", "human", tuple(lines), np.array(labels, dtype=np.int8))


def test_scores_equal_a_count_by_hand():
    # kept: aaaa (hit), bb (wrongly removed); removed: c (hit), dddd (wrongly kept); e is unsure
    scores = micro_scores(
        [page(["aaaa", "bb", "c", "dddd", "e"], [0, 0, 1, 1, -1])], [np.array([False, True, True, False, True])]
    )
    assert scores.keep_f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert scores.remove_f1 == pytest.approx(0.5)
    assert scores.char_f1 == pytest.approx(2 * 4 / (2 * 4 + 4 + 2))


def test_remove_everything_scores_nothing_on_kept_lines():
    scores = micro_scores([page(["a"] * 10, [1] * 9 + [0])], [np.ones(10, dtype=bool)])
    assert scores.keep_f1 == 0.0
    assert scores.remove_f1 > 0.9


def test_macro_weighs_a_short_page_like_a_long_one():
    pages = [page(["a"] * 100, [0] * 100), page(["b"], [0])]
    removed = [np.zeros(100, dtype=bool), np.ones(1, dtype=bool)]
    assert macro_scores(pages, removed).keep_f1 == pytest.approx(0.5)
    assert micro_scores(pages, removed).keep_f1 > 0.99


def test_a_page_with_nothing_to_remove_and_nothing_removed_is_perfect():
    assert macro_scores([page(["a"], [0])], [np.zeros(1, dtype=bool)]).remove_f1 == 1.0
    assert macro_scores([], []).n_pages == 0
