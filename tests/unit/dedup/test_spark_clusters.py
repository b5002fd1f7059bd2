"""Spark gives the edges and clusters of the embedded engine."""

import importlib.util
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark")
pytest.importorskip("numba")

from corpusmill.dedup.cluster_files import EmbeddedClusters
from corpusmill.dedup.spark_clusters import SparkClusters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # pyspark warns of pandas 3, which it is not given
    pytest.mark.skipif(not (shutil.which("java") or os.environ.get("JAVA_HOME")), reason="Spark needs Java"),
]

_spec = importlib.util.spec_from_file_location("plain_clusters", Path(__file__).with_name("test_clusters.py"))
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").appName("corpusmill tests")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
    }.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    yield made
    made.stop()


def rows(place):
    return sorted(tuple(row.values()) for row in pq.read_table(place).to_pylist())


def test_both_engines_write_equal_edges_and_clusters(session, tmp_path):
    bands, expected = plain.write_bands(tmp_path, n_bands=2)
    spark, embedded = SparkClusters(session), EmbeddedClusters()
    places = {"spark": [], "embedded": []}
    for n, band in enumerate(bands):
        for name, engine in (("spark", spark), ("embedded", embedded)):
            places[name].append(str(tmp_path / f"edges-{name}-{n}"))
            engine.band_edges(band, places[name][-1])
        assert rows(places["spark"][-1]) == rows(places["embedded"][-1])
    assert {row for place in places["spark"] for row in rows(place)} == expected
    clusters = {name: str(tmp_path / f"clusters-{name}") for name in places}
    spark.components(places["spark"], clusters["spark"])
    embedded.components(places["spark"], clusters["embedded"])  # each reads the other's files as well
    assert rows(clusters["spark"]) == rows(clusters["embedded"]) == plain.plain_clusters(sorted(expected))
    assert not list(tmp_path.glob("*.round*"))


def test_a_long_chain_becomes_one_cluster(session, tmp_path):
    names = [f"doc-{n:04d}" for n in range(20)]
    edges = str(tmp_path / "edges.parquet")
    pq.write_table(plain.pa.table({"doc_id": names[1:], "lowest": names[:-1]}), edges)
    SparkClusters(session).components([edges], str(tmp_path / "clusters"))
    assert rows(str(tmp_path / "clusters")) == [(name, names[0]) for name in names]
