"""Reads WARC files record by record; a damaged record costs itself only.

A sound gzip member that holds one whole record, which is what crawls consist of, is cut in two at its first blank
line. Everything else (files that are not compressed, members with several records, damaged or cut members, bare line
feeds) is framed record by record. FastWARC's own iterator would then lose the rest of the file, skip records silently
or yield cut records as whole.

Checked against FastWARC and warcio on the sample files of other makers.
"""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import IO, BinaryIO

from corpusmill.ingest.gzip_members import IN_MEMORY, Member, gzip_members, occurrences
from corpusmill.ingest.http_message import parse_head, parse_response
from corpusmill.ingest.records import FIRST_BYTES, CrawlRecord, Fault, damaged_member, parse_time

MAX_HEAD = 64 * 1024
_VERSION_LINE = re.compile(rb"WARC/\d\.\d+[ \t]*\r?\n")
_BLANKS = b"\r\n"


def opens_warc(data: bytes) -> bool:
    """Returns whether data begins with a WARC version line (blank lines before it are allowed)."""
    return _VERSION_LINE.match(data.lstrip(_BLANKS)) is not None


def read_warc(
    file: BinaryIO, *, compressed: bool, wanted: frozenset[str], max_bytes_record: int
) -> Iterator[CrawlRecord | Fault]:
    """Yields every record of a WARC file and every place where bytes were lost, in file order.

    Args:
        file: A seekable file.
        compressed: Whether the file is gzip.
        wanted: Kinds whose block is read; the others come with an empty block.
        max_bytes_record: Largest block in bytes that is taken into memory.
    """
    framer = _Framer(wanted, max_bytes_record)
    if not compressed:
        for item in framer.frames(file, 0):
            yield item[0] if isinstance(item, tuple) else item
        return
    for member in gzip_members(file, opens_warc):
        yield from framer.member(member)


def read_whole(data: bytes, wanted: frozenset[str], offset: int, length: int) -> CrawlRecord | None:
    """Returns the record of a sound gzip member, None where the data is not exactly one whole record.

    Args:
        data: What the member holds.
        wanted: Kinds whose block is read.
        offset: Byte offset of the member.
        length: Its bytes.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0 or data.find(b"\n\r\n", 0, end) >= 0 or data.find(b"\n\n", 0, end) >= 0:
        return None
    if not _VERSION_LINE.match(data):
        return None
    _, headers = parse_head(data[:end])
    size, begin = headers.get("content-length", ""), end + 4
    if not _is_length(size) or begin + int(size) + 4 != len(data) or not data.endswith(b"\r\n\r\n"):
        return None
    kind = headers.get("warc-type", "").lower()
    return _record(kind, headers, data[begin:-4] if kind in wanted else b"", offset, length)


class _Framer:
    """Finds records in a stream by their heads and lengths, and goes on at the next version line after damage."""

    def __init__(self, wanted: frozenset[str], max_bytes_record: int) -> None:
        self.wanted = wanted
        self.max_bytes_record = max_bytes_record

    def member(self, member: Member) -> Iterator[CrawlRecord | Fault]:
        """Yields the records of one gzip member with the member's place; one fault at the end if it is damaged."""
        if not member.error:
            limit = min(IN_MEMORY, self.max_bytes_record)
            data = member.data.read(limit + 1)
            if len(data) <= limit and (record := read_whole(data, self.wanted, member.offset, member.length)):
                yield record
                return
        index = count()
        faults = []
        for item in self.frames(member.data, 0):
            if isinstance(item, Fault):
                faults.append(item)
            elif not member.error or item[1]():
                yield replace(item[0], offset=member.offset, length=member.length, index=next(index))
        saved = next(index)
        if member.error:
            yield damaged_member(member, saved)
            return
        for n, fault in enumerate(faults):
            lost = member.length if n == 0 and not saved else 0
            yield replace(fault, offset=member.offset, n_bytes_lost=lost)

    def frames(self, stream: IO[bytes], start: int) -> Iterator[tuple[CrawlRecord, Callable[[], bool]] | Fault]:
        """Yields (record, whether its digest holds) and faults of one stream; offsets are those of the stream."""
        position = start
        while True:
            stream.seek(position)
            if not (head := _read_head(stream)):
                return
            begin, first_line, headers, body_at = head
            fault = self._head_fault(first_line, headers)
            length = 0 if fault else int(headers["content-length"])
            kind = headers.get("warc-type", "").lower()
            block = b""
            if not fault and kind in self.wanted:
                if length > self.max_bytes_record:
                    fault = (
                        "ingest.record_too_large",
                        f"the record has {length} bytes; expected at most {self.max_bytes_record} (max_bytes_record)",
                    )
                else:
                    block = stream.read(length)
            end, well_ended = _record_end(stream, body_at + length)
            record = _record(kind, headers, block, begin, 0)
            if not fault and not well_ended and not _digest_holds(headers, block):
                fault = (
                    "ingest.bad_record",
                    f"the record's {length} bytes do not end where the next record begins, or the file ends inside it",
                )
                end = body_at
            if fault:
                if fault[0] != "ingest.record_too_large":
                    end = _next_version_line(stream, max(begin + 1, min(end, body_at)))
                yield _fault(stream, begin, end, fault, record.url)
            else:
                yield replace(record, length=end - begin), partial(_digest_holds, headers, block)
            position = end

    def _head_fault(self, first_line: bytes, headers: dict[str, str]) -> tuple[str, str] | None:
        """Returns reason and message where a head is not usable."""
        if not _VERSION_LINE.match(first_line):
            return "ingest.bad_record", f"found {first_line[:40]!r} where a record begins; expected a WARC version line"
        length = headers.get("content-length", "")
        if not _is_length(length):
            return "ingest.bad_record", f"Content-Length={length!r} of a record; expected a number of bytes"
        return None


