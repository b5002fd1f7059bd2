"""The ARC reader."""

import gzip
import io

from corpusmill.ingest.archive import read_archive
from corpusmill.ingest.records import CrawlRecord, Fault

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>old page</p>"
HEADER_1 = b"1 0 Maker\nURL IP-address Archive-date Content-type Archive-length\n\n"
HEADER_2 = (
    b"2 0 Maker\nURL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename Length\n\n"
)


def arc(version: int, *records: bytes) -> list[bytes]:
    header = HEADER_1 if version == 1 else HEADER_2
    return [b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain %d\n" % len(header) + header + b"\n", *records]


def one(url: bytes, fields: bytes = b"") -> bytes:
    return b"%s 1.2.3.4 20080430204826 text/html %s%d\n" % (url, fields, len(PAGE)) + PAGE + b"\n"


def read(data: bytes) -> list[CrawlRecord | Fault]:
    return list(read_archive(io.BytesIO(data)))


def test_version_1_and_2_give_the_same_pages():
    first = read(b"".join(arc(1, one(b"http://a.example/"))))
    second = read(b"".join(arc(2, one(b"http://a.example/", b"200 CHECKSUM - 17 x.arc.gz "))))
    for (page,) in (first, second):
        assert (page.kind, page.url, page.block, page.content_type) == (
            "response",
            "http://a.example/",
            PAGE,
            "text/html",
        )
        assert page.date.isoformat() == "2008-04-30T20:48:26+00:00"


def test_urls_with_blanks_are_whole():
    (page,) = read(b"".join(arc(1, one(b"http://a.example/a b  c?d=e f"))))
    assert page.url == "http://a.example/a b  c?d=e f"


def test_a_corrupt_member_costs_that_page_only():
    members = [gzip.compress(part) for part in arc(1, *(one(b"http://a.example/%d" % n) for n in range(4)))]
    members[2] = members[2][:20] + b"\xff\xff\xff" + members[2][23:]
    items = read(b"".join(members))
    assert [i.url[-1] for i in items if isinstance(i, CrawlRecord)] == ["0", "2", "3"]
    assert [(i.reason, i.n_bytes_lost) for i in items if isinstance(i, Fault)] == [
        ("ingest.bad_gzip_member", len(members[2]))
    ]


def test_a_file_that_ends_inside_a_page_says_so():
    items = read(b"".join(arc(1, one(b"http://a.example/0"), one(b"http://a.example/1")))[:-10])
    assert [i.url[-1] for i in items] == ["0", "1"]
    assert items[1].reason == "ingest.bad_record"
