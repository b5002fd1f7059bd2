"""The shuffles of near deduplication on Spark: from the lakehouse's Parquet files to Parquet files beside the tables.

Spark reads the files of the deduplication indexes where they lie and writes its answers to a scratch folder of the
warehouse, so a cluster's machines must reach the warehouse. Nothing but paths passes between it and this process.
"""

import contextlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.batches import Column
from corpusmill.dedup.candidates import JoinPart, Mask, pair_codes, pair_ends
from corpusmill.dedup.clusters import Edges, Ids
from corpusmill.dedup.index import BandIndex, Numbers
from corpusmill.dedup.minhash import Strings
from corpusmill.dedup.shuffles import EmbeddedShuffles, Shuffles
from corpusmill.dedup.spark_clusters import SparkClusters
from corpusmill.dedup.spark_master import spark_master
from corpusmill.lakehouse.catalog import Lakehouse, LakehouseUnavailableError
from corpusmill.lakehouse.storage import list_files
from corpusmill.runner.dedup_index import StoredIndex
from corpusmill.runner.pair_files import delete_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOCAL = {
    "spark.ui.enabled": "false",  # tasks of one machine would take each other's port
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}
"""Settings of a Spark that runs in this process and serves nobody else."""


@contextlib.contextmanager
def open_shuffles(lake: Lakehouse, folder: str, bands: int) -> Iterator[Shuffles]:
    """Yields the engine that the environment names; a Spark session that it starts is stopped at the end.

    Args:
        lake: The lakehouse.
        folder: URI of a folder of the warehouse that scratch files may lie in.
        bands: Bands of all indexes.

    Raises:
        ConfigError: What the environment names is not installed, or is no master of Spark.
    """
    embedded = EmbeddedShuffles(bands)
    master = spark_master()
    if master is None:
        yield embedded
        return
    scratch = f"{folder}/spark-{uuid.uuid4().hex[:8]}"
    with _session(master) as session:
        try:
            yield SparkShuffles(lake, SparkClusters(session), scratch, embedded)
        finally:
            delete_folder(lake, scratch)


class SparkShuffles:
    """The engine on Spark; see `dedup.shuffles.Shuffles`.

    Args:
        lake: The lakehouse that holds the indexes.
        engine: Spark's steps.
        scratch: URI of a folder that this process and Spark can write.
        embedded: Answers about indexes that no table holds: published texts that stand in for a crawl's documents.
    """

    def __init__(self, lake: Lakehouse, engine: SparkClusters, scratch: str, embedded: EmbeddedShuffles) -> None:
        self._lake, self._engine, self._scratch, self._embedded = lake, engine, scratch, embedded
        self._everything = JoinPart(0, embedded.bands)

    def pairs(self, source: BandIndex, wanted: Mask, target: BandIndex, part: JoinPart | None = None) -> Numbers:
        """Returns the candidates of documents of one index in another."""
        if not isinstance(source, StoredIndex) or not isinstance(target, StoredIndex):
            return self._embedded.pairs(source, wanted, target, part)
        if not wanted.any() or not len(target):
            return np.empty(0, dtype=np.int64)
        place = self._place()
        self._engine.band_pairs(
            [_for_spark(file) for file in source.files()],
            [_for_spark(file) for file in target.files()],
            _for_spark(place),
            part or self._everything,
            same=source is target,
        )
        codes = [np.empty(0, dtype=np.int64)]
        for rows in self._written(place):
            codes.append(pair_codes(_numbers(rows["doc_id"], source.doc_ids), _numbers(rows["match"], target.doc_ids)))
        found = np.sort(np.concatenate(codes))
        return found[wanted[pair_ends(found)[0]]]

    def roots(self, doc_ids: Strings, edges: Edges) -> Ids:
        """Returns the lowest number of each document's component, (documents,)."""
        found = np.arange(len(doc_ids), dtype=np.int64)
        if not len(edges):
            return found
        given, place = f"{self._place()}.parquet", self._place()
        ends = {name: doc_ids.take(pa.array(edges[:, i], pa.int64())) for i, name in enumerate(("doc_id", "lowest"))}
        with self._lake.io.new_output(given).create() as stream:
            pq.write_table(pa.table(ends), stream)
        self._engine.components([_for_spark(given)], _for_spark(place))
        for rows in self._written(place):
            found[_numbers(rows["doc_id"], doc_ids)] = _numbers(rows["root"], doc_ids)
        return found

    def _place(self) -> str:
        return f"{self._scratch}/{uuid.uuid4().hex[:8]}"

    def _written(self, place: str) -> Iterator[pa.Table]:
        """Yields the rows of the files that Spark wrote to a folder, which are one at least."""
        files = [file for file in list_files(self._lake.io, place) if file.location.endswith(".parquet")]
        if not files:
            raise LakehouseUnavailableError(
                f"Spark's answer in {place} is not there: it was deleted, or Spark writes to another disk than this "
                "process reads; every machine must see the warehouse at the same place"
            )
        for file in files:
            with self._lake.io.new_input(file.location).open() as stream:
                yield pq.read_table(stream)


@contextlib.contextmanager
def _session(master: str) -> Iterator["SparkSession"]:
    """Yields the process's Spark session if it has one, else one of its own, which is stopped at the end."""
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    builder = SparkSession.builder.master(master).appName("corpusmill deduplication")
    for name, value in (LOCAL if master.startswith("local") else {}).items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()


def _for_spark(location: str) -> str:
    """Returns a location by the name of Hadoop's S3 client, where it lies on S3."""
    return f"s3a{location.removeprefix('s3')}" if location.startswith("s3://") else location


def _numbers(ids: Column, doc_ids: Strings) -> Numbers:
    """Returns the places of ids in sorted ids, (ids,)."""
    return np.asarray(pc.index_in(ids.cast(doc_ids.type).combine_chunks(), value_set=doc_ids)).astype(np.int64)
