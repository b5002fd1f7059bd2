"""Cuts a file of concatenated gzip members into its members, each with its exact place, and survives damage.

Crawl files compress every record by itself, so that a record can be fetched by offset and length. Reading member by
member gives those places exactly and lets a corrupt member cost itself only: the reader goes on at the next gzip magic
whose data begins like a record.

Where all goes well, FastWARC's reader inflates (zlib-rs), which takes three fifths of zlib's time. It says nothing of a
member that is cut and reads on into the next one, so it is given what lies before the next gzip magic and a small
member of our own behind that, and counts only where it finds both whole. Everything else is zlib's to judge.
"""

import gzip
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO

from fastwarc.stream_io import GzipReader

MAGIC = b"\x1f\x8b\x08"
READ_SIZE = 256 * 1024
FINE_READ_SIZE = 256  # zlib gives nothing of a chunk in which it finds an error, so damage is read in small chunks
IN_MEMORY = 16 * 1024 * 1024  # decompressed bytes of a member that are kept in memory; the rest goes to a file
FEWEST_BYTES_LIMIT = 256 * 1024 * 1024  # a member may always grow to this size
LARGEST_RATIO = 64  # beyond that, to so many times the size of the file; pages compress 5 to 20 times
WINDOW = 1024 * 1024  # bytes of the file that are looked through at once for where a member ends
LARGEST_FAST = 4 * WINDOW  # compressed bytes of a member beyond which zlib reads it, in small pieces
_PLAIN_FLAGS = 0x04 | 0x08 | 0x10  # extra field, name, comment; a header checksum or unknown flags are zlib's to judge
_LARGEST_DEFLATE_RATIO = 1100  # deflate reaches 1,032
_SEAL = b"the member before this one was whole"
_SEAL_MEMBER = gzip.compress(_SEAL, mtime=0)


@dataclass(frozen=True)
class Member:
    """One gzip member, or a stretch of bytes that holds none.

    Attributes:
        offset: Byte offset of its first byte.
        length: Bytes up to the next readable member (its own compressed length, where it is sound).
        data: Decompressed bytes, at their start; what could be decompressed where ``error`` is set.
        error: ``""`` where the member is whole and its checksum holds, else what is wrong.
        cut: True where the file ends inside the member.
    """

    offset: int
    length: int
    data: IO[bytes]
    error: str = ""
    cut: bool = False


def gzip_members(file: BinaryIO, opens: Callable[[bytes], bool]) -> Iterator[Member]:
    """Yields the members of a gzip file in order; damaged stretches come as members with an error.

    The caller must be done with a member's data before it asks for the next one.

    Args:
        file: A seekable file, read from its first byte.
        opens: Says whether decompressed data begins like a record; decides where reading goes on after damage.
    """
    size = file.seek(0, io.SEEK_END)
    limit = max(FEWEST_BYTES_LIMIT, LARGEST_RATIO * size)
    window = _Window(file, size)
    offset = 0
    while offset < size:
        stretch = window.up_to_next_magic(offset)
        if (sound := _inflate_sound(stretch)) is not None:
            yield Member(offset, len(stretch), io.BytesIO(sound))
            offset += len(stretch)
            continue
        with tempfile.SpooledTemporaryFile(IN_MEMORY) as spool:
            length, error, cut = _inflate(file, offset, spool, limit)
            if error:
                if _only_zeros(file, offset):  # padding after the last member, as gzip itself allows
                    return
                found = next_member(file, offset + 1, opens)
                length = (size if found is None else found) - offset
            spool.seek(0)
            yield Member(offset, length, spool, error, cut and offset + length == size)
        offset += length


