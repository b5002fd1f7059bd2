"""The scored rows of a crawl as shards of a selection: one input file at a time, only the columns that are needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.selection import Rows, columns_read, rows_of
from corpusmill.runner.building.sampling import registered_domain
from corpusmill.runner.inputs import without
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import input_table
from corpusmill.schema import SCORES, STRING

DOMAIN = "domain"
"""Stratum that no score holds: the registered domain of the document's URL."""
SELECTABLE = SCORES.schema.append(pa.field(DOMAIN, STRING))
"""Columns that a selection may name."""


def score_groups(
    lake: Lakehouse, plan: RunPlan, files: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Yields (input file, its score rows) for each file; ``domain`` is taken from the documents' URLs."""
    table, partition = input_table(lake, plan, "score")
    groups = table.iter_groups(partition, groups=files, columns=[c for c in columns if c != DOMAIN])
    if DOMAIN not in columns:
        yield from groups
        return
    documents, at = input_table(lake, plan, "clean")
    places = documents.iter_groups(at, groups=files, columns=["doc_id", "url"])
    for (name, rows), (_, pages) in zip(groups, places, strict=True):
        urls = pages["url"].take(pc.index_in(rows["doc_id"], value_set=pages["doc_id"].combine_chunks()))
        domains = [registered_domain(str(url or "")) for url in urls.to_pylist()]
        yield name, rows.append_column(pa.field(DOMAIN, STRING), pa.array(domains, STRING))


@dataclass
class ScoreShards:
    """Reads a crawl's scores again for each pass of a selection; memory is bounded by one input file.

    Attributes:
        score_keys: Score keys that were seen so far.
        n_rows: Rows that the last whole pass read.
    """

    lake: Lakehouse
    plan: RunPlan
    config: SelectionConfig
    files: Sequence[str]
    duplicates: Column | None = None

    def __post_init__(self) -> None:
        self.score_keys: set[str] = set()
        self.n_rows = 0

    def __call__(self) -> Iterator[Rows]:
        """Yields the rows of each input file, less the given duplicates."""
        self.n_rows = 0
        for _, scores in score_groups(self.lake, self.plan, self.files, columns_read(self.config)):
            rows = scores if self.duplicates is None else without(scores, self.duplicates)
            self.score_keys.update(str(key) for key in rows["score_key"].unique().to_pylist())
            self.n_rows += rows.num_rows
            yield rows_of(rows, self.config)
