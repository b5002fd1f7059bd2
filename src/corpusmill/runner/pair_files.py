"""Candidate pairs that tasks of a band join have found, beside the crawl's records, until deduplication is committed.

A part's pairs lie at a place fixed by the content of both indexes and by the part. So a retry, or another run of the
same crawl, finds the same pairs or makes them, and a file of other content is never taken for them.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from corpusmill.dedup.candidates import LOWEST, JoinPart, Mask, cut_join, pair_ends
from corpusmill.dedup.index import BandIndex, Numbers, parts_of
from corpusmill.dedup.shuffles import Shuffles
from corpusmill.dedup.spark_master import spark_master
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.storage import open_location, read_whole, write_whole
from corpusmill.runner.dedup_index import StoredIndex
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import record_uri

log = logging.getLogger(__name__)


class PairFiles:
    """The pairs of one crawl's join.

    Attributes:
        key: Content key of the crawl's index.
        folder: URI of the folder that holds them.
        scratch: URI of a folder for what an engine writes while it joins; another run may delete `folder` meanwhile.

    Args:
        lake: The lakehouse.
        plan: The plan of the crawl that is deduplicated.
    """

    def __init__(self, lake: Lakehouse, plan: RunPlan) -> None:
        self._lake, self.key = lake, plan.keys["minhash"]
        self.folder = record_uri(lake, plan.name, plan.crawl, "band_pairs")
        self.scratch = record_uri(lake, plan.name, plan.crawl, "band_scratch")

    def find(self, target: StoredIndex, part: JoinPart) -> Numbers | None:
        """Returns a part's pairs with another index as `candidates.pair_codes`, (pairs,); None where there are none."""
        place = self._place(target, part)
        data = read_whole(self._lake.io, place)
        if data is None:
            return None
        try:
            column = pq.read_table(pa.BufferReader(data), columns=["pair"])["pair"]
        except (pa.ArrowException, OSError, ValueError) as error:
            log.warning("%s cannot be read, its pairs are joined again: %s", place, error)
            return None
        return np.asarray(column.combine_chunks()).astype(np.int64)

    def write(self, target: StoredIndex, part: JoinPart, codes: Numbers) -> None:
        """Stores a part's pairs with another index; readers see all of them or none."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"pair": pa.array(codes)}), sink, compression="zstd", use_dictionary=False)
        write_whole(self._lake.io, self._place(target, part), sink.getvalue().to_pybytes())

    def forget(self) -> None:
        """Deletes the crawl's pairs, those of runs that were given up as well."""
        delete_folder(self._lake, self.folder)

    def _place(self, target: StoredIndex, part: JoinPart) -> str:
        return f"{self.folder}/{self.key}-lowest-{LOWEST}/{target.key}/{part.name}.parquet"


def join_parts(plan: RunPlan, bands: int, indexes: Sequence[BandIndex]) -> tuple[JoinPart, ...]:
    """Returns the parts of a crawl's band join: at most as many as the plan may have shards, one where Spark joins.

    Args:
        plan: The run.
        bands: Bands of the indexes.
        indexes: The crawl's index and those that it is looked up in; those that no table holds do not count.
    """
    if spark_master() is not None:
        return (JoinPart(0, bands),)  # Spark cuts it by itself
    stored = [index for index in indexes if isinstance(index, StoredIndex)]
    return cut_join(bands, parts_of(*stored) if stored else 1, plan.parsed_recipe().shards.max_shards)


class StoredJoin:
    """A band join that takes the pairs that tasks have stored; what is not stored it has an engine join.

    Args:
        files: Where the pairs lie.
        parts: Parts of the join.
        engine: Joins.
    """

    def __init__(self, files: PairFiles, parts: tuple[JoinPart, ...], engine: Shuffles) -> None:
        self._files, self._parts, self._engine = files, parts, engine

    def __call__(self, source: BandIndex, wanted: Mask, target: BandIndex) -> Numbers:
        """Returns the candidates of documents of one index in another; see `dedup.near.Join`."""
        stored = self._stored(source, target)
        if stored is None:
            return self._engine.pairs(source, wanted, target)
        return stored[wanted[pair_ends(stored)[0]]]

    def _stored(self, source: BandIndex, target: BandIndex) -> Numbers | None:
        """Returns the pairs that tasks found with an index, None where a part of them is not there."""
        if not isinstance(source, StoredIndex) or not isinstance(target, StoredIndex) or source.key != self._files.key:
            return None
        found = np.empty(0, dtype=np.int64)
        for part in self._parts:
            codes = self._files.find(target, part)
            if codes is None:
                return None
            found = np.union1d(found, codes)
        return found


def delete_folder(lake: Lakehouse, folder: str) -> None:
    """Deletes a folder of the warehouse and what is in it; one that is gone already is no fault."""
    filesystem, path = open_location(lake.io, folder)
    if filesystem.get_file_info(path).type == pyarrow.fs.FileType.Directory:
        filesystem.delete_dir(path)
