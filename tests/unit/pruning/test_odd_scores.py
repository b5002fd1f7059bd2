"""Where `pandas.qcut` surprises: NaN, -0.0, all equal, one row, fractions 0 and 1. Here each has one defined answer."""

import json
import logging
from fractions import Fraction

import numpy as np
import pytest

from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.selection import select

IDS = [f"doc-{i}" for i in range(10)]


def kept(values, **settings):
    config = SelectionConfig.load({"column": "mean_nll", **settings})
    values = np.asarray(values, dtype=np.float64)
    ids = IDS[: len(values)]
    manifest = select(values, ids, config)
    return {i for i, keep in zip(ids, manifest.keep(values, ids), strict=True) if keep}


@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
@pytest.mark.parametrize("fraction", ["0", "1/10", "3/10", "1/2", "1"])
def test_of_equal_scores_rank_keeps_exactly_k_and_threshold_all_with_a_warning(which, fraction, caplog):
    equal = [2.5] * 10
    chosen = kept(equal, which=which, fraction=fraction)
    assert len(chosen) == round(10 * Fraction(fraction))
    with caplog.at_level(logging.WARNING):
        by_threshold = kept(equal, which=which, fraction=fraction, mode="threshold")
    assert by_threshold == set(IDS)
    assert ("scores tie" in caplog.text) == (fraction != "1")


@pytest.mark.parametrize(("fraction", "n"), [("0", 0), ("49/100", 0), ("1/2", 1), ("1", 1)])
@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
def test_one_row_is_kept_from_a_half_on(which, fraction, n):
    assert len(kept([1.0], which=which, fraction=fraction)) == n


@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
def test_no_share_keeps_nothing_and_the_whole_keeps_all(which):
    values = np.arange(10.0)
    assert kept(values, which=which, fraction="0") == set()
    for mode in ("rank", "threshold"):
        assert kept(values, which=which, fraction="1", mode=mode) == set(IDS)


def test_a_percentile_is_inclusive_so_no_share_keeps_the_outermost_row():
    values = np.arange(10.0)
    assert kept(values, which="bottom", fraction="0", mode="threshold") == {"doc-0"}
    assert kept(values, which="top", fraction="0", mode="threshold") == {"doc-9"}


@pytest.mark.parametrize("mode", ["rank", "threshold"])
@pytest.mark.parametrize("which", ["bottom", "middle", "top"])
def test_the_two_zeros_are_one_score(which, mode):
    mixed = [-1.0, *[0.0, -0.0] * 4, 1.0]
    settings = {"which": which, "fraction": "3/10", "mode": mode}
    assert kept(mixed, **settings) == kept([-1.0, *[0.0] * 8, 1.0], **settings)


@pytest.mark.parametrize("mode", ["rank", "threshold"])
def test_rows_without_a_score_do_not_count_for_the_share(mode):
    values = [np.nan, 3.0, np.nan, 1.0, 2.0, 4.0, np.nan]
    assert kept(values, which="bottom", fraction="1/2", mode=mode) == {"doc-3", "doc-4"}
    assert kept([np.nan] * 4, which="bottom", fraction="1/2", mode=mode) == set()


def test_a_manifest_does_not_grow_with_the_rows_and_its_two_cuts_are_32_bytes():
    sizes = []
    for n in (5_000, 50_000):
        values = np.random.default_rng(0).normal(size=n)
        manifest = select(values, [str(i) for i in range(n)], SelectionConfig(column="mean_nll", fraction="3/10"))
        (stratum,) = json.loads(manifest.to_json())["strata"].values()
        cuts = [bytes.fromhex(stratum[side][name]) for side in ("lo", "hi") for name in ("key", "tie")]
        assert sum(map(len, cuts)) == 32
        sizes.append(len(manifest.to_json()))
    assert max(sizes) < 700
    assert abs(sizes[1] - sizes[0]) < 40  # counts have one digit more