def _is_length(value: str) -> bool:
    """Returns whether a Content-Length is a number of bytes."""
    return value.isascii() and value.isdigit() and len(value) <= 18


def _read_head(stream: IO[bytes]) -> tuple[int, bytes, dict[str, str], int] | None:
    """Returns (begin, first line, headers, where the block begins) of the next head, None at the end of the stream."""
    begin = stream.tell()
    line = stream.readline(MAX_HEAD)
    while line and not line.strip(_BLANKS):
        begin, line = stream.tell(), stream.readline(MAX_HEAD)
    if not line:
        return None
    first_line, lines = line, [line]
    if not _VERSION_LINE.match(first_line):
        return begin, first_line, {}, stream.tell()
    while line.strip(_BLANKS) and sum(map(len, lines)) < MAX_HEAD:
        line = stream.readline(MAX_HEAD)
        lines.append(line)
    return begin, first_line, parse_head(b"".join(lines))[1], stream.tell()


def _record_end(stream: IO[bytes], end: int) -> tuple[int, bool]:
    """Returns where the next record may begin, and whether the block ended there with blank lines or the file's end."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(min(end, size))
    if end > size:
        return size, False
    following = stream.read(64)
    rest = following.lstrip(_BLANKS)
    end += len(following) - len(rest)
    return end, not rest or rest.startswith(b"WARC/"[: len(rest)])


def _next_version_line(stream: IO[bytes], start: int) -> int:
    """Returns the offset of the next WARC version line at the beginning of a line, or the end of the stream."""
    for found in occurrences(stream, b"\nWARC/", max(0, start - 1)):
        stream.seek(found + 1)
        if _VERSION_LINE.match(stream.read(32)):
            return found + 1
    return stream.seek(0, io.SEEK_END)


def find_version_line(stream: IO[bytes]) -> int | None:
    """Returns the offset of the first WARC version line of a stream that is not compressed, None where it has none."""
    stream.seek(0)
    if opens_warc(stream.read(64)):
        return 0
    found = _next_version_line(stream, 1)
    return None if found == stream.seek(0, io.SEEK_END) else found


def _fault(stream: IO[bytes], begin: int, end: int, fault: tuple[str, str], url: str) -> Fault:
    """Returns the fault with its first bytes."""
    stream.seek(begin)
    return Fault(begin, *fault, stream.read(FIRST_BYTES), url, end - begin)


def _record(kind: str, headers: dict[str, str], block: bytes, offset: int, length: int) -> CrawlRecord:
    """Returns a record from its WARC headers and its place."""
    return CrawlRecord(
        kind=kind,
        offset=offset,
        length=length,
        record_id=headers.get("warc-record-id"),
        url=headers.get("warc-target-uri", "").strip().removeprefix("<").removesuffix(">").strip(),
        date=parse_time(headers.get("warc-date", "")),
        block=block,
        content_type=headers.get("content-type", ""),
        identified_type=headers.get("warc-identified-payload-type", "").strip().lower(),
        truncated=headers.get("warc-truncated", "").strip(),
    )


def _digest_holds(headers: dict[str, str], block: bytes) -> bool:
    """Returns whether the record states a block or payload digest and the bytes have it."""
    if stated := headers.get("warc-block-digest"):
        return _has_digest(block, stated)
    if stated := headers.get("warc-payload-digest"):
        response = parse_response(block)
        return _has_digest(block if response is None else response.body, stated)
    return False


def _has_digest(data: bytes, stated: str) -> bool:
    """Returns whether data has a digest written ``algorithm:value`` in base 32 or hexadecimal."""
    algorithm, _, value = stated.strip().partition(":")
    try:
        digest = hashlib.new(algorithm.lower().replace("-", ""), data, usedforsecurity=False)
    except ValueError:
        return False
    in_base_32 = base64.b32encode(digest.digest()).decode().rstrip("=")
    return value.upper().rstrip("=") == in_base_32 or value.lower() == digest.hexdigest()
