"""The ingestion stage on files made here."""

import gzip
import uuid

import pytest

from corpusmill.errors import PermanentDataError
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.stage import IngestStage
from corpusmill.schema import PAGES, doc_id_of

HTML = b"<html><body><p>Some words of a page that is long enough to be text, number %d.</p></body></html>"
LIMITS = {"max_seconds": None}


def warc_record(
    n=0,
    *,
    body=None,
    status="200 OK",
    kind="response",
    headers=("Content-Type: text/html; charset=utf-8",),
    url="http://example.org/",
    record_id=None,
    extra="",
):
    http = "\r\n".join([f"HTTP/1.1 {status}", *headers]).encode() + b"\r\n\r\n"
    block = (
        (HTML % n if body is None else body) if kind == "conversion" else http + (HTML % n if body is None else body)
    )
    given = f"WARC-Record-ID: <urn:uuid:{record_id or uuid.UUID(int=n)}>\r\n" if record_id != "" else ""
    target = f"WARC-Target-URI: {url}\r\n" if url else ""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\n{given}{target}WARC-Date: 2024-02-20T22:57:02Z\r\n{extra}"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


def read(tmp_path, *records, stage=None, name="x/a.warc.gz"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(records))
    stage = stage or IngestStage(IngestConfig(**LIMITS))
    return list(stage.read_file(str(tmp_path), name, "CC-TEST-2024-10", tmp_path / "scratch"))


def test_a_page_becomes_a_row_of_the_schema(tmp_path):
    first = warc_record(7)
    (output,) = read(tmp_path, first, warc_record(8, extra="WARC-Truncated: length\r\n"))
    assert output.kept.schema.equals(PAGES.schema)
    assert output.removed.schema.equals(PAGES.schema)
    assert output.removed.num_rows == 0
    row, second = output.kept.to_pylist()
    assert row["doc_id"] == str(uuid.UUID(int=7))
    assert (row["crawl"], row["url"], row["warc_file"]) == ("CC-TEST-2024-10", "http://example.org/", "x/a.warc.gz")
    assert (row["warc_offset"], row["warc_length"]) == (0, len(first))
    assert second["warc_offset"] == len(first)
    assert row["fetch_time"].isoformat() == "2024-02-20T22:57:02+00:00"
    assert (row["http_status"], row["content_type"], row["charset"]) == (200, "text/html", "utf-8")
    assert (row["text"], row["n_chars"]) == ("Some words of a page that is long enough to be text, number 7.", 62)
    assert row["n_bytes_html"] == len(HTML % 7)
    assert (row["truncated"], second["truncated"]) == (False, True)
    assert row["extraction"] == IngestStage(IngestConfig(**LIMITS)).extraction


def test_what_is_no_page_of_text_is_counted_and_not_quarantined(tmp_path):
    (output,) = read(
        tmp_path,
        warc_record(1, status="404 Not Found"),
        warc_record(2, status="301 Moved"),
        warc_record(3, headers=("Content-Type: image/png",)),
        warc_record(4, extra="WARC-Identified-Payload-Type: application/pdf\r\n"),
        warc_record(5, kind="revisit"),
        warc_record(6, kind="request"),
        warc_record(7),
    )
    assert output.quarantine == []
    counts = {name: n for name, n in output.metrics.items() if n}
    assert counts["ingest.http_status"] == 2
    assert counts["ingest.content_type"] == 2
    assert counts["ingest.revisit"] == 1
    assert (counts["records"], counts["responses"], counts["pages"]) == (7, 5, 1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (warc_record(1, body=b"<html><body></body></html>"), "ingest.no_text"),
        (warc_record(1, body=b""), "ingest.no_text"),
        (warc_record(1, body=b"%PDF-1.4\0\0\0\0"), "ingest.undecodable"),
        (warc_record(1, url=""), "ingest.no_url"),
        (warc_record(1, status="200 OK", body=HTML * 40_000), "ingest.too_large"),
        (
            warc_record(1, body=gzip.compress(bytes(50_000_000)), headers=("Content-Encoding: gzip",)),
            "ingest.too_large",
        ),
        (warc_record(2)[:60] + b"\xff" * 20 + warc_record(2)[80:], "ingest.bad_gzip_member"),
    ],
    ids=["no text", "empty", "binary", "no url", "large", "bomb", "corrupt"],
)
def test_a_page_that_cannot_be_processed_is_quarantined_and_the_next_is_read(tmp_path, record, reason):
    stage = IngestStage(IngestConfig(max_bytes_html=1_000_000, **LIMITS))
    (output,) = read(tmp_path, record, warc_record(9), stage=stage)
    assert [row["url"] for row in output.kept.to_pylist()] == ["http://example.org/"]
    (fault,) = output.quarantine
    assert fault.reason == reason
    assert fault.where == "x/a.warc.gz:0"
    assert len(fault.first_bytes) <= 200
    assert output.metrics["quarantined"] == 1


