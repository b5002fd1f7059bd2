"""Damage in WARC files costs the damaged record only, and is counted."""

import base64
import contextlib
import gzip
import hashlib
import io
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmill.errors import PermanentDataError
from corpusmill.ingest import gzip_members
from corpusmill.ingest.archive import read_archive
from corpusmill.ingest.records import CrawlRecord, Fault


def record(n: int, body: bytes = b"", digest: str = "") -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + (body or b"<p>page %d</p>" % n)
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{n:012d}>\r\n"
        f"WARC-Date: 2024-02-20T22:57:02Z\r\nWARC-Target-URI: http://example.org/{n}\r\n{digest}"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def read(data: bytes, **options) -> tuple[list[CrawlRecord], list[Fault]]:
    items = list(read_archive(io.BytesIO(data), **options))
    return [i for i in items if isinstance(i, CrawlRecord)], [i for i in items if isinstance(i, Fault)]


MEMBERS = [gzip.compress(record(n, b"<p>" + bytes(range(32, 127)) * 20 + b"%d" % n), mtime=0) for n in range(5)]
OFFSETS = [sum(map(len, MEMBERS[:n])) for n in range(5)]


def test_each_record_has_the_place_of_its_gzip_member():
    records, faults = read(b"".join(MEMBERS))
    assert [(r.offset, r.length) for r in records] == list(zip(OFFSETS, map(len, MEMBERS), strict=True))
    assert not faults
    assert records[0].date.isoformat() == "2024-02-20T22:57:02+00:00"


@pytest.mark.parametrize("damage", ["magic", "data", "checksum"])
def test_a_corrupt_member_costs_that_member_only_and_its_bytes_are_counted(damage):
    bad = bytearray(MEMBERS[2])
    at = {"magic": 0, "data": len(bad) // 2, "checksum": len(bad) - 6}[damage]
    bad[at] ^= 0x55
    records, faults = read(b"".join([*MEMBERS[:2], bytes(bad), *MEMBERS[3:]]))
    assert [r.url[-1] for r in records] == ["0", "1", "3", "4"]
    assert [(f.offset, f.reason, f.n_bytes_lost) for f in faults] == [
        (OFFSETS[2], "ingest.bad_gzip_member", len(MEMBERS[2]))
    ]
    assert records[2].offset == OFFSETS[3]


def test_a_stretch_of_garbage_between_members_is_counted_and_skipped():
    records, faults = read(MEMBERS[0] + b"\x1f\x8b\x08garbage" * 30 + MEMBERS[1])
    assert [r.url[-1] for r in records] == ["0", "1"]
    assert sum(f.n_bytes_lost for f in faults) == 300


def test_a_cut_last_member_is_quarantined_as_cut():
    data = b"".join(MEMBERS)[:-20]
    records, faults = read(data)
    assert len(records) == 4
    assert [(f.reason, f.offset) for f in faults] == [("ingest.cut_gzip_member", OFFSETS[4])]
    assert faults[0].first_bytes.startswith(b"WARC/1.0")


def test_zeros_after_the_last_member_are_padding():
    assert not read(b"".join(MEMBERS) + bytes(1000))[1]


def test_a_damaged_first_member_does_not_hide_what_the_file_is():
    records, faults = read(b"\x1f\x8b\x08" + bytes(50) + b"".join(MEMBERS))
    assert len(records) == 5
    assert faults[0].n_bytes_lost == 53


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(at=st.integers(0, sum(map(len, MEMBERS)) - 1), bit=st.integers(0, 7))
def test_one_flipped_bit_costs_at_most_one_record(at, bit):
    data = bytearray(b"".join(MEMBERS))
    data[at] ^= 1 << bit
    records, _ = read(bytes(data))
    whole = {r.url: r.block for r in read(b"".join(MEMBERS))[0]}
    assert len(records) >= 4
    assert all(whole[r.url] == r.block for r in records)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(20, sum(map(len, MEMBERS)) - 1))
