"""Selection by weight, against a plain sort: fractions of tokens, at any sharding, with rows that weigh nothing."""

import itertools
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.order import float_of_key, tiebreaks
from corpusmill.pruning.radix import Descent, Histogram, Tally
from corpusmill.pruning.score_columns import columns_read, weights_of
from corpusmill.pruning.selection import Rows, kept_ranks, resolve, select


def ids_of(n):
    return [f"doc-{i}" for i in range(n)]


def kept_by_a_sort(values, weights, ids, fraction, which, seed=0):
    """Both ends of the kept range lie at the row edge nearest to their exact place, half way above the row."""
    order = np.lexsort((tiebreaks(ids, seed), values))
    edges = [0, *np.cumsum(weights[order]).tolist()]
    cuts = []
    for place in kept_ranks(edges[-1], Fraction(fraction), which):
        cuts.append(sum(1 for a, b in itertools.pairwise(edges) if a + b <= 2 * place))
    kept = np.zeros(len(values), bool)
    kept[order[cuts[0] : cuts[1]]] = True
    return kept


@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
@pytest.mark.parametrize("fraction", ["1/100", "3/10", "1/2", "99/100"])
def test_a_fraction_of_the_tokens_is_what_a_sort_keeps(which, fraction):
    rng = np.random.default_rng(1)
    values = np.round(rng.lognormal(size=900), 1)
    weights = rng.integers(1, 5000, 900)
    ids = ids_of(900)
    config = SelectionConfig(fraction=fraction, which=which, weight="n_tokens")
    expected = kept_by_a_sort(values, weights, ids, fraction, which)
    parts = [Rows(values[i::7], ids[i::7], None, weights[i::7]) for i in range(7)]
    manifest = resolve(config, lambda: parts)
    assert np.array_equal(manifest.keep(values, ids), expected)
    cuts = manifest.strata["*"]
    assert (cuts.n_kept, cuts.weight_kept) == (int(expected.sum()), int(weights[expected].sum()))
    assert cuts.weight_scored == int(weights.sum())
    ends = 1 if which != "middle" else 2
    assert abs(cuts.weight_kept - weights.sum() * Fraction(fraction)) <= ends * Fraction(int(weights.max()), 2) + 1


def test_equal_weights_keep_the_rows_of_an_unweighted_selection():
    values, ids = np.random.default_rng(2).normal(size=101), ids_of(101)
    plain = select(values, ids, SelectionConfig(fraction="37/100"))
    weighted = select(values, ids, SelectionConfig(fraction="37/100", weight="n_tokens"), weights=np.ones(101, int))
    assert np.array_equal(plain.keep(values, ids), weighted.keep(values, ids))


def test_rows_of_no_weight_stay_with_the_row_below_them():
    values, weights = np.arange(6.0), np.array([0, 4, 0, 4, 0, 0])
    config = SelectionConfig(fraction="1/2", which="bottom", weight="n_tokens")
    assert (
        select(values, ids_of(6), config, weights=weights).keep(values, ids_of(6)).tolist() == [True] * 3 + [False] * 3
    )
    everything = config.model_copy(update={"fraction": "1"})
    assert select(values, ids_of(6), everything, weights=0 * weights).n_kept == 6
    assert select(values, ids_of(6), config, weights=0 * weights).n_kept == 0


def test_weighted_thresholds_are_weighted_percentiles():
    values, weights = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10, 1, 1, 10])
    config = SelectionConfig(
        fraction="1/2", which="bottom", mode="threshold", percentile="inverted_cdf", weight="n_tokens"
    )
    manifest = select(values, ids_of(4), config, weights=weights)
    assert float_of_key(manifest.strata["*"].hi.key - 1) == 2.0  # the first score below which half the tokens lie
    assert manifest.strata["*"].weight_kept == 11
    with pytest.raises(ConfigError, match="nothing to interpolate"):
        SelectionConfig.load({"mode": "threshold", "weight": "n_tokens"})


def test_each_stratum_keeps_its_share_of_the_weight():
    rng = np.random.default_rng(3)
    values, weights, ids = rng.normal(size=400), rng.integers(1, 100, 400), ids_of(400)
    strata = np.array(["a", "b", "c", "d"])[rng.integers(0, 4, 400)]
    config = SelectionConfig(fraction="2/5", which="top", weight="n_bytes", by=("language",))
    manifest = select(values, ids, config, strata.tolist(), weights)
    mask = manifest.keep(values, ids, strata.tolist())
    for name in "abcd":
        here = np.flatnonzero(strata == name)
        expected = kept_by_a_sort(values[here], weights[here], [ids[i] for i in here], "2/5", "top")
        assert np.array_equal(mask[here], expected)


def test_a_descent_by_counts_alone_weighs_like_collecting_rows():
    rng = np.random.default_rng(4)
    values, weights, ids = (
        np.where(rng.random(300) < 0.5, 0.0, rng.normal(size=300)),
        rng.integers(0, 9, 300),
        ids_of(300),
    )
    histogram = Histogram.of(values, None, weights)
    total = int(weights.sum())
    answers = []
    for limit in (0, 1 << 18):
        descent = Descent(histogram, 0, {"*": [1, total // 2, total - 1]}, collect=limit)
        while descent.open:
            parts = [descent.count(values[a:b], ids[a:b], None, weights[a:b]) for a, b in ((0, 90), (90, 300))]
            descent.advance(parts[1].merge(parts[0]))
        answers.append(descent.found)
    assert answers[0] == answers[1]


def test_sums_above_what_float64_counts_stay_exact():
    digits, weights = np.array([7, 7, 9], np.uint64), np.array([1 << 60, 1, 1 << 60])
    tally = Tally.of(digits, weights)
    assert tally.weights.tolist() == [(1 << 60) + 1, 1 << 60]
    many = Tally.of(np.repeat(digits, 2000), np.repeat(weights >> 12, 2000))
    assert many.weights.tolist() == [2000 * (1 << 48), 2000 * (1 << 48)]


def test_weights_come_from_their_column_and_must_be_there():
    table = pa.table({"n_tokens": [3, 0], "text": ["a", "b"]})
    assert weights_of(table, "n_tokens").tolist() == [3, 0]
    assert weights_of(table, "rows") is None
    with pytest.raises(ConfigError, match="weight='n_bytes' is not a column"):
        weights_of(table, "n_bytes")
    with pytest.raises(PermanentDataError, match="null in 1 rows"):
        weights_of(pa.table({"n_tokens": [3, None]}), "n_tokens")
    with pytest.raises(PermanentDataError, match="-2 at least"):
        weights_of(pa.table({"n_tokens": [3, -2]}), "n_tokens")
    assert columns_read(SelectionConfig(weight="n_tokens", by=("language",))) == (
        "doc_id", "score_key", "nll_sum", "n_bytes", "language", "n_tokens",
    )  # fmt: skip
