"""Distributions of a report: histograms, length classes, the files they are counted on."""

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.runner.corpus_mix import BINS, LENGTH_EDGES, length_counts, sample_files, score_histogram


def test_a_histogram_counts_every_finite_score_and_says_what_is_missing():
    values = np.array([*range(1000), np.nan, np.inf, 1e9], dtype=np.float32)
    found = score_histogram(values)
    assert found is not None
    assert sum(found["counts"]) == 1001
    assert found["missing"] == 2
    assert len(found["edges"]) == BINS + 1
    assert found["edges"][-1] < 2000  # one outlier does not flatten the rest
    assert found["high"] == 1e9
    assert found["median"] == 500


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0]], ids=["one", "equal"])
def test_equal_scores_make_a_histogram_of_some_width(values):
    found = score_histogram(np.array(values, dtype=np.float32))
    assert found is not None
    assert sum(found["counts"]) == len(values)
    assert found["edges"][0] < 3.0 < found["edges"][-1]


def test_without_a_finite_score_there_is_no_histogram():
    assert score_histogram(np.array([np.nan], dtype=np.float32)) is None
    assert score_histogram(np.zeros(0, dtype=np.float32)) is None


def test_lengths_fall_into_the_class_that_begins_at_or_below_them():
    lengths = pa.chunked_array([[0, 249, 250, 63_999], [64_000, 10_000_000]], pa.int64())
    found = dict(zip(LENGTH_EDGES, length_counts(lengths).tolist(), strict=True))
    assert {edge: n for edge, n in found.items() if n} == {0: 2, 250: 1, 32_000: 1, 64_000: 2}
    assert length_counts(pa.chunked_array([], pa.int64())).sum() == 0


def test_sampled_files_are_evenly_spaced_distinct_and_bounded():
    names = [f"{i:05d}" for i in range(90_000)]
    found = sample_files(names, 32)
    assert len(set(found)) == 32
    assert found[0] == "00000"
    assert int(found[-1]) > 85_000
    assert sample_files(names[:3], 32) == ("00000", "00001", "00002")
    assert sample_files([], 32) == ()
