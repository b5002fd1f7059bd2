import json
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.sampling import Moments, gumbel_noise
from corpusmill.pruning.selection import Manifest, Rows, resolve, select


def ids_of(n, prefix="doc"):
    return [f"{prefix}-{i}" for i in range(n)]


def sample(which="top", temperature=1.0, **changes):
    return SelectionConfig(mode="sample", which=which, temperature=temperature, **{"fraction": "3/10", **changes})


def test_noise_is_standard_gumbel_and_hangs_on_seed_and_id_alone():
    ids = ids_of(20_000)
    noise = gumbel_noise(ids, 1)
    assert stats.kstest(noise, "gumbel_r").pvalue > 0.01
    assert noise[::-1].tolist() == gumbel_noise(ids[::-1], 1).tolist()
    assert noise[7:9].tolist() == gumbel_noise(ids[7:9], 1).tolist()
    assert (noise != gumbel_noise(ids, 2)).mean() > 0.99
    ends = gumbel_noise(np.array([0, 2**64 - 1], np.uint64), 0)
    assert np.isfinite(ends).all()
    assert ends[0] < -3
    assert ends[1] > 40


@pytest.mark.parametrize("which", ["top", "bottom"])
def test_temperature_zero_is_rank_selection(which):
    values, ids = np.round(np.random.default_rng(0).normal(size=500), 1), ids_of(500)
    rank = select(values, ids, SelectionConfig(fraction="3/10", which=which))
    nearly = select(values, ids, sample(which, 1e-12))
    assert nearly.n_kept == rank.n_kept == 150
    assert sorted(values[nearly.keep(values, ids)]) == sorted(values[rank.keep(values, ids)]), "only ties may differ"
    assert np.array_equal(select(values, ids, sample(which, 0.0)).keep(values, ids), rank.keep(values, ids))


@pytest.mark.parametrize("which", ["top", "bottom"])
def test_a_very_high_temperature_is_random_selection(which):
    values, ids = np.random.default_rng(0).normal(size=500), ids_of(500)
    drawn = select(values, ids, sample(which, 1e9))
    other = select(-values, ids, sample(which, 1e9))
    assert np.array_equal(drawn.keep(values, ids), other.keep(-values, ids)), "the scores do not matter any more"
    assert drawn.n_kept == 150
    uniform = select(gumbel_noise(ids, 0), ids, SelectionConfig(fraction="3/10", which="top", column="random"))
    assert np.array_equal(drawn.keep(values, ids), uniform.keep(gumbel_noise(ids, 0), ids))


@pytest.mark.parametrize("which", ["top", "bottom"])
def test_rows_are_drawn_in_proportion_to_the_exponential_of_their_score(which):
    """One of four rows in each of many strata: P(i) = exp(z_i / t) / sum; z the score in standard deviations."""
    values, n, temperature = np.array([0.0, 1.0, 2.0, 4.0]), 1500, 1.5
    z = values / values.std() * (1 if which == "top" else -1) / temperature
    expected = np.exp(z) / np.exp(z).sum()
    rows = Rows(np.tile(values, n), ids_of(4 * n), [f"s{i // 4}" for i in range(4 * n)])
    config = sample(which, temperature, fraction="1/4", by=("language",))
    counts = resolve(config, lambda: [rows]).keep(*rows[:3]).reshape(n, 4).sum(axis=0)
    assert counts.sum() == n
    assert stats.chisquare(counts, expected * n).pvalue > 0.001


def test_a_sample_is_the_same_for_any_sharding_and_survives_json():
    rng = np.random.default_rng(5)
    values, ids = rng.lognormal(size=700), ids_of(700)
    values[::50] = np.nan
    texts = set()
    for step in (1, 3, 50):
        parts = [Rows(values[i::step], ids[i::step]) for i in range(step)]
        manifest = resolve(sample("bottom", 2.0), lambda parts=parts: reversed(parts))
        again = Manifest.from_json(manifest.to_json())
        assert again == manifest
        kept = {name for p in parts for name, k in zip(p.doc_ids, again.keep(p.values, p.doc_ids), strict=True) if k}
        texts.add((manifest.to_json(), frozenset(kept)))
    assert len(texts) == 1
    assert manifest.n_kept == len(kept) == round(686 * 0.3)
    assert manifest.noise == pytest.approx(-2.0 * np.nanstd(values), rel=1e-12)


def test_frozen_cutoffs_of_a_sample_keep_their_noise():
    values, ids = np.random.default_rng(6).normal(size=3000), ids_of(3000)
    frozen = select(values, ids, sample("top", 1.0, column="el2n"))
    settings = {"mode": "cutoffs", "column": "el2n", "cutoffs": frozen.to_json()}
    again = select(values, ids, SelectionConfig(**settings))
    assert np.array_equal(again.keep(values, ids), frozen.keep(values, ids))
    assert again.drift.ks == again.drift.psi == 0


def test_equal_scores_are_drawn_at_random_and_unbounded_ones_are_refused():
    same, ids = np.full(10, 2.5), ids_of(10)
    assert select(same, ids, sample("top", 1.0)).n_kept == 3
    assert select(same[:1], ids[:1], sample("top", 1.0, fraction="1")).n_kept == 1
    assert select(same[:0], [], sample("top", 1.0)).n_kept == 0
    for wrong in (math.inf, -math.inf, 1e200):
        with pytest.raises(PermanentDataError, match="1 of 10 scores are infinite or above 1e"):
            select(np.append(same[:9], wrong), ids, sample())
    assert select(np.append(same[:9], math.inf), ids, sample(temperature=0.0)).n_kept == 3


def test_sampling_the_middle_and_a_temperature_without_sampling_are_refused():
    with pytest.raises(ConfigError, match="for the middle use mode 'rank'"):
        SelectionConfig.load({"mode": "sample", "which": "middle"})
    with pytest.raises(ConfigError, match=r"temperature=2.0 with mode='rank'"):
        SelectionConfig.load({"temperature": 2})
    for wrong in (-1, "inf", "nan"):
        with pytest.raises(ConfigError, match="temperature"):
            SelectionConfig.load({"mode": "sample", "which": "top", "temperature": wrong})


def test_moments_are_exact_whatever_the_order():
    rng = np.random.default_rng(7)
    values = np.concatenate(
        [rng.normal(size=300) * 10.0 ** rng.integers(-300, 100, 300), [5e-324, -5e-324, 0.0, -0.0, 1e150]]
    )
    whole = Moments.of(np.append(values, np.nan))
    assert whole.n == len(values)
    assert sum(Fraction(t) * Fraction(2) ** e for e, t in whole.total.items()) == sum(map(Fraction, values.tolist()))
    shuffled = rng.permutation(values)
    parts = [Moments.of(shuffled[i::9]) for i in range(9)]
    merged = Moments()
    for part in parts:
        merged = Moments.from_json(json.loads(json.dumps(part.to_json()))).merge(merged)
    assert merged.sigma() == whole.sigma()
    plain = rng.normal(3, 2, 5000)
    assert Moments.of(plain).sigma() == pytest.approx(plain.std(), rel=1e-13)
