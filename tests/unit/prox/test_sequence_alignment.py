"""Alignment: passages before scattered words, unique passages as cuts, a budget for the rest."""

from corpusmill.prox.sequence_alignment import align


def test_a_menu_word_is_not_taken_for_the_article():
    page = ["news", "home", "news", "of", "the", "day", "more"]
    assert align(page, page[2:6]) == [(2, 0), (3, 1), (4, 2), (5, 3)]


def test_passages_win_over_more_scattered_matches_unless_most_matches_are_wanted():
    page, text = list("p-q-r-s-t-pqrs"), list("pqrst")
    assert align(page, text) == [(10, 0), (11, 1), (12, 2), (13, 3)]
    assert align(page, text, most_matches=True) == [(0, 0), (2, 1), (4, 2), (6, 3), (8, 4)]


def test_long_sequences_are_cut_at_passages_that_are_unique_in_both():
    page = [f"w{n}" for n in range(3000)]
    text = page[200:900] + page[2000:2900]
    pairs = align(page, text, max_cells=1000)
    assert [i for i, _ in pairs] == [*range(200, 900), *range(2000, 2900)]


def test_what_is_over_the_budget_stays_unmatched():
    assert align(["a", "b"] * 50, ["b", "a", "c"] * 50, max_cells=10) == []
    assert align(["x"] * 50, ["x"] * 20, max_cells=10) == [(n, n) for n in range(20)], "ends need no budget"


def test_empty_sequences():
    assert align([], ["a"]) == align(["a"], []) == align([], []) == []
