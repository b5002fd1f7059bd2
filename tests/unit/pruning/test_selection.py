import itertools
import json
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.order import float_of_key, keys_of, tiebreaks
from corpusmill.pruning.radix import Descent, Histogram
from corpusmill.pruning.selection import (
    Manifest,
    Rows,
    column_values,
    kept_ranks,
    resolve,
    rows_of,
    select,
    single_score_key,
    strata_of,
)
from corpusmill.schema import SCORES


def ids_of(n, prefix="doc"):
    return [f"{prefix}-{i}" for i in range(n)]


def sharded(config, values, ids, strata, cuts):
    edges = [0, *cuts, len(values)]
    parts = [Rows(values[a:b], ids[a:b], None if strata is None else strata[a:b]) for a, b in itertools.pairwise(edges)]
    manifest = resolve(config, lambda: parts)
    return manifest, np.concatenate([manifest.keep(p.values, p.doc_ids, p.strata) for p in parts])


def test_keys_order_like_the_numbers_and_fold_the_two_zeros():
    values = np.array([-np.inf, -1e300, -1.0, -1e-310, -5e-324, 0.0, 5e-324, 1e-310, 1.0, 1e300, np.inf])
    keys = keys_of(values)
    assert (np.diff(keys.astype(object)) > 0).all()
    assert keys_of([-0.0])[0] == keys_of([0.0])[0]
    assert [float_of_key(int(k)) for k in keys] == values.tolist()


@pytest.mark.parametrize(
    ("n", "fraction", "which", "expected"),
    [
        (10, "3/10", "bottom", (0, 3)),
        (10, "3/10", "middle", (3, 6)),
        (10, "3/10", "top", (7, 10)),
        (7, "1/2", "bottom", (0, 4)),  # 3.5 rounds up
        (0, "1/2", "middle", (0, 0)),
        (5, "0", "top", (5, 5)),
        (5, "1", "middle", (0, 5)),
    ],
)
def test_kept_ranks_are_exact(n, fraction, which, expected):
    assert kept_ranks(n, Fraction(fraction), which) == expected


def test_three_tenths_of_ten_million_rows_is_exactly_three_million():
    assert kept_ranks(10_000_000, SelectionConfig(fraction="0.3").keep, "bottom") == (0, 3_000_000)
    assert SelectionConfig(fraction=0.3).fraction == SelectionConfig(fraction="3/10").fraction == "3/10"


@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
def test_the_kept_rows_are_those_of_a_full_sort_for_any_sharding(which):
    rng = np.random.default_rng(0)
    values = np.round(rng.lognormal(size=3001), 1)  # many ties
    values[rng.integers(0, 3001, 50)] = np.nan
    ids = ids_of(3001)
    config = SelectionConfig(fraction="3/10", which=which, seed=7)
    scored = np.flatnonzero(~np.isnan(values))
    order = scored[np.lexsort((tiebreaks([ids[i] for i in scored], 7), values[scored]))]
    lo, hi = kept_ranks(len(scored), Fraction(3, 10), which)
    expected = np.zeros(3001, bool)
    expected[order[lo:hi]] = True
    texts = set()
    for cuts in ([], [1000, 2000], [1, 2, 3, 2999], [500, 500]):
        manifest, mask = sharded(config, values, ids, None, cuts)
        assert np.array_equal(mask, expected)
        texts.add(manifest.to_json())
    assert len(texts) == 1, "the manifest must not depend on the sharding"
    assert (manifest.n_kept, manifest.n_unscored) == (hi - lo, int(np.isnan(values).sum()))


