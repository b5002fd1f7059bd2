"""Finds the crawl's duplicates, exact and near, within itself and against the published corpora of older crawls.

Where the recipe asks for it, repeated lines as well; these are committed first, to a table of their own.
"""

import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.dedup.config import Survivor
from corpusmill.dedup.exact import find_exact_duplicates
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import claim_partition
from corpusmill.report import StageReport
from corpusmill.runner.duplicate_lines import (
    committed_lines,
    compares_lines,
    line_counts,
    store_duplicate_lines,
)
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import RecordNotFoundError
from corpusmill.runner.stage_tables import input_table, stage_table
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import DUPLICATES, STRING


def kept_documents(lake: Lakehouse, plan: RunPlan) -> pa.Table:
    """Returns ids, digests and lengths of the documents that the rules kept."""
    documents, partition = input_table(lake, plan, "clean")
    rows = documents.scan(partition, columns=["doc_id", "warc_file", "dedup_digest", "n_chars", "kept"])
    return rows.filter(rows["kept"])


def find_duplicates(lake: Lakehouse, plan: RunPlan, kept: pa.Table, ref: str | None = None) -> pa.Table:
    """Returns the rows of `schema.DUPLICATES` for the plan's crawl against the plan's deduplication base.

    Args:
        lake: The lakehouse.
        plan: The run, with its base.
        kept: The crawl's `kept_documents`.
        ref: Branch of the corpus that holds the base's crawls; None reads what is published.
    """
    config = plan.parsed_recipe().deduplication
    if config.method is None:
        return DUPLICATES.schema.empty_table()
    documents = kept.select(["doc_id", "warc_file", "dedup_digest"])
    exact = find_exact_duplicates(documents, plan.crawl, _published(lake, plan, ref) if config.across_crawls else ())
    if config.near is None:
        return exact
    from corpusmill.runner.near_duplicates import join_near_duplicates  # numba, where it is needed

    return join_near_duplicates(lake, plan, kept, exact, ref)


def removed_ids(duplicates: pa.Table) -> Column:
    """Returns the document ids that deduplication removes."""
    return duplicates.filter(pc.invert(duplicates["kept"]))["doc_id"]


def deduplicate(lake: Lakehouse, plan: RunPlan) -> StageReport:
    """Commits the crawl's duplicates and returns the report; a second run with the same base does nothing."""
    started = time.monotonic()
    place, token = stage_table(plan, "deduplicate"), plan.token("deduplicate")
    done = claim_partition(lake, place.identifier, place.partition, token) is not None
    if done and (not compares_lines(plan) or committed_lines(lake, plan)):
        return StageReport(stage="deduplicate", crawl=plan.crawl, skipped=True)
    kept = kept_documents(lake, plan)
    if compares_lines(plan):
        store_duplicate_lines(lake, plan, kept)
    if done:  # a run with other settings had replaced the lines, and ended before it replaced the duplicates
        return StageReport(stage="deduplicate", crawl=plan.crawl, skipped=True)
    found = find_duplicates(lake, plan, kept)
    report = StageReport(stage="deduplicate", crawl=plan.crawl)
    left = _without(kept, removed_ids(found))
    report.documents_in, report.characters_in = kept.num_rows, _total(kept["n_chars"])
    report.documents_kept, report.characters_kept = left.num_rows, _total(left["n_chars"])
    report.removed = _reasons(found, plan.crawl, plan.parsed_recipe().deduplication.survivor)
    if compares_lines(plan):
        _count_lines(report, left, line_counts(lake, plan))
    report.seconds = round(time.monotonic() - started, 3)
    result = commit_rows(lake, place.identifier, place.partition, found, token, report.to_json())
    report.skipped = result.already
    return report


def _without(rows: pa.Table, ids: Column) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=ids.combine_chunks())))


def _total(counts: Column) -> int:
    return int(pc.sum(counts).as_py() or 0)


def _count_lines(report: StageReport, left: pa.Table, lines: pa.Table) -> None:
    """Takes off what lines cost the documents that deduplication left; white space between lines is not counted."""
    lost = lines.filter(pc.is_in(lines["doc_id"], value_set=left["doc_id"].combine_chunks()))
    gone, shortened = lost.filter(pc.invert(lost["kept"])), lost.filter(lost["kept"])
    whole = left.filter(pc.is_in(left["doc_id"], value_set=gone["doc_id"].combine_chunks()))
    report.documents_kept -= whole.num_rows
    report.characters_kept -= _total(whole["n_chars"]) + _total(shortened["n_chars_removed"])
    for reason in sorted(str(r) for r in gone["reason"].unique().to_pylist()):
        of_reason = gone.filter(pc.equal(gone["reason"], pa.scalar(reason, STRING)))
        report.removed[reason] = of_reason.num_rows
    report.metrics["documents_shortened"] = shortened.num_rows
    report.metrics["lines_removed"] = _total(shortened["n_units_removed"])


def _published(lake: Lakehouse, plan: RunPlan, ref: str | None) -> Iterator[tuple[str, pa.Table]]:
    corpus = lake.table(f"{plan.name}.corpus")
    for base in plan.base:
        found = corpus.partition_key({"crawl": base.crawl})
        if ref is None and found != base.key:
            raise RecordNotFoundError(
                f"the published corpus of {base.crawl} has content key={found!r}, expected {base.key!r} of the plan: "
                "that crawl was published again since; clear this run from 'plan'"
            )
        yield base.crawl, corpus.scan({"crawl": base.crawl}, columns=["doc_id", "dedup_digest"], ref=ref)


_SAME_CRAWL = {"exact": "deduplicate.exact_same_crawl", "near": "deduplicate.near_same_crawl"}
"""Reasons by kind for a copy in the same crawl."""
_OTHER_CRAWL: dict[Survivor, dict[str, str]] = {
    "oldest_crawl": {"exact": "deduplicate.exact_older_crawl", "near": "deduplicate.near_older_crawl"},
    "first_published": {"exact": "deduplicate.exact_published_crawl", "near": "deduplicate.near_published_crawl"},
}
"""Reasons by policy and kind for a copy in another crawl."""


def _reasons(found: pa.Table, crawl: str, survivor: Survivor) -> dict[str, int]:
    out = found.filter(pc.invert(found["kept"]))
    here = pc.equal(out["duplicate_of_crawl"], pa.scalar(crawl, STRING))
    counts = {}
    for kind, same in _SAME_CRAWL.items():
        of_kind = pc.equal(out["kind"], pa.scalar(kind, STRING))
        counts[same] = out.filter(pc.and_(of_kind, here)).num_rows
        counts[_OTHER_CRAWL[survivor][kind]] = out.filter(pc.and_(of_kind, pc.invert(here))).num_rows
    return {reason: n for reason, n in counts.items() if n}
