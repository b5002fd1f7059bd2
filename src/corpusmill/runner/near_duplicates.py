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
from corpusmill.runner.plan import BaseCrawl, RunPlan
from corpusmill.runner.provenance import source_plan
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
    return with_near(exact, _find(crawls, config, exact), kept.select(["doc_id", "warc_file"]), plan.crawl)


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
    rows = _find(crawls, config, DUPLICATES.schema.empty_table())
    removed = rows.filter(pc.not_equal(rows["duplicate_of_crawl"], pa.scalar(stored.crawl, STRING)))["doc_id"]
    digests = corpus.scan({"crawl": stored.crawl}, columns=["doc_id", "dedup_digest"], ref=ref)
    return digests.filter(pc.is_in(digests["doc_id"], value_set=removed.combine_chunks()))["dedup_digest"]


def _find(crawls: Sequence[CrawlDocuments], config: NearConfig, exact: pa.Table) -> pa.Table:
    gone = exact.filter(pc.invert(exact["kept"]))["doc_id"].combine_chunks()
    doc_ids = crawls[-1].index.doc_ids
    removed = np.asarray(pc.is_in(doc_ids, value_set=gone).to_numpy(zero_copy_only=False), dtype=np.bool_)
    shingler = signer_of(config.bands, config.rows, config.ngram).shingler
    with NearDuplicates(crawls, config.bands, config.threshold, shingler) as near:
        return near_rows(crawls, near.find(removed), exact)


def _published(
    lake: Lakehouse, plan: RunPlan, base: BaseCrawl, config: NearConfig, ids: DocumentIds, ref: str | None
) -> CrawlDocuments:
    """Returns an older crawl as it was published: its index, the texts that it was made from, what the corpus holds."""
    source = source_plan(lake, plan.name, base.crawl, base.key)
    place, at = f"{plan.name}.{MINHASH.name}", {"crawl": base.crawl}
    documents, corpus = lake.table(f"{plan.name}.documents"), lake.table(f"{plan.name}.corpus")
    same_documents = documents.partition_key(at) == source.keys["clean"]
    if same_documents and lake.table(place).partition_key(at) != index_key(source, config):
        log.info("crawl %s has no index of these settings: it is built from its stored documents", base.crawl)
        build_index(lake, source, config, index_token(lake, source, config))
    table = lake.table(place)
    if not same_documents or table.partition_key(at) != index_key(source, config):
        return _of_corpus(corpus, source, config, ref)
    index = StoredIndex(lake, table, base.crawl, config, ids)
    read = partial(texts_of, documents, at)
    return CrawlDocuments(base.crawl, index, read, partial(_held, corpus, base.crawl, index, ref))


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
