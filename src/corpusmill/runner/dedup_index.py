"""The deduplication index of a crawl in the lakehouse: building it, reading it a part at a time, rebuilding it.

A crawl's index is a partition of ``<recipe>.minhash`` with a content key of its own: from the crawl's cleaned documents
and the settings of the signatures, so that a later run finds it whatever else has changed.
"""

import functools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, LessThan

from corpusmill.batches import Column, slices
from corpusmill.dedup.config import NearConfig
from corpusmill.dedup.index import BandPart, MemoryIndex, Numbers, part_bounds, sign
from corpusmill.dedup.minhash import KEY_TYPE, Keys, Signer, Strings, key_column
from corpusmill.errors import LakehouseError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import claim_partition, commit_partition, swap_files
from corpusmill.lakehouse.epochs import current_epoch
from corpusmill.lakehouse.shards import RunToken, ShardWriter
from corpusmill.lakehouse.table import LakeTable
from corpusmill.runner.plan import RunPlan, load_plan, minhash_key, plan_uri
from corpusmill.runner.stage_tables import input_table
from corpusmill.runner.whole_crawl import WHOLE_CRAWL
from corpusmill.schema import MINHASH, STRING

BATCH_DOCUMENTS = 2_000
"""Documents that are signed at a time."""
BATCH_ROWS = 10_000
"""Rows of the index that are written at a time."""
CRAWLS_IN_MEMORY = 2
"""Crawls whose document ids are in memory at a time: the one that is deduplicated, and one older one."""


class IndexUnusableError(LakehouseError, Permanent):
    """A deduplication index cannot be read or is of other settings; the message names the file and the command."""