class _Window:
    """The part of a file in which the next member is looked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.begin = 0
        self.data = b""

    def up_to_next_magic(self, offset: int) -> bytes:
        """Returns the bytes from ``offset`` up to the next gzip magic or the end, ``b""`` where those are too many."""
        if not self.begin <= offset < self.begin + len(self.data):
            self.begin, self.data = offset, b""
        start = offset - self.begin
        searched = start + 1
        while (end := self.data.find(MAGIC, searched)) < 0:
            end = len(self.data)
            if self.begin + end >= self.size:
                break
            if end - start > LARGEST_FAST:
                return b""
            self.file.seek(self.begin + end)
            more = self.file.read(WINDOW)
            if not more:
                break
            self.begin, self.data = offset, self.data[start:] + more
            searched, start = max(1, end - start - len(MAGIC) + 1), 0
        return self.data[start:end]


def _inflate_sound(stretch: bytes) -> bytes | None:
    """Returns the data of bytes that are exactly one sound gzip member, None where that is not certain.

    Args:
        stretch: Bytes that hold the gzip magic at their start at most.
    """
    if len(stretch) < 18 or not stretch.startswith(MAGIC) or stretch[3] & ~_PLAIN_FLAGS:
        return None
    n_out = int.from_bytes(stretch[-4:], "little")
    if not 0 < n_out <= min(IN_MEMORY, _LARGEST_DEFLATE_RATIO * len(stretch)):
        return None
    reader = GzipReader(io.BytesIO(stretch + _SEAL_MEMBER))
    try:
        data = reader.read(n_out)
        return data if len(data) == n_out and reader.read(len(_SEAL) + 1) == _SEAL else None
    except OSError:
        return None


def _inflate(
    file: BinaryIO, offset: int, out: IO[bytes], limit: int, read_size: int = READ_SIZE
) -> tuple[int, str, bool]:
    """Decompresses one member into ``out``; returns its compressed length, an error (``""`` for none), and if cut."""
    file.seek(offset)
    inflater = zlib.decompressobj(wbits=31)  # 31: gzip with header and checksum
    used = n_out = 0
    chunk = file.read(read_size)
    if not chunk.startswith(MAGIC[: len(chunk)]):
        return 0, f"no gzip member begins here: found {chunk[:4]!r}, expected {MAGIC!r}", False
    while chunk:
        try:
            data = inflater.decompress(chunk, IN_MEMORY)
        except zlib.error as error:
            if read_size > FINE_READ_SIZE:
                out.seek(0)
                out.truncate()
                return _inflate(file, offset, out, limit, FINE_READ_SIZE)
            return used, f"the gzip member is corrupt: {error}", False
        # at the end of a member zlib may give what follows it as unconsumed as well
        used += len(chunk) - len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail)
        n_out += len(data)
        if n_out > limit:
            return (
                used,
                f"the gzip member grows beyond {limit} bytes, more than pages can; expected at most that",
                False,
            )
        out.write(data)
        if inflater.eof:
            return used, "", False
        chunk = inflater.unconsumed_tail or file.read(read_size)
    return used, f"the file ends inside the gzip member, after {used} of its bytes", True


def next_member(file: IO[bytes], start: int, opens: Callable[[bytes], bool]) -> int | None:
    """Returns the offset of the first gzip member at or after ``start`` whose data opens a record, None for none."""
    for offset in occurrences(file, MAGIC, start):
        if opens(peek_member(file, offset)):
            return offset
    return None


def peek_member(file: IO[bytes], offset: int, n: int = 512) -> bytes:
    """Returns the first decompressed bytes of the gzip member at ``offset``, ``b""`` where none can be read."""
    file.seek(offset)
    try:
        return zlib.decompressobj(wbits=31).decompress(file.read(4096), n)
    except zlib.error:
        return b""


def occurrences(file: IO[bytes], pattern: bytes, start: int) -> Iterator[int]:
    """Yields the offsets at or after ``start`` where ``pattern`` stands, in order."""
    position, tail = start, b""
    while True:
        file.seek(position)
        chunk = file.read(READ_SIZE)
        if not chunk:
            return
        window = tail + chunk
        base = position - len(tail)
        found = window.find(pattern)
        while found >= 0:
            yield base + found
            found = window.find(pattern, found + 1)
        position += len(chunk)
        tail = window[len(window) - len(pattern) + 1 :]


def _only_zeros(file: BinaryIO, offset: int) -> bool:
    """Returns whether nothing but zero bytes follows."""
    file.seek(offset)
    while chunk := file.read(READ_SIZE):
        if chunk.strip(b"\0"):
            return False
    return True
