"""What holds for every selection, whatever the scores, the fraction and the sharding."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.order import keys_of, random_scores
from corpusmill.pruning.selection import Rows, kept_ranks, resolve, select

WHICH = st.sampled_from(["bottom", "middle", "top"])
FRACTIONS = st.fractions(min_value=0, max_value=1, max_denominator=1000)
FEW_VALUES = st.sampled_from([0.0, -0.0, 0.5, 1.0, 5e-324, -1e-310, float("inf"), float("-inf"), 2.0])
SCORES = st.lists(st.one_of(FEW_VALUES, st.floats(allow_nan=True), st.floats(0, 10)), max_size=60)


def ids_of(n):
    return [f"doc-{i}" for i in range(n)]


def kept_ids(values, config, ids):
    values = np.array(values, dtype=np.float64)
    mask = select(values, ids, config).keep(values, ids)
    return {name for name, keep in zip(ids, mask, strict=True) if keep}


@settings(deadline=None, max_examples=150)
@given(values=SCORES, fraction=FRACTIONS, which=WHICH)
def test_exactly_k_rows_are_kept(values, fraction, which):
    scored = sum(not np.isnan(v) for v in values)
    lo, hi = kept_ranks(scored, fraction, which)
    assert 2 * (hi - lo) * fraction.denominator - 2 * scored * fraction.numerator in range(
        -fraction.denominator + 1, fraction.denominator + 1
    )
    assert len(kept_ids(values, SelectionConfig(fraction=str(fraction), which=which), ids_of(len(values)))) == hi - lo


@settings(deadline=None, max_examples=100)
@given(values=SCORES, fraction=FRACTIONS, which=WHICH, data=st.data())
def test_no_permutation_and_no_sharding_changes_the_kept_ids(values, fraction, which, data):
    config = SelectionConfig(fraction=str(fraction), which=which, seed=3)
    ids = ids_of(len(values))
    expected = kept_ids(values, config, ids)
    order = data.draw(st.permutations(range(len(values))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    edges = [0, *cuts, len(values)]
    shards = [
        Rows(np.array([values[i] for i in order[a:b]], dtype=np.float64), [ids[i] for i in order[a:b]])
        for a, b in zip(edges, edges[1:], strict=False)  # noqa: RUF007 - the pairs may be empty
    ]
    manifest = resolve(config, lambda: reversed(shards))
    found = {
        name
        for shard in shards
        for name, keep in zip(shard.doc_ids, manifest.keep(shard.values, shard.doc_ids), strict=True)
        if keep
    }
    assert found == expected
    assert manifest.to_json() == select(np.array(values, dtype=np.float64), ids, config).to_json()


@settings(deadline=None, max_examples=100)
@given(
    values=SCORES,
    fraction=FRACTIONS,
    which=st.sampled_from(["bottom", "top"]),
    mode=st.sampled_from(["rank", "threshold", "sample"]),
    weighted=st.booleans(),
    data=st.data(),
)
def test_every_mode_and_weight_keeps_the_same_ids_for_any_sharding(values, fraction, which, mode, weighted, data):
    values = [v for v in values if abs(v) < 1e100 or v != v] if mode == "sample" else values
    changes = {"percentile": "inverted_cdf"} if mode == "threshold" else {}
    weight = "n_tokens" if weighted else "rows"
    config = SelectionConfig(fraction=str(fraction), which=which, mode=mode, weight=weight, by=("language",), **changes)
    n, ids = len(values), ids_of(len(values))
    weights = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), dtype=np.int64)
    strata = [f"s{i % 3}" for i in range(n)]
    scores = np.array(values, dtype=np.float64)
    whole = select(scores, ids, config, strata, weights if weighted else None)
    shard_of = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=np.int64)
    shards = [
        Rows(scores[at], [ids[i] for i in at], [strata[i] for i in at], weights[at] if weighted else None)
        for at in (np.flatnonzero(shard_of == number) for number in range(5))
    ]
    manifest = resolve(config, lambda: shards)
    assert manifest.to_json() == whole.to_json()
    kept = [manifest.keep(s.values, s.doc_ids, s.strata).sum() for s in shards]
    assert sum(kept) == manifest.n_kept == whole.keep(scores, ids, strata).sum()


@settings(deadline=None, max_examples=100)
@given(values=SCORES, k=st.integers(0, 60))
def test_bottom_and_the_rest_of_the_top_partition_the_scored_rows(values, k):
    scored = {f"doc-{i}" for i, v in enumerate(values) if not np.isnan(v)}
    fraction = Fraction(min(k, len(scored)), max(len(scored), 1))
    ids = ids_of(len(values))
    bottom = kept_ids(values, SelectionConfig(fraction=str(fraction), which="bottom"), ids)
    top = kept_ids(values, SelectionConfig(fraction=str(1 - fraction), which="top"), ids)
    assert not bottom & top
    assert bottom | top == scored


@settings(deadline=None, max_examples=100)
@given(values=SCORES, k=st.integers(0, 100), data=st.data())
def test_bottom_and_the_rest_of_the_top_partition_the_weight_too(values, k, data):
    n, ids = len(values), ids_of(len(values))
    weights = np.array(data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)), dtype=np.int64)
    scores = np.array(values, dtype=np.float64)
    total = int(weights[~np.isnan(scores)].sum())
    fraction = Fraction(min(k, total), max(total, 1))
    config = SelectionConfig(fraction=str(fraction), which="bottom", weight="n_tokens")
    bottom = select(scores, ids, config, weights=weights).keep(scores, ids)
    rest = SelectionConfig(fraction=str(1 - fraction), which="top", weight="n_tokens")
    top = select(scores, ids, rest, weights=weights).keep(scores, ids)
    assert not (bottom & top).any()
    assert ((bottom | top) == ~np.isnan(scores)).all()


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 80), a=FRACTIONS, b=FRACTIONS, seed=st.integers(0, 5))
def test_random_selections_are_nested(n, a, b, seed):
    ids = ids_of(n)
    values = random_scores(ids, seed)
    small, large = sorted((a, b))
    few, many = (
        kept_ids(values, SelectionConfig(column="random", fraction=str(f), which="bottom", seed=seed), ids)
        for f in (small, large)
    )
    assert few <= many


@settings(deadline=None, max_examples=100)
@given(values=SCORES, fraction=FRACTIONS, which=WHICH)
def test_threshold_selection_keeps_whole_groups_of_equal_scores(values, fraction, which):
    config = SelectionConfig(fraction=str(fraction), which=which, mode="threshold", percentile="inverted_cdf")
    scores = np.array(values, dtype=np.float64)
    mask = select(scores, ids_of(len(values)), config).keep(scores, ids_of(len(values)))
    groups: dict[float, set[bool]] = {}
    for value, keep in zip((scores + 0.0).tolist(), mask.tolist(), strict=True):
        if not np.isnan(value):
            groups.setdefault(value, set()).add(keep)
    assert all(len(kept) == 1 for kept in groups.values())


@settings(deadline=None, max_examples=100)
@given(values=SCORES, fraction=FRACTIONS, which=WHICH)
def test_kept_scores_of_bottom_middle_and_top_are_an_interval(values, fraction, which):
    config = SelectionConfig(fraction=str(fraction), which=which)
    scores = np.array(values, dtype=np.float64)
    mask = select(scores, ids_of(len(values)), config).keep(scores, ids_of(len(values)))
    kept, dropped = keys_of(scores[mask]), keys_of(scores[~mask & ~np.isnan(scores)])
    if not len(kept) or not len(dropped):
        return
    inside = (dropped > kept.min()) & (dropped < kept.max())
    assert not inside.any()


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.floats(0, 700), min_size=1, max_size=50, unique=True), fraction=FRACTIONS, which=WHICH)
def test_the_order_on_nll_and_on_perplexity_agree(values, fraction, which):
    config = SelectionConfig(fraction=str(fraction), which=which)
    ids = ids_of(len(values))
    perplexities = np.exp(np.array(values))
    if len(set(perplexities.tolist())) < len(values):
        return  # exp may round two scores together; then only the tie-break differs
    assert kept_ids(values, config, ids) == kept_ids(perplexities, config, ids)


def test_a_mean_nll_of_two_thousand_stays_finite_where_its_perplexity_does_not():
    from corpusmill.pruning.perplexity import mean_nll, perplexity

    assert mean_nll(4000.0, 2) == pytest.approx(2000.0)
    assert np.isinf(perplexity(4000.0, 2))
    assert np.isnan(mean_nll(0.0, 0))
