"""Writes WARC files with the same bytes every time: fixed times and ids, gzip members without a clock.

The bytes depend on the version of zlib; the records do not.
"""

import base64
import hashlib
import struct
import uuid
import zlib
from dataclasses import dataclass

from corpusmill.demo.page_chrome import Page

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"  # deflate, no time, best compression, unknown system


@dataclass(frozen=True)
class Place:
    """Where the records of one file stand: the crawl, the file's name, and the id of its warcinfo record."""

    crawl: str
    file_name: str
    date: str


def gzip_member(data: bytes) -> bytes:
    """Returns one gzip member without time and file name."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    return _GZIP_HEADER + packed + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def damaged_member(member: bytes) -> bytes:
    """Returns a gzip member with some bytes in its middle overwritten, of the same length."""
    middle = len(member) // 2
    return member[:middle] + b"\xff" * 40 + member[middle + 40 :]


def warcinfo_record(place: Place) -> bytes:
    """Returns the first record of a file."""
    fields = (
        f"isPartOf: {place.crawl}\r\npublisher: corpusmill\r\n"
        "description: Demo pages in the shape of a Common Crawl release\r\nsoftware: corpusmill.demo.build_crawl\r\n"
        "format: WARC File Format 1.0\r\n"
    ).encode()
    headers = {
        "WARC-Type": "warcinfo",
        "WARC-Date": place.date,
        "WARC-Record-ID": _record_id(place.crawl, place.file_name, "warcinfo"),
        "WARC-Filename": place.file_name,
        "Content-Type": "application/warc-fields",
    }
    return _record(headers, fields)


def page_records(place: Place, page: Page, date: str) -> tuple[bytes, bytes]:
    """Returns the request and the response record of a page."""
    host, _, path = page.url.partition("://")[2].partition("/")
    request = f"GET /{path} HTTP/1.1\r\nUser-Agent: corpusmill-demo\r\nAccept: */*\r\nHost: {host}\r\n\r\n".encode()
    common = {"WARC-Date": date, "WARC-Target-URI": page.url}
    request_id = _record_id(place.crawl, page.url, "request")
    first = {"WARC-Type": "request", "WARC-Record-ID": request_id, **common}
    first["Content-Type"] = "application/http; msgtype=request"
    second = {
        "WARC-Type": "response",
        "WARC-Record-ID": _record_id(place.crawl, page.url, "response"),
        **common,
        "WARC-Concurrent-To": request_id,
        "WARC-IP-Address": "192.0.2.80",
        "WARC-Payload-Digest": _sha1(page.body),
        "WARC-Identified-Payload-Type": page.content_type.partition(";")[0],
        "Content-Type": "application/http; msgtype=response",
    }
    extra = "".join(f"{name}: {value}\r\n" for name, value in page.headers)
    answer = (
        f"HTTP/1.1 {page.status}\r\nServer: demo\r\nContent-Type: {page.content_type}\r\n{extra}"
        f"Content-Length: {len(page.body)}\r\n\r\n"
    ).encode() + page.body
    return _record(first, request), _record(second, answer)


def _record(headers: dict[str, str], block: bytes) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"WARC-Block-Digest: {_sha1(block)}", f"Content-Length: {len(block)}"]
    return ("WARC/1.0\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n"


def _record_id(*parts: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(parts))}>"


def _sha1(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