class DocumentIds:
    """Sorted ids of the crawls that were asked for last; a bounded number is kept."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Strings] = OrderedDict()

    def of(self, index: "StoredIndex") -> Strings:
        """Returns the sorted ids of an index."""
        if index.crawl not in self._held:
            self._held[index.crawl] = index.read_ids()
        self._held.move_to_end(index.crawl)
        while len(self._held) > CRAWLS_IN_MEMORY:
            self._held.popitem(last=False)
        return self._held[index.crawl]


class StoredIndex:
    """The index of one crawl as its partition holds it; see `dedup.index.BandIndex`.

    Attributes:
        crawl: Crawl id.
        key: Content key of the partition.

    Args:
        lake: The lakehouse.
        table: ``<recipe>.minhash``.
        crawl: Crawl id.
        config: Settings that the index must have been made by.
        ids: Shared between the indexes of a run.
        keep_numbers: True keeps 4 bytes x bands for each document, for an index that is looked up in many others.
    """

    def __init__(
        self,
        lake: Lakehouse,
        table: LakeTable,
        crawl: str,
        config: NearConfig,
        ids: DocumentIds,
        *,
        keep_numbers: bool = False,
    ) -> None:
        self.crawl = crawl
        self._lake, self._table, self._partition = lake, table, {"crawl": crawl}
        self._made_by, self._bands, self._ids = config.index_fingerprint(), config.bands, ids
        self._numbers: dict[tuple[int, int, int], Numbers] | None = {} if keep_numbers else None
        state = table.partition_state(self._partition)
        self._rows = state.rows if state else 0
        self.key = state.key if state else ""

    def files(self) -> list[str]:
        """Returns the URIs of its Parquet files, with the columns of `schema.MINHASH`."""
        return self._table.data_files(self._partition)

    def __len__(self) -> int:
        return self._rows // self._bands

    @property
    def doc_ids(self) -> Strings:
        """Ids of its documents, sorted."""
        return self._ids.of(self)

    def read_ids(self) -> Strings:
        """Reads the ids from the rows of the first band, which has a row of every document.

        Raises:
            IndexUnusableError: A row is lost.
        """
        ids = self._read(EqualTo("band", 0))["doc_id"].combine_chunks()
        if len(ids) != len(self) or pc.count_distinct(ids).as_py() != len(ids):
            raise self._unusable(
                f"{len(ids)} rows of band 0 name {pc.count_distinct(ids).as_py()} documents, expected {len(self)}",
                self._table.data_files(self._partition),
            )
        return ids.take(pc.array_sort_indices(ids))

    def part(self, band: int, part: int, parts: int) -> BandPart:
        """Returns the rows of a part of a band; see `dedup.index.BandIndex`."""
        rows: BooleanExpression = EqualTo("band", band)
        low, after = part_bounds(part, parts)
        if low is not None:
            rows = And(rows, GreaterThanOrEqual("key", low))
        if after is not None:
            rows = And(rows, LessThan("key", after))
        found = self._read(rows)
        keys, doc_ids = _keys_of(found["key"]), found["doc_id"].combine_chunks()
        if not _in_order(keys, doc_ids):  # other files than we wrote: compaction may cut them elsewhere
            found = found.sort_by([("key", "ascending"), ("doc_id", "ascending")])
            keys, doc_ids = _keys_of(found["key"]), found["doc_id"].combine_chunks()
        if self._numbers is None:
            return BandPart(keys, lambda places: self._numbers_of(doc_ids.take(pa.array(places, pa.int64()))))
        if (band, part, parts) not in self._numbers:
            self._numbers[band, part, parts] = self._numbers_of(doc_ids).astype(np.int32)
        numbers = self._numbers[band, part, parts]
        return BandPart(keys, lambda places: numbers[places].astype(np.int64))

    def _numbers_of(self, doc_ids: Strings) -> Numbers:
        found = pc.index_in(doc_ids, value_set=self.doc_ids)
        if found.null_count:
            raise self._unusable(
                "a band names documents that the first band does not", self._table.data_files(self._partition)
            )
        return np.asarray(found).astype(np.int64)

    def _read(self, rows: BooleanExpression) -> pa.Table:
        try:
            found = self._table.scan(self._partition, columns=["made_by", "key", "doc_id"], filter=rows)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise self._unusable(str(error), self._broken_files()) from error
        if found.num_rows and (made_by := found["made_by"].unique().to_pylist()) != [self._made_by]:
            raise self._unusable(
                f"it was made by {made_by}, this version and recipe need {self._made_by!r}",
                self._table.data_files(self._partition),
            )
        return found

    def _broken_files(self) -> list[str]:
        """Returns the files that cannot be read whole; all, where each alone can."""
        files = self._table.data_files(self._partition)
        return [file for file in files if not _readable(self._lake, file)] or files

    def _unusable(self, why: str, files: Sequence[str]) -> IndexUnusableError:
        recipe = self._table.identifier.split(".", maxsplit=1)[0]
        return IndexUnusableError(
            f"the deduplication index of {self.crawl} in {self._table.identifier} cannot be used: "
            f"{' '.join(why.split())[:300]}; files: "
            f"{list(files)[:3]}. Nothing is lost, it is made from {recipe}.documents: rebuild it with "
            f"'corpusmill rebuild-index {recipe} {self.crawl}', then clear the task"
        )


def _readable(lake: Lakehouse, file: str) -> bool:
    try:
        with lake.io.new_input(file).open() as stream:
            pq.ParquetFile(stream).read()
    except (OSError, pa.ArrowException, ValueError):
        return False
    return True


def _keys_of(column: Column) -> Keys:
    whole = column.combine_chunks()
    data = whole.buffers()[1]
    if data is None:
        return np.empty(0, dtype=KEY_TYPE)
    return np.frombuffer(memoryview(data), dtype=np.uint8).view(KEY_TYPE)[whole.offset : whole.offset + len(whole)]


def _in_order(keys: Keys, doc_ids: Strings) -> bool:
    """Returns whether rows are sorted by (key, doc_id)."""
    if len(keys) < 2:
        return True
    words = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)
    high, low = words[:, 0], words[:, 1]
    falls = (high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] < low[:-1]))
    if falls.any():
        return False
    same = np.flatnonzero((words[1:] == words[:-1]).all(axis=1))
    before, after = (doc_ids.take(pa.array(rows, pa.int64())) for rows in (same, same + 1))
    return not len(same) or bool(pc.all(pc.less(before, after)).as_py())


def index_key(plan: RunPlan, config: NearConfig) -> str:
    """Returns the content key of a crawl's index: of its cleaned documents and the settings of signatures."""
    return minhash_key(plan.name, plan.crawl, config, plan.keys["clean"])


def index_token(lake: Lakehouse, plan: RunPlan, config: NearConfig) -> RunToken:
    """Returns the identity under which the index of a plan's crawl is committed, by whatever run."""
    epoch, _ = current_epoch(lake, plan.name, plan.crawl)
    return replace(plan.token("clean"), key=index_key(plan, config), epoch=max(epoch, plan.epoch))


def build_index(lake: Lakehouse, plan: RunPlan, config: NearConfig, token: RunToken) -> None:
    """Commits the index of a plan's crawl, from its stored documents; a second time does nothing.

    Args:
        lake: The lakehouse.
        plan: The plan that the documents were written by.
        config: Settings of the signatures.
        token: Who commits, with the key that `index_key` gives.
    """
    identifier, partition = f"{plan.name}.{MINHASH.name}", {"crawl": plan.crawl}
    if claim_partition(lake, identifier, partition, token) is not None:
        return
    with ShardWriter(lake.table(identifier), partition, token, WHOLE_CRAWL) as writer:
        for rows in index_rows(lake, plan, config):
            writer.write(rows)
        manifest = writer.finish({})
    commit_partition(lake, identifier, partition, [manifest], token, expected_shards=[WHOLE_CRAWL])


