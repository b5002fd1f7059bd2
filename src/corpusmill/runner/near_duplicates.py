"""Near duplicates of a crawl through the lakehouse: its index, the published older crawls, the texts of candidates.

What a run reads of an older crawl is its band keys, part by part, and the texts of the documents that share one with
the new crawl. Nothing of an older crawl is computed again, but for one published before it had an index.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.dedup.candidates import Mask
from corpusmill.dedup.config import NearConfig
from corpusmill.dedup.index import BandIndex
from corpusmill.dedup.minhash import Strings
from corpusmill.dedup.near import CrawlDocuments, NearDuplicates
from corpusmill.dedup.policy import near_rows, with_near
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.table import LakeTable
from corpusmill.runner.dedup_index import (
    DocumentIds,
    StoredIndex,
    build_index,
    index_key,
    index_token,
    memory_index,
    signer_of,
    texts_of,
)
from corpusmill.runner.pair_files import PairFiles, StoredJoin, join_parts
from corpusmill.runner.plan import BaseCrawl, RunPlan
from corpusmill.runner.provenance import source_plan
from corpusmill.runner.spark_shuffles import open_shuffles
from corpusmill.runner.stage_tables import input_table
from corpusmill.schema import DUPLICATES, MINHASH, STRING

log = logging.getLogger(__name__)


def join_near_duplicates(
    lake: Lakehouse, plan: RunPlan, kept: pa.Table, exact: pa.Table, ref: str | None = None
) -> pa.Table:
    """Returns exact and near duplicates of the plan's crawl as rows of `schema.DUPLICATES`.

    Args:
        lake: The lakehouse.
        plan: The run, with its base; the crawl's index is built where it is missing.
        kept: ``doc_id`` and ``warc_file`` of the crawl's documents.
        exact: The crawl's exact duplicates.
        ref: Branch of the corpus that holds the base's crawls; None reads what is published.
    """
    deduplication = plan.parsed_recipe().deduplication
    config = deduplication.near
    if config is None:
        return exact
    if ref is None:
        build_index(lake, plan, config, plan.token("minhash"))
    ids = DocumentIds()
    documents, at = input_table(lake, plan, "clean")
    index = StoredIndex(lake, input_table(lake, plan, "minhash")[0], plan.crawl, config, ids, keep_numbers=True)
    own = CrawlDocuments(plan.crawl, index, partial(texts_of, documents, at), _nothing)
    base = plan.base if deduplication.across_crawls else ()
    crawls = [*(_published(lake, plan, b, config, ids, ref) for b in base), own]
    rows = _find(lake, plan, crawls, config, exact)
    return with_near(exact, rows, kept.select(["doc_id", "warc_file"]), plan.crawl)


def indexes_of(lake: Lakehouse, plan: RunPlan, config: NearConfig) -> list[StoredIndex]:
    """Returns the indexes that a plan's crawl is joined with, its own last; what is missing is built.

    Crawls whose published texts must stand in for their documents have none.
    """
    build_index(lake, plan, config, plan.token("minhash"))
    ids = DocumentIds()
    base = plan.base if plan.parsed_recipe().deduplication.across_crawls else ()
    sources = [source_plan(lake, plan.name, b.crawl, b.key) for b in base]
    older = [_stored_index(lake, source, config, ids) for source in sources]
    own = StoredIndex(lake, input_table(lake, plan, "minhash")[0], plan.crawl, config, ids, keep_numbers=True)
    return [*(index for index in older if index is not None), own]


def near_published(lake: Lakehouse, stored: RunPlan, base: Sequence[BaseCrawl], ref: str) -> Column:
    """Returns the digests of a crawl's published documents that are near duplicates of published older crawls.

    For a crawl whose stage tables hold something else by now: its published rows are compared.

    Args:
        lake: The lakehouse.
        stored: The plan that the crawl was published from.
        base: The older crawls.
        ref: Branch that holds all of them.
    """
    config = stored.parsed_recipe().deduplication.near
    if config is None:
        return pa.chunked_array([], STRING)
    ids, corpus = DocumentIds(), lake.table(f"{stored.name}.corpus")
    own = _of_corpus(corpus, stored, config, ref)
    crawls = [*(_published(lake, stored, b, config, ids, ref) for b in base), own]
    rows = _find(lake, stored, crawls, config, DUPLICATES.schema.empty_table())
    removed = rows.filter(pc.not_equal(rows["duplicate_of_crawl"], pa.scalar(stored.crawl, STRING)))["doc_id"]
    digests = corpus.scan({"crawl": stored.crawl}, columns=["doc_id", "dedup_digest"], ref=ref)
    return digests.filter(pc.is_in(digests["doc_id"], value_set=removed.combine_chunks()))["dedup_digest"]


def _find(
    lake: Lakehouse, plan: RunPlan, crawls: Sequence[CrawlDocuments], config: NearConfig, exact: pa.Table
) -> pa.Table:
    gone = exact.filter(pc.invert(exact["kept"]))["doc_id"].combine_chunks()
    indexes = [crawl.index for crawl in crawls]
    removed = np.asarray(pc.is_in(indexes[-1].doc_ids, value_set=gone).to_numpy(zero_copy_only=False), dtype=np.bool_)
    shingler = signer_of(config.bands, config.rows, config.ngram).shingler
    files = PairFiles(lake, plan)
    with open_shuffles(lake, files.scratch, config.bands) as engine:
        join = StoredJoin(files, join_parts(plan, config.bands, indexes), engine)
        with NearDuplicates(crawls, config.bands, config.threshold, shingler, join) as near:
            return near_rows(crawls, near.find(removed, _staying(lake, plan, indexes[-1])), exact, engine.roots)


def _staying(lake: Lakehouse, plan: RunPlan, index: BandIndex) -> Mask | None:
    """Returns which of the crawl's documents are published and stay; None where older crawls come first."""
    if plan.parsed_recipe().deduplication.survivor != "first_published":
        return None
    return _held(lake.table(f"{plan.name}.corpus"), plan.crawl, index, None)


