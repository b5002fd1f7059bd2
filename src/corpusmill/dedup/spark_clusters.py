"""Edges and clusters by PySpark (extra ``spark``), for crawls that one machine cannot group.

The same files in and out as `corpusmill.dedup.cluster_files`, equal edges and clusters. Spark writes folders of files;
only Parquet paths pass between it and the rest. As a job of its own:

    python -m corpusmill.dedup.spark_clusters edges --to EDGES BAND...
    python -m corpusmill.dedup.spark_clusters clusters --to CLUSTERS EDGES...
"""

import argparse
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlparse

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