def rebuild_index(lake: Lakehouse, recipe: str, crawl: str) -> int:
    """Writes the index of a crawl's newest run again, whatever its files hold, and returns its rows.

    Raises:
        RecordNotFoundError: The crawl has no run, or its documents are of another run by now.
    """
    epoch, _ = current_epoch(lake, recipe, crawl)
    plan = load_plan(lake, plan_uri(lake, recipe, crawl, epoch))
    config = plan.parsed_recipe().deduplication.near or NearConfig()
    identifier, partition = f"{recipe}.{MINHASH.name}", {"crawl": crawl}
    token = index_token(lake, plan, config)
    table = lake.table(identifier)
    if table.partition_key(partition) != token.key:
        build_index(lake, plan, config, token)
        return lake.table(identifier).count(partition)
    with ShardWriter(table, partition, token, WHOLE_CRAWL) as writer:
        for rows in index_rows(lake, plan, config):
            writer.write(rows)
        files = writer.close()
    swap_files(lake, identifier, partition, table.data_files(partition), [f.path for f in files])
    return sum(f.rows for f in files)


def index_rows(lake: Lakehouse, plan: RunPlan, config: NearConfig) -> Iterator[pa.Table]:
    """Yields the rows of a crawl's index, band after band, sorted by (band, key, doc_id).

    The index has one document of each exact text, the one with the lowest id. Signed texts are read file by file; the
    keys of the whole crawl are in memory, 16 bytes x bands a document.
    """
    documents, partition = input_table(lake, plan, "clean")
    ids = documents.scan(partition, columns=["doc_id", "dedup_digest", "kept"])
    first = ids.filter(ids["kept"]).group_by("dedup_digest").aggregate([("doc_id", "min")])["doc_id_min"]
    del ids
    batches = texts_of(documents, partition, first.combine_chunks())
    index = memory_index(batches, config, len(first))
    for band in range(config.bands):
        keys, numbers = index.band(band)
        for start in range(0, len(keys), BATCH_ROWS):
            some = slice(start, start + BATCH_ROWS)
            n = len(keys[some])
            columns: list[Strings] = [
                pa.array([plan.crawl] * n, STRING),
                pa.array([config.index_fingerprint()] * n, STRING),
                pa.array(np.full(n, band, dtype=np.int32)),
                key_column(keys[some]),
                index.doc_ids.take(pa.array(numbers[some], pa.int64())),
            ]
            yield pa.Table.from_arrays(columns, schema=MINHASH.schema)


def memory_index(batches: Iterable[tuple[Column, Column]], config: NearConfig, at_most: int) -> MemoryIndex:
    """Returns an index made from ids and texts of at most so many documents."""
    signer = signer_of(config.bands, config.rows, config.ngram)
    return MemoryIndex(sign(batches, signer, config.bands), config.bands, at_most)


@functools.lru_cache(maxsize=2)
def signer_of(bands: int, rows: int, ngram: int) -> Signer:
    """Returns the process's signer of some settings: it remembers how words are split, and takes seconds to make."""
    return Signer(bands=bands, rows=rows, ngram=ngram)


def texts_of(
    table: LakeTable, partition: dict[str, str], wanted: Strings, ref: str | None = None
) -> Iterator[tuple[Column, Column]]:
    """Yields ids and texts of documents, a bounded number at a time; input files with none of them are not read.

    Ids and file names of the whole partition are in memory at first, about 150 bytes a document.

    Args:
        table: ``documents`` or ``corpus``.
        partition: Partition column values.
        wanted: Ids of the documents.
        ref: Branch or tag; None reads main.
    """
    places = table.scan(partition, columns=["warc_file", "doc_id"], ref=ref)
    places = places.filter(pc.is_in(places["doc_id"], value_set=wanted)).sort_by("warc_file")
    counts = places.group_by("warc_file").aggregate([("doc_id", "count")]).sort_by("warc_file").to_pylist()
    sizes = {row["warc_file"]: row["doc_id_count"] for row in counts}
    start = 0
    for name, rows in table.iter_groups(partition, groups=list(sizes), columns=["doc_id", "text"], ref=ref):
        of_file = places["doc_id"].slice(start, sizes[name]).combine_chunks()
        start += sizes[name]
        for batch in slices(rows.filter(pc.is_in(rows["doc_id"], value_set=of_file)), BATCH_DOCUMENTS):
            yield batch["doc_id"], batch["text"]
