"""The two crawls of real pages: counts, repeatability, and extraction against gold text."""

import gzip
import json
import re
from collections import Counter, defaultdict
from itertools import chain

import pytest

from corpusmill.ingest.config import IngestConfig, TrafilaturaOptions
from corpusmill.ingest.crawl import list_files
from corpusmill.ingest.stage import IngestStage

pytestmark = [pytest.mark.integration, pytest.mark.slow]
CRAWLS = {"CC-DEMO-2024-10": (496, 490), "CC-DEMO-2024-33": (545, 540)}


def read(base, crawl, stage, scratch):
    for path in list_files(str(base), crawl, stage.config.kind):
        yield from stage.read_file(str(base), path, crawl, scratch)


def jsonl(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def pages(shared_data, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    stage = IngestStage(IngestConfig())
    found = {crawl: list(read(shared_data / "crawls", crawl, stage, scratch)) for crawl in CRAWLS}
    stage.close()
    return found


@pytest.mark.parametrize("crawl", CRAWLS)
def test_every_page_is_a_row_or_a_quarantine_row(shared_data, pages, crawl):
    responses, with_text = CRAWLS[crawl]
    outputs = pages[crawl]
    assert sum(o.metrics.get("responses", 0) for o in outputs) == responses
    assert sum(o.kept.num_rows for o in outputs) == with_text
    assert Counter(q.reason for o in outputs for q in o.quarantine) == {"ingest.no_text": responses - with_text}
    gold = {p["record_id"].rpartition(":")[2]: p for p in jsonl(shared_data / f"crawls/gold/{crawl}.pages.jsonl.gz")}
    for row in (row for o in outputs for row in o.kept.drop_columns(["text"]).to_pylist()):
        page = gold[row["doc_id"]]
        assert (row["url"], row["warc_file"]) == (page["url"], page["warc_filename"])
        assert (row["warc_offset"], row["warc_length"]) == (page["offset"], page["length"])
        assert row["n_bytes_html"] == (1024 * 1024 if page["truncated"] else page["html_bytes"])
        assert row["truncated"] == bool(page["truncated"])


@pytest.mark.parametrize("crawl", CRAWLS)
def test_labelled_copies_give_identical_text(shared_data, pages, crawl):
    digest = {r["url"]: r["text_digest"] for o in chain.from_iterable(pages.values()) for r in o.kept.to_pylist()}
    labelled = jsonl(shared_data / f"crawls/gold/{crawl}.pages.jsonl.gz")
    copies = [
        p for p in labelled if p["dup_kind"] in ("moved", "moved_same_crawl", "boilerplate") and p["url"] in digest
    ]
    assert len(copies) >= 10
    assert all(digest[p["url"]] == digest[p["dup_of"]] for p in copies)


def test_a_second_reading_gives_equal_rows(shared_data, pages, tmp_path):
    stage = IngestStage(IngestConfig())
    again = list(read(shared_data / "crawls", "CC-DEMO-2024-10", stage, tmp_path))
    stage.close()
    assert all(a.kept.equals(b.kept) for a, b in zip(again, pages["CC-DEMO-2024-10"], strict=True))


def test_wet_files_hold_every_page(shared_data, tmp_path):
    stage = IngestStage(IngestConfig(kind="wet"))
    for crawl, (responses, _) in CRAWLS.items():
        assert sum(o.kept.num_rows for o in read(shared_data / "crawls", crawl, stage, tmp_path)) == responses


def token_f1(found, wanted):
    a, b = (Counter(re.findall(r"\w+", text.lower())) for text in (found, wanted))
    return 2 * (a & b).total() / max(1, a.total() + b.total())


def gold_of(shared_data):
    for crawl in CRAWLS:
        folder = shared_data / "crawls" / "gold"
        copies = {p["record_id"] for p in jsonl(folder / f"{crawl}.pages.jsonl.gz") if p["dup_of"]}
        yield from ((crawl, g) for g in jsonl(folder / f"{crawl}.gold.jsonl.gz") if g["record_id"] not in copies)


def scores(shared_data, texts):
    """Mean token-bag F1 by source; of the pages with segments the shares (found, leaked)."""
    by_source, segments = defaultdict(list), Counter()
    for _, gold in gold_of(shared_data):
        text = texts.get(gold["record_id"].rpartition(":")[2], "")
        if gold["kind"] != "segments":
            by_source[gold["source"].partition("/")[0]].append(token_f1(text, gold["text"]))
            continue
        flat = " ".join(text.split())
        for name in ("with", "without"):
            segments[name] += len(gold[name])
            segments[f"{name} found"] += sum(" ".join(part.split()) in flat for part in gold[name])
    means = {source: sum(values) / len(values) for source, values in by_source.items()}
    return means, segments["with found"] / segments["with"], segments["without found"] / segments["without"]


def test_resiliparse_reaches_the_published_scores(shared_data, pages):
    texts = {
        r["doc_id"]: r["text"]
        for o in chain.from_iterable(pages.values())
        for r in o.kept.select(["doc_id", "text"]).to_pylist()
    }
    means, found, leaked = scores(shared_data, texts)
    floors = {"scrapinghub": 0.917, "flairNLP": 0.884, "mozilla": 0.958, "codelucas": 0.743}
    assert set(means) == set(floors)
    assert all(means[name] >= floor for name, floor in floors.items())
    assert found >= 0.95
    assert leaked <= 0.298


def test_trafilatura_reaches_the_published_scores_on_annotated_pages(shared_data, tmp_path):
    wanted = {g["record_id"].rpartition(":")[2]: crawl for crawl, g in gold_of(shared_data) if g["kind"] == "full_text"}
    part = tmp_path / "crawl-data"
    part.mkdir()
    with (part / "some.warc.gz").open("wb") as out:  # cut from the crawl by offset and length, as range requests would
        for crawl in CRAWLS:
            for page in jsonl(shared_data / f"crawls/gold/{crawl}.pages.jsonl.gz"):
                if page["record_id"].rpartition(":")[2] in wanted:
                    with (shared_data / "crawls" / page["warc_filename"]).open("rb") as file:
                        file.seek(page["offset"])
                        out.write(file.read(page["length"]))
    stage = IngestStage(IngestConfig(extractor="trafilatura", trafilatura=TrafilaturaOptions(favor_precision=False)))
    outputs = list(stage.read_file(str(tmp_path), "crawl-data/some.warc.gz", "C", tmp_path))
    stage.close()
    texts = {r["doc_id"]: r["text"] for o in outputs for r in o.kept.select(["doc_id", "text"]).to_pylist()}
    means, _, _ = scores(shared_data, texts)
    assert len(wanted) == 145
    assert means["scrapinghub"] >= 0.945
    assert means["flairNLP"] >= 0.942
