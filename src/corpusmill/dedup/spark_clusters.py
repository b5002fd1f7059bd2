"""Edges and clusters by PySpark (extra ``spark``), for crawls that one machine cannot group.

The same files in and out as `corpusmill.dedup.cluster_files`, equal edges and clusters, and the pairs of
`corpusmill.dedup.candidates`. Spark writes folders of files; only Parquet paths pass between it and the rest. A run
uses it through `corpusmill.runner.spark_shuffles`. As a job of its own:

    python -m corpusmill.dedup.spark_clusters edges --to EDGES BAND...
    python -m corpusmill.dedup.spark_clusters clusters --to CLUSTERS EDGES...
"""

import argparse
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from corpusmill.dedup.candidates import LOWEST, JoinPart
from corpusmill.dedup.index import part_bounds
from corpusmill.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MAX_ROUNDS = 60
"""Rounds need the logarithm of the longest path, squared at worst; more mean that something is wrong."""


class SparkClusters:
    """The cluster engine on Spark; see `corpusmill.dedup.cluster_files.ClusterEngine`.

    Args:
        session: Where to run; its owner stops it.
    """

    def __init__(self, session: "SparkSession") -> None:
        self._session = session

    def band_edges(self, band: Sequence[str], edges: str) -> None:
        """Writes the edges of one band; its rows may come in any order."""
        from pyspark.sql import Window
        from pyspark.sql import functions as f

        rows = self._session.read.parquet(*band).select("key", "doc_id")
        lowest = f.min("doc_id").over(Window.partitionBy("key"))
        found = rows.select("doc_id", lowest.alias("lowest")).where("doc_id != lowest")
        found.write.mode("overwrite").parquet(edges)

    def band_pairs(
        self, source: Sequence[str], target: Sequence[str], pairs: str, part: JoinPart, *, same: bool
    ) -> None:
        """Writes the pairs of documents that share a key, as ``doc_id`` and ``match``, without repeats, in any order.

        Of the target's documents with one key those with the lowest ids count; see `candidates.LOWEST`.

        Args:
            source: Files of the index whose documents are looked up: ``band``, ``key``, ``doc_id``.
            target: Files of the index that they are looked up in.
            pairs: Folder to write; replaced if it is there.
            part: Which bands, and which share of their keys.
            same: Both are the index of one crawl: a document's candidates are those before it.
        """
        asked = self._keys(source, part)
        held = self._keys(target, part).selectExpr("key", "doc_id as match")
        place = "row_number() over (partition by key order by match) as place"
        lowest = held.selectExpr("key", "match", place).where(f"place <= {LOWEST}")
        met = asked.join(lowest, "key").select("doc_id", "match").distinct()
        (met.where("match < doc_id") if same else met).write.mode("overwrite").parquet(pairs)

    def _keys(self, index: Sequence[str], part: JoinPart) -> "DataFrame":
        """Returns keys and documents of some bands of an index; keys of different bands are never equal."""
        rows = self._session.read.parquet(*index).where(f"band >= {part.first} and band < {part.after}")
        low, after = part_bounds(part.share, part.shares)
        if low is not None:
            rows = rows.where(f"key >= X'{low.hex()}'")
        if after is not None:
            rows = rows.where(f"key < X'{after.hex()}'")
        return rows.select("key", "doc_id")

    def components(self, edges: Sequence[str], clusters: str) -> None:
        """Writes the connected components of all edges, by alternating large and small stars.

        Rounds are kept beside the answer in ``<clusters>.round<n>`` while they are needed.

        Source: Kiveris et al., "Connected Components in MapReduce and Beyond", SoCC 2014, sections 2 and 3.
        """
        found = self._session.read.parquet(*edges).selectExpr("doc_id as u", "lowest as v").where("u != v").distinct()
        for number in range(MAX_ROUNDS):
            place = f"{clusters}.round{number}"
            _small_star(_large_star(found)).write.mode("overwrite").parquet(place)
            found = self._session.read.parquet(place)
            if number:
                self._remove(f"{clusters}.round{number - 1}")
            if _all_stars(found):
                break
        else:
            raise DataError(
                f"clusters did not settle in {MAX_ROUNDS} rounds; are the edges at {edges!r} still written?"
            )
        centres = found.selectExpr("v as doc_id", "v as root").distinct()
        stars = found.selectExpr("u as doc_id", "v as root").unionByName(centres)
        stars.orderBy("doc_id").write.mode("overwrite").parquet(clusters)
        self._remove(place)

    def _remove(self, place: str) -> None:
        """Removes a folder, through Spark's file system where it is not local."""
        if urlparse(place).scheme in ("", "file"):
            shutil.rmtree(urlparse(place).path)
            return
        jvm = self._session._jvm
        assert jvm is not None, "only a session with a driver of its own can remove remote folders"
        path = jvm.org.apache.hadoop.fs.Path(place)
        path.getFileSystem(self._session._jsc.hadoopConfiguration()).delete(path, True)


def _large_star(edges: "DataFrame") -> "DataFrame":
    """Links each greater neighbour of a node to the least of the node and its neighbours."""
    both = edges.unionByName(edges.selectExpr("v as u", "u as v"))
    least = both.selectExpr("u", "v", "least(u, min(v) over (partition by u)) as m")
    return least.where("v > u").selectExpr("v as u", "m as v").distinct()


def _small_star(edges: "DataFrame") -> "DataFrame":
    """Links each node and its lesser neighbours to the least of them."""
    down = edges.selectExpr("greatest(u, v) as u", "least(u, v) as v")
    least = down.selectExpr("u", "v", "min(v) over (partition by u) as m")
    links = least.selectExpr("u", "m as v").unionByName(least.selectExpr("v as u", "m as v"))
    return links.where("u != v").distinct()


def _all_stars(edges: "DataFrame") -> bool:
    """Returns whether each node is linked to one other at most, and that one to none."""
    if not edges.groupBy("u").count().where("count > 1").isEmpty():
        return False
    return edges.join(edges.selectExpr("u as v").distinct(), "v", "left_semi").isEmpty()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one step in a Spark session of its own, as spark-submit configures it."""
    from pyspark.sql import SparkSession

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("edges", "clusters"))
    parser.add_argument("--to", required=True, help="folder to write")
    parser.add_argument("files", nargs="+", help="Parquet files or folders")
    options = parser.parse_args(arguments)
    session = SparkSession.builder.appName(f"corpusmill {options.step}").getOrCreate()
    try:
        engine = SparkClusters(session)
        step = engine.band_edges if options.step == "edges" else engine.components
        step(options.files, options.to)
    finally:
        session.stop()


if __name__ == "__main__":
    main()
