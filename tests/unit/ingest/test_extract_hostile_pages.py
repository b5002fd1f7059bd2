"""Pages that are huge, absurdly nested or not text, through the ingestion stage with its limits of time and memory."""

import gzip

import pytest

from corpusmill.ingest.config import IngestConfig, ResiliparseOptions
from corpusmill.ingest.stage import IngestStage

SENTENCE = "The river rose two metres in the night, and the lower bridge was closed to lorries before morning came. "
GOOD = f"<html><body><article><h1>Rain</h1>{f'<p>{SENTENCE * 3}</p>' * 6}</article></body></html>".encode()
PAGES = {
    "ten megabytes of paragraphs": (f"<p>{SENTENCE}</p>\n".encode() * 100_000, ""),
    "one line of ten megabytes": (b"<p>" + SENTENCE.encode() * 100_000, ""),
    "a hundred thousand lines of one character": (b"<main>" + b"a<br>\n" * 100_000, ""),
    "ten thousand links": (b"<article>" + b'<p><a href="/x?a=1&b=2">to read more</a></p>' * 10_000, ""),
    "nested lists": (b"<ul><li>" * 400 + SENTENCE.encode() * 5, ""),
    "an attribute of ten megabytes": (b"<p title='" + b"x" * 10_000_000 + b"'>" + SENTENCE.encode(), ""),
    "bytes of no charset": (b"<html><p>" + bytes(range(128, 256)) * 500, "ingest.undecodable"),
    "a few bytes of no charset": (
        GOOD.replace(b"metres", "m\u00e8tres".encode()).replace(b"bridge", b"brid\xffge", 1),
        "",
    ),
    "no bytes": (b"", "ingest.no_text"),
    "only markup": (b"<html><head><title></title></head><body><br></body></html>", "ingest.no_text"),
    "larger than the limit": (b"<p>" + b"x" * (17 * 1024 * 1024), "ingest.too_large"),
}


def record(number: int, body: bytes) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Target-URI: http://a.example/"
        f"{number}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", compresslevel=1)


def read(path, bodies, **limits):
    """Returns rows and reasons by the pages' numbers."""
    path.write_bytes(b"".join(record(n, body) for n, body in enumerate(bodies)))
    stage = IngestStage(IngestConfig(resiliparse=ResiliparseOptions(line_model=True), **limits))
    outputs = list(stage.read_local(path))
    stage.close()
    rows = {int(row["url"].rpartition("/")[2]): row for output in outputs for row in output.kept.to_pylist()}
    faults = [fault for output in outputs for fault in output.quarantine]
    return rows, {int(fault.url.rpartition("/")[2]): fault.reason for fault in faults}


@pytest.mark.slow
def test_each_costs_itself_only_and_nothing_is_lost(tmp_path):
    bodies = [body for body, _ in PAGES.values()]
    rows, reasons = read(tmp_path / "a.warc.gz", [*bodies, GOOD], max_seconds=20.0, max_bytes_memory=2 * 1024**3)
    found = {name: reasons.get(n, "") for n, name in enumerate(PAGES)}
    assert found == {name: reason for name, (_, reason) in PAGES.items()}
    assert len(rows) + len(reasons) == len(PAGES) + 1
    assert SENTENCE.strip() in rows[len(PAGES)]["text"]
    assert rows[list(PAGES).index("ten megabytes of paragraphs")]["text"].count(SENTENCE.strip()) == 100_000
    assert "\ufffd" in rows[list(PAGES).index("a few bytes of no charset")]["text"]


@pytest.mark.slow
def test_absurd_nesting_costs_the_time_limit_and_the_next_page_is_read(tmp_path):
    bomb = b"<div>" * 100_000 + SENTENCE.encode()
    rows, reasons = read(tmp_path / "a.warc.gz", [bomb, GOOD], max_seconds=0.5)
    assert reasons == {0: "ingest.extract_timeout"}
    assert SENTENCE.strip() in rows[1]["text"]


@pytest.mark.parametrize("data", [b"", gzip.compress(b"")])
def test_an_empty_file_is_one_fault_or_no_page(tmp_path, data):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(data)
    outputs = list(
        IngestStage(IngestConfig(max_seconds=None)).read_file(str(tmp_path), "a.warc.gz", "C", tmp_path / "s")
    )
    assert sum(output.kept.num_rows for output in outputs) == 0
    assert [fault.reason for output in outputs for fault in output.quarantine] in ([], ["ingest.bad_file"])
    assert sum(output.metrics["files"] for output in outputs) == 1