def test_block_that_is_no_http_response_is_quarantined(tmp_path):
    record = gzip.compress(
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Length: 6\r\n\r\n<html>\r\n\r\n"
    )
    (output,) = read(tmp_path, record)
    assert [fault.reason for fault in output.quarantine] == ["ingest.bad_http"]


def test_of_two_records_with_one_id_the_first_is_kept(tmp_path):
    (output,) = read(tmp_path, warc_record(1), warc_record(2, record_id=uuid.UUID(int=1)))
    assert output.kept.num_rows == 1
    assert "number 1" in output.kept["text"][0].as_py()
    assert [fault.reason for fault in output.quarantine] == ["ingest.duplicate_id"]


def test_records_without_an_id_get_one_from_their_place(tmp_path):
    first = warc_record(1, record_id="")
    (output,) = read(tmp_path, first, warc_record(2, record_id=""))
    expected = [doc_id_of(None, "x/a.warc.gz", 0), doc_id_of(None, "x/a.warc.gz", len(first))]
    assert output.kept["doc_id"].to_pylist() == expected
    together = gzip.compress(gzip.decompress(first) + gzip.decompress(warc_record(2, record_id="")))
    (output,) = read(tmp_path, together)
    assert len(set(output.kept["doc_id"].to_pylist())) == 2


def test_a_file_is_cut_into_batches_of_a_thousand_pages_and_counts_add_up(tmp_path):
    outputs = read(tmp_path, *(warc_record(n) for n in range(2100)))
    assert [output.kept.num_rows for output in outputs] == [1000, 1000, 100]
    assert sum(output.metrics.get("records", 0) for output in outputs) == 2100
    assert sum(output.metrics.get("files", 0) for output in outputs) == 1


def test_a_file_that_is_no_crawl_file_is_one_quarantine_row(tmp_path):
    (output,) = read(tmp_path, b"<html>503 Slow Down</html>")
    assert [(fault.where, fault.reason) for fault in output.quarantine] == [("x/a.warc.gz", "ingest.bad_file")]
    assert output.kept.num_rows == 0


def test_a_missing_file_is_one_quarantine_row(tmp_path):
    stage = IngestStage(IngestConfig(**LIMITS))
    (output,) = stage.read_file(str(tmp_path), "not/there.warc.gz", "CC-TEST-2024-10", tmp_path)
    assert [fault.reason for fault in output.quarantine] == ["ingest.bad_file"]


def test_wet_text_is_taken_as_it_is_and_bad_bytes_are_counted(tmp_path):
    options = {"kind": "conversion", "extra": "Content-Type: text/plain\r\n"}
    stage = IngestStage(IngestConfig(kind="wet"))
    (output,) = read(
        tmp_path,
        warc_record(1, body="line\n\nübrig".encode(), **options),
        warc_record(2, body=b"a\xff", **options),
        stage=stage,
    )
    rows = output.kept.to_pylist()
    assert [row["text"] for row in rows] == ["line\n\nübrig", "a\ufffd"]
    assert (rows[0]["http_status"], rows[0]["content_type"], rows[0]["n_bytes_html"]) == (None, "text/plain", None)
    assert output.metrics["n_replaced"] == 1


def test_short_texts_are_counted_by_the_setting(tmp_path):
    stage = IngestStage(IngestConfig(min_chars=63, **LIMITS))
    (output,) = read(tmp_path, warc_record(1), warc_record(10), stage=stage)
    assert output.kept.num_rows == 1
    assert output.metrics["ingest.min_chars"] == 1


def test_local_files_and_manifests_are_read(tmp_path):
    folder = tmp_path / "crawl-data" / "C-2024-10"
    folder.mkdir(parents=True)
    (folder / "a.warc.gz").write_bytes(warc_record(1))
    (folder / "a.warc.wet").write_bytes(gzip.decompress(warc_record(2, kind="conversion", body=b"text")))
    (folder / "warc.paths.gz").write_bytes(gzip.compress(b"crawl-data/C-2024-10/a.warc.gz\n"))
    stage = IngestStage(IngestConfig(**LIMITS))
    (one,) = stage.read_local(folder / "a.warc.gz")
    (listed,) = stage.read_local(folder / "warc.paths.gz", "C-2024-10")
    assert one.kept["text"].to_pylist() == listed.kept["text"].to_pylist()
    assert (one.kept["warc_file"][0].as_py(), listed.kept["crawl"][0].as_py()) == ("a.warc.gz", "C-2024-10")
    (wet,) = stage.read_local(folder / "a.warc.wet")
    assert wet.kept["text"].to_pylist() == ["text"]
    with pytest.raises(PermanentDataError, match="does not exist"):
        list(stage.read_local(tmp_path / "none.warc"))


def test_the_child_process_gives_the_same_rows(tmp_path):
    records = [warc_record(n) for n in range(20)]
    inside = read(tmp_path, *records)[0].kept.drop_columns(["extraction"])
    stage = IngestStage(IngestConfig())
    outside = read(tmp_path, *records, stage=stage)[0].kept.drop_columns(["extraction"])
    stage.close()
    assert inside.equals(outside)
