import numpy as np
import pytest
from scipy import stats

from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.drift import GROUPS, Profile
from corpusmill.pruning.radix import Histogram
from corpusmill.pruning.selection import Manifest, select


def ids_of(n):
    return [f"doc-{i}" for i in range(n)]


def pooled(values):
    return Histogram.of(np.asarray(values, dtype=np.float64)).pooled()


def test_a_profile_splits_the_scores_in_nearly_equal_groups_and_survives_json():
    values = np.random.default_rng(0).lognormal(sigma=2, size=20_000)
    profile = Profile.of(pooled(values))
    assert sum(profile.counts) == 20_000
    assert len(profile.counts) == len(profile.edges) + 1 == GROUPS
    assert max(profile.counts) < 2 * 20_000 / GROUPS
    assert profile.counts == tuple(np.histogram(values, [-np.inf, *profile.scores, np.inf])[0])
    assert Profile.from_json(profile.to_json()) == profile
    assert profile.distances(pooled(values)) == (0, 0)


def test_the_distance_is_kolmogorov_smirnovs_up_to_the_edges():
    rng = np.random.default_rng(1)
    old, new = rng.lognormal(0, 1, 5000), rng.lognormal(0.3, 1.2, 3000)
    ks, psi = Profile.of(pooled(old)).distances(pooled(new))
    exact = stats.ks_2samp(old, new).statistic
    assert exact - 0.03 < ks <= exact
    a = np.array(Profile.of(pooled(old)).counts) + 0.5
    b = np.histogram(new, [-np.inf, *Profile.of(pooled(old)).scores, np.inf])[0] + 0.5
    a, b = a / a.sum(), b / b.sum()
    assert psi == pytest.approx(((a - b) * np.log(a / b)).sum(), abs=1e-6)


def test_merging_the_shards_in_any_order_gives_the_same_distances():
    rng = np.random.default_rng(2)
    old, new = rng.normal(size=1000), rng.normal(0.5, 1, 1000)
    histogram = Histogram()
    for part in np.array_split(rng.permutation(new), 7):
        histogram = Histogram.of(part).merge(histogram)
    assert Profile.of(pooled(old)).distances(histogram.pooled()) == Profile.of(pooled(old)).distances(pooled(new))


@pytest.mark.parametrize("values", [[], [3.0], [2.0] * 50])
def test_few_or_equal_scores_have_a_profile(values):
    profile = Profile.of(pooled(values))
    assert sum(profile.counts) == len(values)
    assert profile.distances(pooled([1.0, 2.0])) in [(0.0, 0.0)] or values == [2.0] * 50
    assert Profile.from_json(profile.to_json()).distances(pooled(values)) == (0.0, 0.0)


def test_a_crawl_without_drift_is_told_so_and_one_without_rows_too():
    values = np.random.default_rng(3).normal(3, 1, 4000)
    frozen = select(values[:2000], ids_of(2000), SelectionConfig(fraction="1/2", which="bottom", column="mean_nll"))
    config = SelectionConfig(mode="cutoffs", column="mean_nll", cutoffs=frozen.to_json())
    same = select(values[2000:], ids_of(2000), config)
    assert same.drift.psi < 0.1
    assert same.drift.ks < 0.1
    assert same.drift.kept_share == same.n_kept / 2000
    assert not [w for w in same.warnings if "distributed otherwise" in w]
    none = select([], [], config)
    assert none.drift.kept_share == 0
    assert none.warnings == ()
    assert Manifest.from_json(same.to_json()) == same


def test_drift_is_measured_in_what_the_fraction_is_a_share_of():
    values, weights = np.arange(100.0), np.arange(1, 101)
    settings = {"column": "el2n", "fraction": "1/2", "which": "bottom", "weight": "n_tokens"}
    frozen = select(values, ids_of(100), SelectionConfig(**settings), weights=weights)
    config = SelectionConfig(mode="cutoffs", column="el2n", weight="n_tokens", cutoffs=frozen.to_json())
    other = select(values, ids_of(100), config, weights=weights[::-1].copy())
    kept = other.keep(values, ids_of(100))
    assert other.drift.kept_share == pytest.approx(weights[::-1][kept].sum() / weights.sum(), abs=1e-6)
    assert f"of {weights.sum()} n_tokens" in other.warnings[0]
    with pytest.raises(ValueError, match="weight='rows' but the manifest has 'n_tokens'"):
        select(values, ids_of(100), SelectionConfig(mode="cutoffs", column="el2n", cutoffs=frozen.to_json()))