def test_a_descent_by_counts_alone_finds_what_collecting_rows_finds():
    rng = np.random.default_rng(1)
    values = np.where(rng.random(400) < 0.5, 0.0, rng.lognormal(size=400))
    ids = ids_of(400)
    histogram = Histogram.of(values)
    answers = []
    for limit in (0, 1 << 18):
        descent = Descent(histogram, 0, {"*": [10, 150, 399]}, collect=limit)
        passes = 0
        while descent.open:
            halves = [descent.count(values[:150], ids[:150]), descent.count(values[150:], ids[150:])]
            descent.advance(halves[1].merge(halves[0]))
            passes += 1
        answers.append((descent.found, passes))
    assert answers[0][0] == answers[1][0]
    assert (answers[0][1], answers[1][1]) == (7, 1)


def test_a_small_input_needs_one_histogram_and_one_more_pass():
    values, ids = np.arange(100.0), ids_of(100)
    passes = []

    def shards():
        passes.append(1)
        return [Rows(values, ids)]

    resolve(SelectionConfig(fraction="1/2"), shards)
    assert len(passes) == 2


def test_the_fraction_holds_in_every_stratum():
    values = np.concatenate([np.arange(100.0), 1000 + np.arange(50.0), [5.0]])
    strata = ["en"] * 100 + ["de"] * 50 + [None]
    config = SelectionConfig(fraction="1/2", which="bottom", by=("language",))
    manifest, mask = sharded(config, values, ids_of(151), strata, [70, 120])
    assert mask[:100].sum() == 50
    assert mask[100:150].sum() == 25
    assert mask[150], "one row of an unknown language is a stratum of its own: half of one rounds up"
    assert set(manifest.strata) == {"en", "de", ""}


@pytest.mark.parametrize("keep_unscored", [False, True])
def test_rows_without_a_score_are_counted_and_kept_only_on_request(keep_unscored):
    values = np.array([1.0, np.nan, 3.0, np.nan])
    manifest = select(values, ids_of(4), SelectionConfig(fraction="1", keep_unscored=keep_unscored))
    assert manifest.keep(values, ids_of(4)).tolist() == [True, keep_unscored, True, keep_unscored]
    assert (manifest.n_scored, manifest.n_kept, manifest.n_unscored) == (2, 2, 2)


def test_nothing_at_all_can_be_selected_from():
    manifest = select(np.array([]), [], SelectionConfig(fraction="1/2"))
    assert (manifest.n_scored, manifest.n_kept) == (0, 0)
    assert manifest.keep(np.array([]), []).tolist() == []
    empty = select(np.array([]), [], SelectionConfig(fraction="1/2", mode="threshold"))
    assert empty.n_kept == 0


def test_threshold_mode_warns_where_ties_move_the_kept_share(caplog):
    values = np.array([0.0] * 71 + list(np.linspace(0.1, 1, 29)))
    config = SelectionConfig(fraction="3/10", which="bottom", mode="threshold", column="memorization")
    manifest = select(values, ids_of(100), config)
    assert manifest.n_kept == 71
    assert len(manifest.warnings) == 1
    assert "keeps 71.0% of 100 scored rows, not 30.0%" in manifest.warnings[0]
    assert "mode 'rank' keeps the exact share" in caplog.text
    exact = select(values, ids_of(100), SelectionConfig(fraction="3/10", which="bottom"))
    assert (exact.n_kept, exact.warnings) == (30, ())


@pytest.mark.parametrize("method", ["linear", "inverted_cdf"])
@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
def test_thresholds_are_numpys_percentiles(method, which):
    values = np.random.default_rng(3).lognormal(size=237)
    config = SelectionConfig(fraction="3/10", which=which, mode="threshold", percentile=method)
    cuts = select(values, ids_of(237), config).strata["*"]
    low, high = {"bottom": (None, 30), "middle": (35, 65), "top": (70, None)}[which]
    if low is not None:
        assert float_of_key(cuts.lo.key) == pytest.approx(np.percentile(values, low, method=method), rel=1e-14)
    if high is not None:
        assert float_of_key(cuts.hi.key - 1) == pytest.approx(np.percentile(values, high, method=method), rel=1e-14)


