"""Edges of bands and clusters: as a plain count finds them, whatever the blocks and their order."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("numba")

from corpusmill.dedup.cluster_files import EmbeddedClusters
from corpusmill.dedup.clusters import (
    BandJoin,
    Components,
    connected_components,
    join_blocks,
    join_bucket,
    key_words,
    probe,
)
from corpusmill.dedup.minhash import KEY_TYPE, key_column
from corpusmill.errors import DataError


def keys_of(*numbers):
    return np.frombuffer(b"".join(int(n).to_bytes(16, "big") for n in numbers), dtype=KEY_TYPE)


def random_band(seed, n=300, distinct=120):
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 2**62, distinct)[rng.integers(0, distinct, n)]
    rows = sorted(zip((int(x) << 60 for x in numbers), rng.permutation(10 * n)[:n].tolist(), strict=True))
    return keys_of(*(number for number, _ in rows)), np.array([member for _, member in rows])


def plain_edges(keys, ids):
    buckets = {}
    for key, member in zip(keys.tolist(), ids.tolist(), strict=True):
        buckets.setdefault(key, []).append(member)
    return sorted((member, min(b)) for b in buckets.values() for member in b if member != min(b))


def plain_roots(n, edges):
    roots = list(range(n))
    for _ in range(n):
        for a, b in edges:
            roots[a] = roots[b] = min(roots[a], roots[b])
    return roots


def test_all_members_of_a_bucket_are_linked_to_its_lowest_id():
    edges = join_bucket(keys_of(1, 1, 1, 2, 3, 3), np.array([4, 7, 9, 1, 0, 5]))
    assert edges.tolist() == [[7, 4], [9, 4], [5, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_edges_are_those_of_a_plain_count_in_any_blocks(seed):
    keys, ids = random_band(seed)
    expected = plain_edges(keys, ids)
    assert sorted(map(tuple, join_bucket(keys, ids).tolist())) == expected
    for size in (1, 2, 7, 299):
        blocks = [(keys[i : i + size], ids[i : i + size]) for i in range(0, len(ids), size)]
        found = np.concatenate(list(join_blocks(blocks)))
        assert found.tolist() == join_bucket(keys, ids).tolist()


def test_arrow_keys_and_slices_of_them_are_read_in_place():
    keys, ids = random_band(1)
    column = key_column(keys)
    assert join_bucket(column, ids).tolist() == join_bucket(keys, ids).tolist()
    assert (key_words(column.slice(5, 9)) == key_words(keys[5:14])).all()
    assert join_bucket(column.slice(0, 0), ids[:0]).shape == (0, 2)


def test_disorder_is_refused_because_it_would_hide_duplicates():
    with pytest.raises(DataError, match="row 2: its key is less"):
        join_bucket(keys_of(1, 3, 2), np.arange(3))
    with pytest.raises(DataError, match="id 4 does not follow 9"):
        join_bucket(keys_of(1, 1), np.array([9, 4]))
    join = BandJoin()
    join.edges(keys_of(5), np.array([0]))
    with pytest.raises(DataError, match="row 0"):
        join.edges(keys_of(4), np.array([1]))
    with pytest.raises(DataError, match="as many ids as keys"):
        join_bucket(keys_of(1), np.arange(2))
    with pytest.raises(DataError, match=r"binary\(16\)"):
        key_words(pa.array([b"x"]))
    with pytest.raises(DataError, match="1 nulls"):
        key_words(pa.array([None], pa.binary(16)))
    with pytest.raises(DataError, match="V16"):
        key_words(np.zeros(3, np.uint64))


@pytest.mark.parametrize(("n_new", "n_old"), [(50, 2000), (2000, 50), (0, 10), (10, 0), (300, 300)])
def test_a_probe_finds_the_first_equal_key(n_new, n_old):
    rng = np.random.default_rng(n_new)
    shift = 70
    new = [int(x) << shift for x in np.sort(rng.integers(0, 500, n_new))]
    old = [int(x) << shift for x in np.sort(rng.integers(0, 500, n_old))]
    expected = [old.index(key) if key in old else -1 for key in new]
    assert probe(keys_of(*new), keys_of(*old)).tolist() == expected


def test_a_probe_refuses_new_keys_in_disorder():
    with pytest.raises(DataError, match="row 1"):
        probe(keys_of(2, 1), keys_of(1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_plain_propagation_in_any_order_of_edges(seed):
    rng = random.Random(seed)
    edges = [(rng.randrange(60), rng.randrange(60)) for _ in range(45)]
    expected = plain_roots(60, edges)
    for _ in range(4):
        rng.shuffle(edges)
        turned = [(b, a) if rng.random() < 0.5 else (a, b) for a, b in edges]
        blocks = [np.array(turned[i : i + 11]) for i in range(0, len(turned), 11)]
        assert connected_components(60, blocks).tolist() == expected


def test_a_long_chain_has_one_root_and_no_deep_recursion():
    n = 200_000
    chain = np.stack([np.arange(1, n), np.arange(n - 1)], axis=1)
    assert not connected_components(n, [chain[::-1]]).any()
    assert not connected_components(n, [chain[:, ::-1]]).any()


def test_ends_that_are_no_documents_are_refused_and_change_nothing():
    components = Components(3)
    components.link(np.array([[2, 1]]))
    for edge in ([[0, 1], [0, 3]], [[0, 1], [-1, 0]]):
        with pytest.raises(DataError, match="from 0 to 2"):
            components.link(np.array(edge))
    components.link(np.empty((0, 2)))
    assert components.roots().tolist() == [0, 1, 1]


def write_bands(folder, n_bands=3, per_file=100):
    """Writes bands of named documents in files; returns the files of each band and the plain edges of all."""
    bands, edges = [], set()
    for band in range(n_bands):
        keys, ids = random_band(band)
        names = [f"doc-{n:05d}" for n in ids.tolist()]
        table = pa.table({"key": key_column(keys), "doc_id": pa.array(names, pa.large_string())})
        files = []
        for first in range(0, len(ids), per_file):
            files.append(str(folder / f"band{band}-{first}.parquet"))
            pq.write_table(table.slice(first, per_file), files[-1], row_group_size=37)
        bands.append(files)
        edges |= {(f"doc-{a:05d}", f"doc-{b:05d}") for a, b in plain_edges(keys, ids)}
    return bands, edges


def plain_clusters(edges):
    ids = sorted(set(itertools.chain(*edges)))
    numbers = {name: n for n, name in enumerate(ids)}
    roots = plain_roots(len(ids), [(numbers[a], numbers[b]) for a, b in edges])
    return list(zip(ids, (ids[root] for root in roots), strict=True))


def test_files_of_bands_become_edges_and_clusters(tmp_path, monkeypatch):
    monkeypatch.setattr("corpusmill.dedup.cluster_files.BATCH_ROWS", 23)
    bands, expected = write_bands(tmp_path)
    engine, files = EmbeddedClusters(), []
    for n, band in enumerate(bands):
        files.append(str(tmp_path / f"edges{n}.parquet"))
        engine.band_edges(band, files[-1])
    found = {tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist()}
    assert found == expected
    for number, order in enumerate((files, files[::-1])):
        target = str(tmp_path / f"clusters{number}.parquet")
        engine.components(order, target)
        rows = [tuple(row.values()) for row in pq.read_table(target).to_pylist()]
        assert rows == plain_clusters(sorted(expected))


def test_files_without_rows_give_files_without_rows(tmp_path):
    empty = pa.table({"key": pa.array([], pa.binary(16)), "doc_id": pa.array([], pa.large_string())})
    band, edges, clusters = (str(tmp_path / name) for name in ("band.parquet", "edges.parquet", "clusters.parquet"))
    pq.write_table(empty, band)
    EmbeddedClusters().band_edges([band], edges)
    EmbeddedClusters().components([edges], clusters)
    assert pq.read_table(clusters).num_rows == 0


def test_files_in_disorder_are_refused_and_leave_no_file(tmp_path):
    band = str(tmp_path / "band.parquet")
    pq.write_table(pa.table({"key": key_column(keys_of(1, 1)), "doc_id": ["b", "a"]}), band)
    with pytest.raises(DataError, match="'a' does not follow 'b'"):
        EmbeddedClusters().band_edges([band], str(tmp_path / "edges.parquet"))
    assert not (tmp_path / "edges.parquet").exists()
