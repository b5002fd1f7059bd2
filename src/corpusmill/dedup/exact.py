"""Exact duplicates: documents whose cleaned text has the same 128-bit hash.

The answer is a table of every document that has a duplicate, with the copy that stays and where it is. A document is
removed only if its survivor is in the same crawl or stands in the published corpus of an older crawl. Near duplicates
are found beside them (`near`) and joined to the same answer (`policy`). DuckDB does the joins; ids and digests of one
crawl are in memory (about 150 bytes a document), and of each older crawl while it is looked at.
"""

from collections.abc import Iterable

import duckdb
import pyarrow as pa

from corpusmill.schema import DUPLICATES


def find_exact_duplicates(documents: pa.Table, crawl: str, older: Iterable[tuple[str, pa.Table]]) -> pa.Table:
    """Returns one row per document of this crawl that has an exact duplicate.

    Args:
        documents: Columns ``doc_id``, ``warc_file``, ``dedup_digest`` of the crawl's kept documents, in any order.
        crawl: The crawl's id.
        older: Published corpora of older crawls, oldest first: (crawl, table with ``doc_id`` and ``dedup_digest``).

    Returns:
        Rows of `schema.DUPLICATES`, sorted by doc_id: removed copies (``kept`` false) and, for clusters whose survivor
        is in this crawl, the survivor itself (``kept`` true, ``duplicate_of`` its own id). A cluster has the id of its
        survivor.
    """
    connection = duckdb.connect()
    try:
        connection.register("documents", documents)
        connection.execute(
            "create table published (digest varchar, doc_id varchar, crawl varchar, age integer)",
        )
        for age, (older_crawl, table) in enumerate(older):
            connection.register("older_corpus", table)
            connection.execute(
                "insert into published select p.dedup_digest, p.doc_id, ?, ? from older_corpus p "
                "where p.dedup_digest in (select dedup_digest from documents)",
                [older_crawl, age],
            )
            connection.unregister("older_corpus")
        result = connection.sql(_CLUSTERS, params={"crawl": crawl}).to_arrow_table()
    finally:
        connection.close()
    return result.cast(DUPLICATES.schema)


_CLUSTERS = """
with oldest as (
  select digest, arg_min(doc_id, (age, doc_id)) as survivor, arg_min(crawl, (age, doc_id)) as survivor_crawl
  from published group by digest
), here as (
  select dedup_digest as digest, min(doc_id) as first_id, count(*) as copies from documents group by dedup_digest
)
select $crawl as crawl, d.doc_id, d.warc_file, 'exact' as kind, coalesce(o.survivor, h.first_id) as cluster,
  coalesce(o.survivor, h.first_id) as duplicate_of, coalesce(o.survivor_crawl, $crawl) as duplicate_of_crawl,
  1.0::double as similarity, (o.survivor is null and d.doc_id = h.first_id) as kept,
  coalesce(o.survivor_crawl, $crawl) as cluster_crawl
from documents d join here h on h.digest = d.dedup_digest left join oldest o on o.digest = d.dedup_digest
where o.survivor is not null or h.copies > 1
order by d.doc_id
"""
