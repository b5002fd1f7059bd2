"""Reads ARC files, the format of crawls before 2013, which FastWARC does not read.

Source: Internet Archive, "Arc File Format", versions 1 and 2. A record is a line ``URL IP date content-type length``
(version 2: ``URL IP date content-type result-code checksum location offset filename length``), then so many bytes.
Records have no id; a URL may hold blanks, so that the line is read from its right end.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import IO, BinaryIO

from corpusmill.ingest.gzip_members import Member, gzip_members
from corpusmill.ingest.records import FIRST_BYTES, CrawlRecord, Fault, damaged_member, parse_time

MAX_LINE = 64 * 1024
FILE_HEADER = b"filedesc:"
_LINE = re.compile(rb"([a-zA-Z][a-zA-Z0-9+.-]*:.*) (\S+) (\d{12,18}) (\S.*)\r?\n?")
_BLANKS = b"\r\n"


def opens_arc(data: bytes) -> bool:
    """Returns whether data begins with the first line of an ARC record (blank lines before it are allowed)."""
    line = data.lstrip(_BLANKS).partition(b"\n")[0]
    return _LINE.fullmatch(line) is not None


def read_arc(
    file: BinaryIO, *, compressed: bool, wanted: frozenset[str], max_bytes_record: int
) -> Iterator[CrawlRecord | Fault]:
    """Yields every record of an ARC file but its file header, and every place where bytes were lost, in file order.

    Pages come as kind ``response``, records that hold no HTTP response (``dns:``) as ``resource``.

    Args:
        file: A seekable file.
        compressed: Whether the file is gzip.
        wanted: Kinds whose block is read; the others come with an empty block.
        max_bytes_record: Largest block in bytes that is taken into memory.
    """
    if not compressed:
        yield from _frames(file, wanted, max_bytes_record)
        return
    for member in gzip_members(file, opens_arc):
        yield from _member(member, wanted, max_bytes_record)


def _member(member: Member, wanted: frozenset[str], max_bytes_record: int) -> Iterator[CrawlRecord | Fault]:
    """Yields the records of one gzip member; of a damaged one only a fault, as ARC has no digest to trust them by.

    A member that the end of the file cuts keeps the records that came whole before the cut: deflate data up to there
    is sound.
    """
    index = count()
    faults = []
    for item in _frames(member.data, wanted, max_bytes_record) if member.cut or not member.error else ():
        if isinstance(item, CrawlRecord):
            yield replace(item, offset=member.offset, length=member.length, index=next(index))
        else:
            faults.append(item)
    saved = next(index)
    if member.error:
        yield damaged_member(member, saved)
        return
    for n, fault in enumerate(faults):
        lost = member.length if n == 0 and not saved else 0
        yield replace(fault, offset=member.offset, n_bytes_lost=lost)


def _frames(stream: IO[bytes], wanted: frozenset[str], max_bytes_record: int) -> Iterator[CrawlRecord | Fault]:
    """Yields records and faults of one stream; offsets are those of the stream."""
    size = stream.seek(0, io.SEEK_END)
    position = 0
    while True:
        stream.seek(position)
        begin, line = position, stream.readline(MAX_LINE)
        while line and not line.strip(_BLANKS):
            begin, line = stream.tell(), stream.readline(MAX_LINE)
        if not line:
            return
        body_at = stream.tell()
        found = _LINE.fullmatch(line)
        length = found and _length_of(found[4])
        if found is None or length is None or body_at + length > size:
            end = _next_line(stream, body_at)
            if not line.startswith(FILE_HEADER):
                yield _fault(stream, begin, end, found, line, length)
            position = end
            continue
        position = body_at + length
        if line.startswith(FILE_HEADER):
            continue
        kind = "response" if found[1][:4].lower() == b"http" else "resource"
        if length > max_bytes_record and kind in wanted:
            message = f"the record has {length} bytes; expected at most {max_bytes_record} (max_bytes_record)"
            yield Fault(begin, "ingest.record_too_large", message, line[:FIRST_BYTES], _text(found[1]), length)
            continue
        yield CrawlRecord(
            kind=kind,
            offset=begin,
            length=position - begin,
            url=_text(found[1]),
            date=parse_time(_text(found[3])),
            block=stream.read(length) if kind in wanted else b"",
            content_type=_text(found[4].split()[0]),
        )


def _length_of(fields: bytes) -> int | None:
    """Returns the length that ends a record line, None where it is not a number of bytes."""
    last = fields.split()[-1]
    return int(last) if last.isdigit() and len(last) <= 18 else None


def _next_line(stream: IO[bytes], start: int) -> int:
    """Returns the offset of the next line that opens a record with a usable length, or the end of the stream."""
    stream.seek(start)
    position = start
    while line := stream.readline(MAX_LINE):
        found = _LINE.fullmatch(line)
        if found and found[4].split()[-1].lstrip(b"-").isalnum():
            return position
        position = stream.tell()
    return position


def _fault(
    stream: IO[bytes], begin: int, end: int, found: re.Match[bytes] | None, line: bytes, length: int | None
) -> Fault:
    """Returns the fault of a record line that is not usable, or of a record that the end of the file cuts."""
    if found is None:
        message = f"found {line[:60]!r} where a record begins; expected 'URL IP date content-type length'"
    elif length is None:
        message = f"the length {found[4].split()[-1]!r} of a record is not a number of bytes"
    else:
        message = f"the record states {length} bytes, more than the file has left"
    stream.seek(begin)
    return Fault(
        begin, "ingest.bad_record", message, stream.read(FIRST_BYTES), _text(found[1]) if found else "", end - begin
    )


def _text(data: bytes) -> str:
    """Returns bytes of a record line as text."""
    return data.decode("utf-8", "replace").strip()
