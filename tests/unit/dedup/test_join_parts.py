"""A band join in parts finds what the whole join finds; the engine is named by the environment."""

import sys

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("numba")

from corpusmill.dedup.candidates import JoinPart, candidate_pairs, cut_join
from corpusmill.dedup.index import MemoryIndex
from corpusmill.dedup.minhash import KEY_TYPE
from corpusmill.dedup.spark_master import VARIABLE, spark_master
from corpusmill.errors import ConfigError

BANDS = 5


def index_of(seed, n):
    """An index of random keys, of which many are equal, with any first byte."""
    rng = np.random.default_rng(seed)
    keys = np.zeros((n, BANDS, 16), dtype=np.uint8)
    keys[..., 0] = rng.integers(0, 256, (n, BANDS)) & 0xF3
    keys[..., 1] = np.arange(BANDS)
    ids = pa.chunked_array([pa.array([f"{seed}-{i:04d}" for i in rng.permutation(n)], pa.large_string())])
    return MemoryIndex([(ids, keys.reshape(n, -1).view(KEY_TYPE))], BANDS, n)


@pytest.mark.parametrize("parts", [1, 3, 256])
@pytest.mark.parametrize("at_most", [1, 3, 5, 11, 1024])
@pytest.mark.parametrize("same", [False, True])
def test_the_parts_of_a_join_are_the_whole_join(parts, at_most, same):
    own = index_of(1, 120)
    other = own if same else index_of(2, 90)
    wanted = np.arange(len(own)) % 4 > 0
    cut = cut_join(BANDS, parts, at_most)
    assert len(cut) <= at_most
    assert len({part.name for part in cut}) == len(cut)
    found = [candidate_pairs(own, wanted, other, BANDS, same=same, part=part) for part in cut]
    whole = candidate_pairs(own, wanted, other, BANDS, same=same)
    assert len(whole) > 100
    assert np.array_equal(np.unique(np.concatenate(found)), whole)


def test_bands_are_cut_by_their_keys_only_where_an_index_is_large():
    assert cut_join(14, 1, 256) == tuple(JoinPart(band, band + 1) for band in range(14))
    assert cut_join(14, 3, 30) == tuple(JoinPart(b, b + 1, share, 2) for b in range(14) for share in range(2))
    assert [part.name for part in cut_join(14, 9, 2)] == ["bands-000-006", "bands-007-013"]
    assert cut_join(2, 2, 4)[-1].name == "bands-001-001-share-001-of-002"


@pytest.mark.parametrize("master", ["local[x]", "lokal", "http://host:7077", "local[2] "])
def test_what_is_no_master_is_refused(monkeypatch, master):
    monkeypatch.setenv(VARIABLE, master)
    with pytest.raises(ConfigError, match="is no master of Spark; expected local"):
        spark_master()


def test_no_variable_means_the_process_itself(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert spark_master() is None
    monkeypatch.setenv(VARIABLE, "")
    assert spark_master() is None


def test_absent_packages_and_java_are_named_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "spark://host:7077")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError) as refused:
        spark_master()
    assert "pip install -c constraints.txt 'corpusmill[spark]'" in str(refused.value)
    assert f"Java 17 or newer in JAVA_HOME={str(tmp_path)!r}" in str(refused.value)
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="Debian: openjdk-17-jre-headless"):
        spark_master()