def test_inverted_cdf_thresholds_keep_the_same_rows_for_nll_and_perplexity():
    nll = np.random.default_rng(4).normal(3, 1, size=500)
    config = SelectionConfig(fraction="3/10", which="middle", mode="threshold", percentile="inverted_cdf")
    one, other = select(nll, ids_of(500), config), select(np.exp(nll), ids_of(500), config)
    assert np.array_equal(one.keep(nll, ids_of(500)), other.keep(np.exp(nll), ids_of(500)))


def test_frozen_cutoffs_apply_to_a_new_crawl_and_report_drift(tmp_path, caplog):
    old = np.random.default_rng(5).normal(3, 1, 2000)
    frozen = select(old, ids_of(2000), SelectionConfig(fraction="1/2", which="bottom", column="mean_nll"))
    path = tmp_path / "cutoffs.json"
    path.write_text(frozen.to_json())
    new = old[:1000] - 1.0  # easier text
    for source in (str(path), frozen.to_json(), json.loads(frozen.to_json())):
        config = SelectionConfig(fraction="1/2", which="bottom", column="mean_nll", mode="cutoffs", cutoffs=source)
        manifest = select(new, ids_of(1000), config)
        threshold = float_of_key(frozen.strata["*"].hi.key)
        assert manifest.n_kept == int((new < threshold).sum())
        assert "the scores drifted" in manifest.warnings[0]
    assert frozen.keep(np.array([-99.0]), ["x"]).all(), "the bottom is open: a score below the old minimum is kept"


