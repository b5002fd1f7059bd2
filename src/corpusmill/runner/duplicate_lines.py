"""Repeated lines of a crawl through the lakehouse: which documents lose what, and the texts without it.

What a document loses depends on the crawl's cleaned documents alone, never on what is published; so a text stays the
same whatever crawl is published before or after it, and no model has to read it again (decision 0010). Documents keep
their whole text in ``<recipe>.documents``; everything after deduplication reads them through `shortened_texts`.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.dedup.text_units import Span, without_units
from corpusmill.lakehouse.catalog import Lakehouse, NotInitialisedError
from corpusmill.lakehouse.commit import claim_partition, commit_partition
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.shards import ShardWriter
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import committed, input_table, stage_table
from corpusmill.runner.whole_crawl import WHOLE_CRAWL
from corpusmill.schema import STRING

STAGE = "lines"
Shorten = Callable[[pa.Table], pa.Table]


def store_duplicate_lines(lake: Lakehouse, plan: RunPlan, kept: pa.Table) -> None:
    """Commits what the crawl's documents lose, rows of `schema.DUPLICATE_LINES`; a second time does nothing.

    Where exact copies are removed, they neither lose nor hold a line: only the copy with the lowest id does.

    Args:
        lake: The lakehouse.
        plan: A run whose recipe compares lines.
        kept: ``doc_id`` and ``dedup_digest`` of the documents that the rules kept.
    """
    from corpusmill.dedup.duplicate_lines import DuplicateLines

    deduplication = plan.parsed_recipe().deduplication
    config = deduplication.lines
    assert config is not None, "the recipe compares no lines"
    place, token = stage_table(plan, STAGE), plan.token(STAGE)
    if claim_partition(lake, place.identifier, place.partition, token) is not None:
        return
    ids = kept["doc_id"]
    if deduplication.method is not None:
        ids = kept.group_by("dedup_digest").aggregate([("doc_id", "min")])["doc_id_min"]
    wanted = ids.combine_chunks()
    documents, at = input_table(lake, plan, "clean")
    scratch = corpusmill_home() / "scratch" / "lines" / plan.name / plan.crawl
    shutil.rmtree(scratch, ignore_errors=True)  # what an attempt that was killed has left
    scratch.mkdir(parents=True)
    with DuplicateLines(plan.crawl, wanted, plan.files, config, scratch=scratch) as lines:
        for name, rows in documents.iter_groups(at, groups=plan.files, columns=["doc_id", "kept", "text"]):
            found = rows.filter(rows["kept"])
            found = found.filter(pc.is_in(found["doc_id"], value_set=wanted))
            lines.add(name, found["doc_id"], found["text"])
        with ShardWriter(lake.table(place.identifier), place.partition, token, WHOLE_CRAWL) as writer:
            for part in lines.rows():
                writer.write(part)
            manifest = writer.finish({})
    shutil.rmtree(scratch, ignore_errors=True)
    commit_partition(lake, place.identifier, place.partition, [manifest], token, expected_shards=[WHOLE_CRAWL])


def compares_lines(plan: RunPlan) -> bool:
    """Returns whether the run removes repeated lines."""
    return STAGE in plan.keys


def committed_lines(lake: Lakehouse, plan: RunPlan) -> bool:
    """Returns whether the run removes repeated lines and its table of them holds what it would write."""
    if not compares_lines(plan):
        return False
    try:
        return committed(lake, plan, STAGE)
    except NotInitialisedError:  # a lakehouse of an older version has no such table yet
        return False


def line_counts(lake: Lakehouse, plan: RunPlan) -> pa.Table:
    """Returns what each document that loses lines loses, without the lines: ids, outcome, counts."""
    table, at = input_table(lake, plan, STAGE)
    return table.scan(at, columns=["doc_id", "kept", "reason", "n_units_removed", "n_chars_removed"])


def shortened_texts(lake: Lakehouse, plan: RunPlan, files: Sequence[str]) -> Iterator[Shorten]:
    """Yields for each file what takes the documents that lost too much, and their lines from the others.

    It takes rows with ``doc_id`` and ``text`` of that file, in any order, and is the identity where the recipe compares
    no lines.

    Args:
        lake: The lakehouse.
        plan: The run.
        files: Input files.
    """
    if not compares_lines(plan):
        for _ in files:
            yield _as_it_is
        return
    table, at = input_table(lake, plan, STAGE)
    for _, rows in table.iter_groups(at, groups=files, columns=["doc_id", "kept", "removed"]):
        yield _ShortenFile(rows)


def _as_it_is(rows: pa.Table) -> pa.Table:
    return rows


class _ShortenFile:
    def __init__(self, lines: pa.Table) -> None:
        self._gone = lines.filter(pc.invert(lines["kept"]))["doc_id"]
        left = lines.filter(lines["kept"])
        self._number = {str(doc_id): n for n, doc_id in enumerate(left["doc_id"].to_pylist())}
        self._removed: Column = left["removed"]

    def __call__(self, rows: pa.Table) -> pa.Table:
        if len(self._gone):
            rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=self._gone.combine_chunks())))
        if not self._number:
            return rows
        texts = [
            self._shortened(str(doc_id), str(text))
            for doc_id, text in zip(rows["doc_id"].to_pylist(), rows["text"].to_pylist(), strict=True)
        ]
        return rows.set_column(
            rows.schema.get_field_index("text"), rows.schema.field("text"), pa.chunked_array([pa.array(texts, STRING)])
        )

    def _shortened(self, doc_id: str, text: str) -> str:
        number = self._number.get(doc_id)
        if number is None:
            return text
        units: list[dict[str, Any]] = self._removed[number].as_py()
        return without_units(text, [Span(unit["start"], unit["end"]) for unit in units])
