"""The stored outcome of `select`: which scored documents stay, as a pure predicate that any shard applies."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.selection import rows_of
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import read_record, record_uri


@dataclass(frozen=True)
class StoredSelection:
    """A selection manifest with the settings it was made by; ``config`` None keeps every document."""

    config: SelectionConfig | None
    manifest: Manifest | None

    def keep(self, documents: pa.Table, scores: pa.Table) -> pa.Table:
        """Returns the documents that the selection keeps.

        Args:
            documents: Rows with ``doc_id``; order is kept.
            scores: Rows of `schema.SCORES`, one per scored document.
        """
        if self.config is None or self.manifest is None:
            return documents
        rows = rows_of(scores, self.config)
        mask = self.manifest.keep(rows.values, rows.doc_ids, rows.strata)
        kept = scores["doc_id"].filter(pa.array(mask))
        if not len(kept):
            return documents.slice(0, 0)
        return documents.filter(pc.is_in(documents["doc_id"], value_set=kept.combine_chunks()))


def selection_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where a run's selection is stored; its place depends on its content key alone."""
    return record_uri(lake, plan.name, plan.crawl, "selections", f"{plan.keys['select']}.json")


def stored_selection(lake: Lakehouse, plan: RunPlan) -> StoredSelection:
    """Returns the selection that `select` stored for this run."""
    config = plan.parsed_recipe().select
    if config is None:
        return StoredSelection(None, None)
    record = read_record(lake, selection_uri(lake, plan))
    return StoredSelection(config, Manifest.from_json(record["manifest"]))
