"""Opens a crawl file of any known make: finds out whether it is WARC or ARC, compressed or not, and reads it."""

import io
from collections.abc import Iterator
from typing import BinaryIO

from corpusmill.errors import PermanentDataError
from corpusmill.ingest.arc import FILE_HEADER, opens_arc, read_arc
from corpusmill.ingest.gzip_members import MAGIC, next_member, peek_member
from corpusmill.ingest.records import CrawlRecord, Fault
from corpusmill.ingest.warc import find_version_line, opens_warc, read_warc

ALL_KINDS = frozenset({"response", "conversion", "resource"})


def read_archive(
    file: BinaryIO, *, wanted: frozenset[str] = ALL_KINDS, max_bytes_record: int = 256 * 1024 * 1024
) -> Iterator[CrawlRecord | Fault]:
    """Yields the records of a WARC, WET or ARC file in file order, and a fault for each place that cannot be read.

    Args:
        file: A seekable file, opened for reading bytes.
        wanted: Kinds of record whose block is read; the others come with an empty block.
        max_bytes_record: Largest block in bytes that is taken into memory.

    Raises:
        PermanentDataError: The file is empty, or holds neither a WARC version line nor an ARC file header.
    """
    form, compressed = _form(file)
    read = read_arc if form == "arc" else read_warc
    yield from read(file, compressed=compressed, wanted=wanted, max_bytes_record=max_bytes_record)


def _form(file: BinaryIO) -> tuple[str, bool]:
    """Returns (``"warc"`` or ``"arc"``, whether gzip)."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    first = file.read(512)
    if first.startswith(FILE_HEADER):
        return "arc", False
    if opens_warc(first):
        return "warc", False
    found = 0 if first.startswith(MAGIC) and _opens(peek_member(file, 0)) else next_member(file, 1, _opens)
    if found is not None:
        return "warc" if opens_warc(peek_member(file, found)) else "arc", True
    if not first.startswith(MAGIC) and find_version_line(file) is not None:
        return "warc", False
    raise PermanentDataError(
        f"the file ({size} bytes) begins with {first[:60]!r} and holds no WARC version line and no ARC file header; "
        "expected a WARC, WET or ARC file, plain or gzip. An error page saved under the file's name looks like this: "
        "fetch the file again"
    )


def _opens(data: bytes) -> bool:
    """Returns whether data begins like a record of either format."""
    return opens_warc(data) or opens_arc(data)