def test_frozen_cutoffs_of_other_scores_are_refused(tmp_path):
    frozen = select(np.arange(10.0), ids_of(10), SelectionConfig(column="el2n")).replaced(score_key="aaaa")
    settings = {"mode": "cutoffs", "cutoffs": frozen.to_json()}
    with pytest.raises(ConfigError, match="column='mean_nll' but the manifest has 'el2n'"):
        select(np.arange(3.0), ids_of(3), SelectionConfig(column="mean_nll", **settings))
    with pytest.raises(ConfigError, match="key 'bbbb' but the manifest was made for 'aaaa'"):
        resolve(SelectionConfig(column="el2n", **settings), list, score_key="bbbb")
    missing = SelectionConfig(mode="cutoffs", cutoffs=str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        select(np.arange(3.0), ids_of(3), missing)


def test_a_stratum_that_frozen_cutoffs_do_not_know_counts_as_unscored():
    frozen = select(np.arange(10.0), ids_of(10), SelectionConfig(fraction="1", by=("language",)), strata=["en"] * 10)
    mask = frozen.keep(np.array([1.0, 1.0]), ids_of(2), ["en", "xx"])
    assert mask.tolist() == [True, False]
    config = SelectionConfig(mode="cutoffs", cutoffs=frozen.to_json(), by=("language",), fraction="1")
    counted = select(np.array([1.0, 1.0]), ids_of(2), config, strata=["en", "xx"])
    assert "xx" not in counted.strata, "the counted manifest must treat the stratum as the frozen one does"
    assert counted.n_unknown == {"xx": 1}
    assert "1 rows of 1 strata that the frozen cut-offs do not know ('xx') are removed" in counted.warnings[0]
    both = select(np.array([1.0, 1.0]), ids_of(2), config.model_copy(update={"keep_unscored": True}), ["en", "xx"])
    assert both.keep(np.array([1.0, 1.0]), ids_of(2), ["en", "xx"]).tolist() == [True, True]


def test_a_manifest_survives_json_and_a_broken_one_is_named():
    manifest = select(np.array([3.0, 1.0, 2.0]), ids_of(3), SelectionConfig(fraction="1/3"))
    assert Manifest.from_json(manifest.to_json()) == manifest
    for broken in ("{}", "no json", '{"strata": {"*": {}}}'):
        with pytest.raises(ConfigError, match=r"selection manifest .* is not readable"):
            Manifest.from_json(broken)


def test_histograms_survive_json():
    histogram = Histogram.of(np.array([1.0, 2.0, np.nan]), ["a", "b", "b"])
    again = Histogram.from_json(json.loads(json.dumps(histogram.to_json())))
    assert again.n_scored == histogram.n_scored == {"a": 1, "b": 1}
    assert again.to_json() == histogram.to_json()


def test_passes_over_other_rows_than_the_histograms_are_an_error():
    histogram = Histogram.of(np.arange(1.0, 2.0, 0.001))
    with pytest.raises(PermanentDataError, match="must see the same rows"):
        resolve(SelectionConfig(fraction="1/2"), lambda: [Rows(np.array([1.5]), ["x"])], first=histogram)


def scores_table(**columns):
    n = len(next(iter(columns.values())))
    base = {"crawl": "c", "warc_file": "w", "unit": "document", "score_key": "k", "n_scored": 4, "n_bytes": 10}
    rows = [
        {**base, "n_tokens": 5, "doc_id": f"d{i}", **{name: values[i] for name, values in columns.items()}}
        for i in range(n)
    ]
    return rows_to_table(rows, SCORES.schema)


def test_score_columns_are_derived_from_the_stored_sums():
    table = scores_table(nll_sum=[8.0, None], el2n_sum=[2.0, None], hits=[1, None], memorization=[0.5, None])
    for column, expected in {
        "mean_nll": 2.0,
        "perplexity": 2.0,
        "bits_per_byte": 8.0 / 10 / np.log(2),
        "el2n": 0.5,
        "teacher_forced_accuracy": 0.25,
        "memorization": 0.5,
        "n_bytes": 10.0,
    }.items():
        values = column_values(table, column)
        assert values[0] == pytest.approx(expected, rel=1e-15)
        if column != "n_bytes":
            assert np.isnan(values[1])
    uniform = column_values(table, "random", seed=5)
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert uniform.tolist() == column_values(table, "random", seed=5).tolist()
    assert uniform.tolist() != column_values(table, "random", seed=6).tolist()


def test_a_column_that_does_not_exist_or_holds_no_numbers_is_named():
    table = scores_table(nll_sum=[1.0])
    with pytest.raises(
        ConfigError, match=r"column='quality' is not a score of this table; expected one of .*bits_per_byte"
    ):
        column_values(table, "quality")
    with pytest.raises(ConfigError, match="a selection needs numbers"):
        column_values(table, "doc_id")


def test_a_stored_nan_is_an_error_and_never_sorted():
    with pytest.raises(PermanentDataError, match="holds NaN in 1 rows"):
        column_values(scores_table(nll_sum=[1.0, float("nan")]), "mean_nll")


def test_scores_with_different_keys_cannot_be_mixed():
    assert single_score_key(["k", "k"]) == "k"
    assert single_score_key([]) == ""
    with pytest.raises(PermanentDataError, match="2 different keys"):
        single_score_key(["a", "b", "a"])


def test_strata_come_from_columns_and_a_missing_column_is_named():
    table = scores_table(nll_sum=[1.0, 2.0], language=["en", None])
    assert strata_of(table, ()) is None
    assert strata_of(table, ("language", "crawl")) == ["en|c", "|c"]
    with pytest.raises(ConfigError, match="'domain'"):
        strata_of(table, ("domain",))
    rows = rows_of(table, SelectionConfig(column="mean_nll", by=("language",)))
    assert (rows.values.tolist(), rows.strata) == ([0.25, 0.5], ["en", ""])


def test_ids_may_be_arrow_arrays_or_lists():
    ids = ids_of(50)
    expected = tiebreaks(ids, 3)
    for form in (pa.array(ids), pa.array(ids, pa.large_string()), pa.chunked_array([ids[:20], ids[20:]])):
        assert np.array_equal(tiebreaks(form, 3), expected)
        assert np.array_equal(tiebreaks(form, 3, np.array([4, 30])), expected[[4, 30]])
    assert not np.array_equal(tiebreaks(ids, 4), expected)
