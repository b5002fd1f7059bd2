"""What a commit of the cleaned documents refuses: rows that no later stage could use."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.batches import rows_to_table
from corpusmill.errors import Permanent, ValidationFailedError
from corpusmill.lakehouse.shards import ShardWriter
from corpusmill.report import StageReport
from corpusmill.runner import chain
from corpusmill.runner.plan import RunPlan, Shard, load_plan
from corpusmill.runner.stage_tables import stage_table
from corpusmill.schema import DOCUMENTS, PAGES

CRAWL = "C-2024-10"
PAGES_PER_FILE = 3


def page_row(plan: RunPlan, file: str, n: int) -> dict:
    return {
        "crawl": plan.crawl, "extraction": plan.extraction, "doc_id": f"{file}/{n}", "url": f"https://a.example/{n}",
        "warc_file": file, "warc_offset": 100 * n, "warc_length": 100, "text": f"text {n}", "text_digest": f"t{n}",
        "n_chars": 6, "n_surrogates": 0, "truncated": False,
    }  # fmt: skip


def document_row(plan: RunPlan, file: str, n: int) -> dict:
    return {
        "crawl": plan.crawl, "doc_id": f"{file}/{n}", "url": f"https://a.example/{n}", "warc_file": file,
        "language": "en", "n_chars_raw": 6, "n_chars": 6, "n_pii": 0, "kept": True, "dedup_digest": f"d{n}",
        "text": f"text {n}",
    }  # fmt: skip


def write(plan: RunPlan, stage: str, shard: Shard, rows: list[dict], schema: pa.Schema) -> None:
    """Leaves a shard's rows as the stage itself would, under the plan's token."""
    place = stage_table(plan, stage)
    table = chain.open_lakehouse().table(place.identifier)
    n = len(rows)
    report = StageReport(stage=stage, crawl=plan.crawl, shard=shard.name, documents_in=n, documents_kept=n)
    with ShardWriter(table, place.partition, plan.token(place.key_name), shard.identity) as writer:
        writer.write(rows_to_table(rows, schema))
        writer.finish(report.to_json())


@pytest.fixture
def planned(home: Path, tmp_path: Path) -> tuple[str, RunPlan]:
    """A run of two shards whose pages are committed: the plan's URI and the plan."""
    base = tmp_path / "crawls"
    manifest = base / "crawl-data" / CRAWL / "warc.paths.gz"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(gzip.compress(b"a.warc.gz\nb.warc.gz\n"))
    chain.initialise(["tiny"])
    recipe = {"name": "tiny", "source": {"base": str(base)}, "shards": {"max_shards": 2}}
    uri = chain.plan(recipe, CRAWL, "run")["plan"]
    plan = load_plan(chain.open_lakehouse(), uri)
    for shard in plan.shards:
        rows = [page_row(plan, file, n) for file in shard.files for n in range(PAGES_PER_FILE)]
        write(plan, "ingest", shard, rows, PAGES.schema)
    assert chain.commit(uri, "ingest")["documents_in"] == 2 * PAGES_PER_FILE
    return uri, plan


def clean(plan: RunPlan, change: Callable[[list[dict]], list[dict]]) -> None:
    """Writes the documents of both shards, those of the second one changed."""
    for shard in plan.shards:
        rows = [document_row(plan, file, n) for file in shard.files for n in range(PAGES_PER_FILE)]
        write(plan, "clean", shard, change(rows) if shard is plan.shards[-1] else rows, DOCUMENTS.schema)


def first_changed(**values) -> Callable[[list[dict]], list[dict]]:
    return lambda rows: [{**rows[0], **values}, *rows[1:]]


def test_documents_that_match_their_pages_are_committed(planned):
    uri, plan = planned
    clean(plan, lambda rows: rows)
    assert chain.commit(uri, "clean")["documents_in"] == 2 * PAGES_PER_FILE
    assert chain.open_lakehouse().table("tiny.documents").count({"crawl": CRAWL}) == 2 * PAGES_PER_FILE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first_changed(text=None, dedup_digest=None, n_chars=0), r"kept_without_text_rows.*observed 1.*at most 0"),
        (lambda rows: rows[1:], r"documents_rows.*5.*pages_rows.*6"),
        (lambda rows: [*rows, {**rows[0], "doc_id": "b.warc.gz/99"}], r"documents_rows.*7.*pages_rows.*6"),
        (first_changed(kept=False, drop_reason=None), r"removed_without_reason_rows.*observed 1.*at most 0"),
    ],
    ids=["a kept document without text", "a page without a row", "a row without a page", "a removal without a reason"],
)
def test_documents_that_break_their_contract_fail_the_commit_at_every_attempt(planned, change, message):
    uri, plan = planned
    clean(plan, change)
    for _ in range(2):  # a retry finds the rows committed, and must not take that for success
        with pytest.raises(ValidationFailedError, match=message) as caught:
            chain.commit(uri, "clean")
        assert isinstance(caught.value, Permanent)
        assert str(caught.value).startswith(f"clean of {CRAWL} breaks its contract")
