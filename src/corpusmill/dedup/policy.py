"""Which copy stays: one answer from exact copies and near duplicates, with the survivor of every removed document."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.dedup.clusters import Edges, Ids, connected_components
from corpusmill.dedup.minhash import Strings
from corpusmill.dedup.near import CrawlDocuments, Match
from corpusmill.schema import DUPLICATES, STRING, required

FindRoots: TypeAlias = Callable[[Strings, Edges], Ids]
"""Returns the lowest number of each document's component, from the documents' sorted ids and edges of their numbers."""

NEAR_ROWS = pa.schema(
    [
        required("doc_id", STRING),
        required("duplicate_of", STRING),
        required("duplicate_of_crawl", STRING),
        required("similarity", pa.float64()),
        required("cluster", STRING),
        required("cluster_crawl", STRING),
    ]
)
"""A near duplicate that is removed: what it matched, how alike they are, and the document that stands for both."""


def embedded_roots(doc_ids: Strings, edges: Edges) -> Ids:
    """Returns the lowest number of each document's component, (documents,), by union-find in this process."""
    return connected_components(len(doc_ids), [edges])


def near_rows(
    crawls: Sequence[CrawlDocuments],
    found: Mapping[int, Match],
    exact: pa.Table,
    find_roots: FindRoots = embedded_roots,
) -> pa.Table:
    """Returns the removed near duplicates of the last crawl as `NEAR_ROWS`, in order of their ids.

    A document that matches one of its own crawl has the survivor of that one: the root of their tree where that stays,
    else what the root was removed for.

    Args:
        crawls: As given to `NearDuplicates`.
        found: Its matches.
        exact: The crawl's exact duplicates, rows of `schema.DUPLICATES`.
        find_roots: Finds the clusters inside the crawl.
    """
    own = len(crawls) - 1
    inside = [(number, m.target[1]) for number, m in found.items() if m.target[0] == own]
    roots = find_roots(crawls[own].index.doc_ids, np.array(inside, dtype=np.int64).reshape(-1, 2))
    gone = exact.filter(pc.invert(exact["kept"])).select(["doc_id", "cluster", "cluster_crawl"]).to_pylist()
    survivors = {row["doc_id"]: (row["cluster"], row["cluster_crawl"]) for row in gone}

    def named(node: tuple[int, int]) -> tuple[str, str]:
        return crawls[node[0]].index.doc_ids[node[1]].as_py(), crawls[node[0]].crawl

    def survivor(number: int, match: Match) -> tuple[str, str]:
        if match.survivor[0] != own:
            return named(match.survivor)
        root = int(roots[number])
        if root in found:
            return named(found[root].survivor)
        doc_id, crawl = named((own, root))
        return survivors.get(doc_id, (doc_id, crawl))

    rows = []
    for number, match in found.items():
        doc_id, _ = named((own, number))
        rows.append((doc_id, *named(match.target), match.similarity, *survivor(number, match)))
    columns = list(zip(*rows, strict=True)) or [()] * len(NEAR_ROWS)
    return pa.table([pa.array(column, f.type) for column, f in zip(columns, NEAR_ROWS, strict=True)], schema=NEAR_ROWS)


def with_near(exact: pa.Table, near: pa.Table, documents: pa.Table, crawl: str) -> pa.Table:
    """Returns exact and near duplicates of a crawl as rows of `schema.DUPLICATES`, one a document, sorted by doc_id.

    Args:
        exact: Rows of `schema.DUPLICATES`.
        near: Rows of `NEAR_ROWS`; none is removed as an exact copy as well.
        documents: ``doc_id`` and ``warc_file`` of the crawl's documents.
        crawl: The crawl's id.
    """
    connection = duckdb.connect()
    try:
        for name, table in {"exact": exact, "near": near, "documents": documents}.items():
            connection.register(name, table)
        rows = connection.sql(_MERGE, params={"crawl": crawl}).to_arrow_table()
    finally:
        connection.close()
    return rows.select(DUPLICATES.schema.names).cast(DUPLICATES.schema)


_MERGE = """
with copies as (
  select e.crawl, e.doc_id, e.warc_file, 'exact' as kind, coalesce(n.cluster, e.cluster) as cluster, e.duplicate_of,
    e.duplicate_of_crawl, e.similarity, e.kept, coalesce(n.cluster_crawl, e.cluster_crawl) as cluster_crawl
  from exact e left join near n on n.doc_id = e.duplicate_of and e.duplicate_of_crawl = $crawl
  where e.doc_id not in (select doc_id from near)
), like_others as (
  select $crawl as crawl, n.doc_id, d.warc_file, 'near' as kind, n.cluster, n.duplicate_of, n.duplicate_of_crawl,
    n.similarity, false as kept, n.cluster_crawl
  from near n join documents d using (doc_id)
), roots as (
  select distinct cluster as doc_id from near
  where cluster_crawl = $crawl and cluster not in (select doc_id from copies)
)
select * from copies union all select * from like_others union all
select $crawl, r.doc_id, d.warc_file, 'near', r.doc_id, r.doc_id, $crawl, 1.0::double, true, $crawl
from roots r join documents d using (doc_id)
order by doc_id
"""