def test_a_cut_anywhere_loses_only_what_lies_behind_it(cut):
    data = b"".join(MEMBERS)[:cut]
    try:
        records, faults = read(data)
    except PermanentDataError:
        assert cut < len(MEMBERS[0])
        return
    assert len(records) == sum(offset + len(m) <= cut for offset, m in zip(OFFSETS, MEMBERS, strict=True))
    assert sum(f.n_bytes_lost for f in faults) + sum(r.length for r in records) == cut


def test_all_records_in_one_gzip_member_are_read_and_numbered():
    records, faults = read(gzip.compress(b"".join(map(record, range(4)))))
    assert [r.index for r in records] == [0, 1, 2, 3]
    assert {(r.offset, r.length) for r in records} == {(0, records[0].length)}
    assert not faults


def test_a_corrupt_member_of_several_records_keeps_those_whose_digest_holds():
    block = record(0).split(b"\r\n\r\n", 1)[1][:-4]
    digest = f"WARC-Block-Digest: sha1:{base64.b32encode(hashlib.sha1(block).digest()).decode()}\r\n"
    data = bytearray(
        gzip.compress(record(0, digest=digest) + record(1) + record(2, random.Random(0).randbytes(20_000)))
    )
    data[-9_000:-8_990] = bytes(10)
    records, faults = read(bytes(data))
    assert [r.url[-1] for r in records] == ["0"]
    assert [f.reason for f in faults] == ["ingest.bad_gzip_member"]
    assert "1 records of them could be saved" in faults[0].message


def test_uncompressed_records_after_a_wrong_length_are_found_again():
    wrong = record(1).replace(b"Content-Length: 57", b"Content-Length: 99")
    assert wrong != record(1)
    records, faults = read(record(0) + wrong + record(2) + record(3))
    assert [r.url[-1] for r in records] == ["0", "2", "3"]
    assert [(f.offset, f.n_bytes_lost) for f in faults] == [(len(record(0)), len(wrong))]


@pytest.mark.parametrize("value", [b"abc", b"-5", b"", b"9" * 30])
def test_an_impossible_length_is_a_fault_and_not_a_crash(value):
    bad = record(1).replace(b"Content-Length: 57", b"Content-Length: " + value)
    records, faults = read(record(0) + bad + record(2))
    assert [r.url[-1] for r in records] == ["0", "2"]
    assert [f.reason for f in faults] == ["ingest.bad_record"]


def test_bare_line_feeds_are_read():
    data = b"".join(map(record, range(3))).replace(b"\r\n", b"\n")
    data = data.replace(b"Content-Length: 57", b"Content-Length: 54")
    assert len(read(data)[0]) == 3


def test_a_record_larger_than_the_limit_is_not_taken_into_memory_and_the_next_is_read():
    for data in (record(0, b"x" * 5000) + record(1), gzip.compress(record(0, b"x" * 5000)) + gzip.compress(record(1))):
        records, faults = read(data, max_bytes_record=1000)
        assert [r.url[-1] for r in records] == ["1"]
        assert [f.reason for f in faults] == ["ingest.record_too_large"]


def test_a_gzip_bomb_is_stopped_and_the_next_record_is_read(monkeypatch):
    monkeypatch.setattr(gzip_members, "FEWEST_BYTES_LIMIT", 10_000_000)
    bomb = gzip.compress(record(0, b"\0" * 60_000_000))
    records, faults = read(bomb + MEMBERS[1])
    assert [r.url[-1] for r in records] == ["1"]
    assert [(f.reason, f.n_bytes_lost) for f in faults] == [("ingest.bad_gzip_member", len(bomb))]


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<!doctype html><html><body>503</body></html>",
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code></Error>',
        gzip.compress(b"<html>an error page</html>"),
        b"\x1f\x8b\x08",
    ],
    ids=["empty", "html", "xml", "gzipped html", "magic only"],
)
def test_a_file_without_a_version_line_is_an_error(page):
    with pytest.raises(PermanentDataError, match="no WARC version line"):
        read(page)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300), prefix=st.sampled_from([b"", b"WARC/1.0\r\n", b"filedesc://x 0 20080430204825 a 9\n"])
)
def test_arbitrary_bytes_never_raise_anything_else(data, prefix):
    for content in (prefix + data, gzip.compress(prefix + data)):
        with contextlib.suppress(PermanentDataError):
            read(content)