def _published(
    lake: Lakehouse, plan: RunPlan, base: BaseCrawl, config: NearConfig, ids: DocumentIds, ref: str | None
) -> CrawlDocuments:
    """Returns an older crawl as it was published: its index, the texts that it was made from, what the corpus holds."""
    source, at = source_plan(lake, plan.name, base.crawl, base.key), {"crawl": base.crawl}
    documents, corpus = lake.table(f"{plan.name}.documents"), lake.table(f"{plan.name}.corpus")
    index = _stored_index(lake, source, config, ids)
    if index is None:
        return _of_corpus(corpus, source, config, ref)
    read = partial(texts_of, documents, at)
    return CrawlDocuments(base.crawl, index, read, partial(_held, corpus, base.crawl, index, ref))


def _stored_index(lake: Lakehouse, source: RunPlan, config: NearConfig, ids: DocumentIds) -> StoredIndex | None:
    """Returns the index of an older crawl, built where it is missing; None where its documents are others by now.

    Args:
        lake: The lakehouse.
        source: The plan that the crawl was published from.
        config: Settings of the index.
        ids: Shared between the indexes of a run.
    """
    place, at = f"{source.name}.{MINHASH.name}", {"crawl": source.crawl}
    if lake.table(f"{source.name}.documents").partition_key(at) != source.keys["clean"]:
        return None
    if lake.table(place).partition_key(at) != index_key(source, config):
        log.info("crawl %s has no index of these settings: it is built from its stored documents", source.crawl)
        build_index(lake, source, config, index_token(lake, source, config))
    table = lake.table(place)
    if table.partition_key(at) != index_key(source, config):
        return None
    return StoredIndex(lake, table, source.crawl, config, ids)


def _of_corpus(corpus: LakeTable, source: RunPlan, config: NearConfig, ref: str | None) -> CrawlDocuments:
    """Returns a published crawl by its published texts alone, where its stage tables hold something else by now."""
    log.warning(
        "the stage tables of %s no longer hold what it was published from; its published texts are compared: run that "
        "crawl again", source.crawl,
    )  # fmt: skip
    at = {"crawl": source.crawl}
    held = corpus.scan(at, columns=["doc_id"], ref=ref)["doc_id"].combine_chunks()
    index = memory_index(texts_of(corpus, at, held, ref), config, len(held))

    def read(wanted: Strings) -> Iterable[tuple[Column, Column]]:
        return texts_of(corpus, at, wanted, ref)

    return CrawlDocuments(source.crawl, index, read, partial(_held, corpus, source.crawl, index, ref))


def _held(corpus: LakeTable, crawl: str, index: BandIndex, ref: str | None) -> Mask:
    """Returns which documents of an index the corpus holds, (documents,)."""
    held = corpus.scan({"crawl": crawl}, columns=["doc_id"], ref=ref)["doc_id"].combine_chunks()
    return np.asarray(pc.is_in(index.doc_ids, value_set=held).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _nothing() -> Mask:
    return np.empty(0, dtype=np.bool_)
