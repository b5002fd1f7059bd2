"""Every sample file of other makers: expected counts, and warcio as oracle where it can read the file."""

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from corpusmill.ingest.archive import read_archive
from corpusmill.ingest.records import CrawlRecord, Fault

SAMPLES = {
    "archives/IAH-20080430204825-00000-blackbook.arc.gz": ({"resource": 38, "response": 261}, []),
    "archives/IAH-20080430204825-00000-blackbook.warc.gz": (
        {"warcinfo": 1, "response": 299, "request": 261, "metadata": 261},
        [],
    ),
    "archives/sample-0000.warc.gz": ({"warcinfo": 1, "request": 22, "response": 22, "metadata": 1, "resource": 2}, []),
    "archives/sample-0001.warc.gz": ({"warcinfo": 1, "request": 15, "response": 15, "metadata": 1, "resource": 2}, []),
    "broken/IAH-blackbook-truncated.wholefile-gzip.arc.gz": ({"resource": 1, "response": 7}, []),
    "broken/bad.arc": ({"response": 1}, ["ingest.bad_record"] * 2),
    "broken/badexample.arc.gz": ({"resource": 1, "response": 1}, ["ingest.bad_record"] * 3),
    "broken/block-sized-records.warc.gz": ({"unknown": 3}, []),
    "broken/clipped.warc.gz": ({}, ["ingest.cut_gzip_member"]),
    "broken/example-bad-non-chunked.warc.gz": ({"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}, []),
    "broken/example-bad.warc.gz.bad": ({"warcinfo": 1, "response": 2, "request": 2, "revisit": 1}, []),
    "broken/example-space-in-target-uri.warc.gz": ({"warcinfo": 1, "resource": 1}, []),
    "broken/example-space-in-url.arc": ({}, ["ingest.bad_record"]),
    "broken/example-trunc.warc": ({"warcinfo": 2, "request": 1}, ["ingest.bad_record"]),
    "broken/example-wget-bad-target-uri.warc.gz": (
        {"warcinfo": 1, "request": 1, "response": 1, "metadata": 1, "resource": 2},
        [],
    ),
    "broken/example-wrong-chunks.warc.gz": ({"request": 1}, ["ingest.bad_record"] * 2),
    "broken/issue-493.warc": ({"warcinfo": 2, "response": 10, "request": 15, "revisit": 5}, []),
    "broken/issue-514.warc": ({"warcinfo": 1, "request": 2, "response": 2, "metadata": 1, "resource": 2}, []),
    "commoncrawl/CC-MAIN-20200808165417-20200808195417-00395.head.warc.gz": (
        {"warcinfo": 1, "request": 17, "response": 16, "metadata": 16},
        [],
    ),
    "commoncrawl/cc-2019-single.warc.gz": ({"response": 1}, []),
    "commoncrawl/cc_net_sample.warc.wet.txt": ({}, ["ingest.bad_record"] * 4),
    "commoncrawl/whirlwind.warc.gz": ({"warcinfo": 1, "request": 1, "response": 1, "metadata": 1}, []),
    "commoncrawl/whirlwind.warc.wat.gz": ({"warcinfo": 1, "metadata": 1}, []),
    "commoncrawl/whirlwind.warc.wet.gz": ({"warcinfo": 1, "conversion": 1}, []),
    "spec/example-digest.warc": ({"request": 4}, []),
    "spec/example-iana.org-chunked.warc": ({"warcinfo": 1, "response": 1, "request": 1}, []),
    "spec/example-resource.warc.gz": ({"warcinfo": 2, "resource": 1}, []),
    "spec/example.arc": ({"response": 1}, []),
    "spec/example.arc.gz": ({"response": 1}, []),
    "spec/example.warc.gz": ({"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}, []),
    "spec/html-lang-attribute.warc": ({"response": 5}, []),
    "spec/link-extraction-test.warc": ({"warcinfo": 1, "response": 9}, []),
    "spec/meta-itemprop.warc": ({"response": 1}, []),
    "spec/post-test.warc.gz": ({"response": 3, "request": 3}, []),
    "spec/text-extraction-test.warc": ({"warcinfo": 1, "response": 2, "metadata": 1}, []),
    "spec/title-extraction-embedded-SVG.warc": ({"response": 1}, []),
    "spec/transfer_compression_brotli.warc.gz": (
        {"warcinfo": 1, "request": 1, "response": 1, "metadata": 1, "resource": 1},
        [],
    ),
    "spec/transfer_compression_gzip.warc.gz": (
        {"warcinfo": 1, "request": 1, "response": 1, "metadata": 1, "resource": 1},
        [],
    ),
    "spec/transfer_compression_gzip_chunked.warc.gz": ({"warcinfo": 1, "response": 1, "request": 1}, []),
    "spec/transfer_compression_none.warc.gz": (
        {"warcinfo": 1, "request": 1, "response": 1, "metadata": 1, "resource": 1},
        [],
    ),
    "spec/transfer_compression_none_truncated.warc.gz": (
        {"warcinfo": 1, "request": 1},
        ["ingest.cut_gzip_member"],
    ),
}
# warcio takes cut records for whole ones in these, stops early, or fails on brotli
WARCIO_DIFFERS = {
    "broken/bad.arc",
    "broken/badexample.arc.gz",
    "broken/IAH-blackbook-truncated.wholefile-gzip.arc.gz",
    "broken/clipped.warc.gz",
    "broken/example-bad-non-chunked.warc.gz",
    "broken/example-bad.warc.gz.bad",
    "broken/example-space-in-url.arc",
    "broken/example-trunc.warc",
    "broken/example-wrong-chunks.warc.gz",
    "commoncrawl/cc_net_sample.warc.wet.txt",
    "spec/transfer_compression_brotli.warc.gz",
    "spec/transfer_compression_none_truncated.warc.gz",
}


def read(path: Path) -> tuple[list[CrawlRecord], list[Fault]]:
    with path.open("rb") as file:
        items = list(read_archive(file))
    return [i for i in items if isinstance(i, CrawlRecord)], [i for i in items if isinstance(i, Fault)]


def test_every_sample_file_has_an_expectation(shared_data):
    folder = shared_data / "warc_samples"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES, ids=lambda name: name.split("/")[1])
def test_sample_gives_the_expected_records_and_faults(shared_data, name):
    records, faults = read(shared_data / "warc_samples" / name)
    kinds, reasons = SAMPLES[name]
    assert Counter(r.kind for r in records) == kinds
    assert [f.reason for f in faults] == reasons
    size = (shared_data / "warc_samples" / name).stat().st_size
    assert all(0 <= r.offset < r.offset + r.length <= size for r in records)
    assert sum(f.n_bytes_lost for f in faults) <= size


def from_warcio(path: Path) -> list[tuple[str, str, str]]:
    found = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, no_record_parse=True):
            kind = "response" if record.format == "arc" and record.rec_type == "response" else record.rec_type
            if kind == "arc_header":
                continue
            header = "uri" if record.format == "arc" else "WARC-Target-URI"
            url = (record.rec_headers.get_header(header) or "").strip("<> ")
            found.append((kind, url, hashlib.sha1(record.raw_stream.read()).hexdigest()))
    return found


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - WARCIO_DIFFERS), ids=lambda name: name.split("/")[1])
def test_records_urls_and_payloads_equal_those_of_warcio(shared_data, name):
    path = shared_data / "warc_samples" / name
    ours = []
    for record in read(path)[0]:
        is_arc_resource = record.record_id is None and record.kind == "resource"
        kind = "response" if is_arc_resource else record.kind
        ours.append(
            (kind, record.url.replace(" ", "%20"), hashlib.sha1(record.block).hexdigest() if record.block else "")
        )
    theirs = from_warcio(path)
    wanted = ("response", "resource", "conversion")
    assert [o[:2] for o in ours] == [t[:2] for t in theirs]
    assert [o[2] for o, t in zip(ours, theirs, strict=True) if t[0] in wanted and o[2]] == [
        t[2] for o, t in zip(ours, theirs, strict=True) if t[0] in wanted and o[2]
    ]


@pytest.mark.parametrize("crawl", ["CC-DEMO-2024-10", "CC-DEMO-2024-33"])
def test_offsets_and_lengths_equal_those_of_the_crawls_index(shared_data, crawl):
    base = shared_data / "crawls"
    with gzip.open(base / "gold" / f"{crawl}.pages.jsonl.gz", "rt") as lines:
        expected = {(p["warc_filename"], p["offset"], p["length"], p["record_id"]) for p in map(json.loads, lines)}
    found = set()
    for path in {name for name, *_ in expected}:
        records, faults = read(base / path)
        assert not faults
        found |= {(path, r.offset, r.length, r.record_id.strip("<>")) for r in records if r.kind == "response"}
    assert found == expected
