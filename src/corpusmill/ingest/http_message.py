"""HTTP responses as crawls store them: head, status, content type, and the body with its encodings undone in bounds."""

import io
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fastwarc.stream_io import BrotliReader, ChunkedReader, ZstdReader

READ_SIZE = 256 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(r"\S+\s+(\d{3})\b")
_CHUNK_SIZE_LINE = re.compile(rb"[0-9a-fA-F]{1,8}[ \t]*(;[^\r\n]*)?\r?\n")
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BodyTooLargeError(ValueError):
    """A body grows beyond the limit when its encodings are undone."""


class _Reader(Protocol):
    """Anything that hands out bytes."""

    def read(self, size: int, /) -> bytes:
        """Returns at most so many bytes, ``b""`` at the end."""
        ...


@dataclass(frozen=True)
class HttpMessage:
    """A stored HTTP response.

    Attributes:
        status: Status code, None where the first line holds none.
        headers: Values by lower-case name; of repeated headers the first.
        body: Body as stored, encodings not undone.
    """

    status: int | None
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """Content type in lower case without parameters, ``""`` where there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """Charset parameter of the content type, None where there is none."""
        found = re.search(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", self.headers.get("content-type", ""), re.IGNORECASE)
        return found[1] if found else None


def parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """Returns the first line of a WARC or HTTP head and its headers by lower-case name.

    Folded lines are joined; of repeated headers the first counts; lines that are no header are left out.
    """
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    first, *lines = text.split("\n")
    headers: dict[str, str] = {}
    name = ""
    for raw in lines:
        line = raw.rstrip("\r")
        if line[:1] in (" ", "\t") and name:
            headers[name] = f"{headers[name]} {line.strip()}".strip()
            continue
        key, colon, value = line.partition(":")
        name = key.strip().lower() if colon else ""
        if name in headers:
            name = ""
        elif name:
            headers[name] = value.strip()
    return first.strip(), headers


def parse_response(block: bytes) -> HttpMessage | None:
    """Returns the HTTP response in a record's block, None where the block does not begin with an HTTP head."""
    if not block[:5].upper().startswith((b"HTTP/", b"ICY ")):
        return None
    end = _HEAD_END.search(block)
    head, body = (block, b"") if end is None else (block[: end.start()], block[end.end() :])
    first, headers = parse_head(head)
    status = _STATUS.match(first)
    return HttpMessage(int(status[1]) if status else None, headers, body)


def decode_body(message: HttpMessage, max_bytes: int) -> tuple[bytes, bool]:
    """Returns the body with transfer and content encodings undone, and whether it was whole.

    A body that is not encoded in spite of its headers is taken as it is: many crawlers store bodies decoded. Of a body
    that was cut while encoded, what can be decoded is returned.

    Raises:
        BodyTooLargeError: The body grows beyond ``max_bytes``; nothing beyond that is held in memory.
    """
    body, whole = message.body, True
    if "chunked" in message.headers.get("transfer-encoding", "").lower() and _CHUNK_SIZE_LINE.match(body):
        body, whole = _drain(ChunkedReader(io.BytesIO(body)), body, max_bytes)
    for encoding in reversed(message.headers.get("content-encoding", "").lower().split(",")):
        body, decoded_whole = _undo(encoding.strip(), body, max_bytes)
        whole = whole and decoded_whole
    if len(body) > max_bytes:
        raise BodyTooLargeError(_too_large(max_bytes))
    return body, whole


def _undo(encoding: str, body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """Undoes one content encoding."""
    if encoding in ("gzip", "x-gzip") and body.startswith(_GZIP_MAGIC):
        return _inflate(body, 31, max_bytes)
    if encoding == "deflate" and body:
        for wbits in (15, -15):  # RFC 9110 asks for zlib data, many servers send raw deflate
            data, whole = _inflate(body, wbits, max_bytes)
            if data:
                return data, whole
    if encoding == "br" and body and not body.lstrip().startswith(b"<"):
        return _drain(BrotliReader(io.BytesIO(body)), body, max_bytes)
    if encoding == "zstd" and body.startswith(_ZSTD_MAGIC):
        return _drain(ZstdReader(io.BytesIO(body)), body, max_bytes)
    return body, True


def _inflate(body: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bool]:
    """Returns inflated data and whether its end was reached; what came before an error where there is one."""
    inflater = zlib.decompressobj(wbits)
    out, n_out, rest = [], 0, body
    while rest and not inflater.eof:
        try:
            data = inflater.decompress(rest, READ_SIZE)
        except zlib.error:
            break
        n_out += len(data)
        if n_out > max_bytes:
            raise BodyTooLargeError(_too_large(max_bytes))
        out.append(data)
        rest = inflater.unconsumed_tail
    return b"".join(out), inflater.eof


def _drain(reader: _Reader, body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """Returns all that a reader gives and whether it ended well; the body itself where it gives nothing."""
    out, n_out, whole = [], 0, True
    try:
        while data := reader.read(READ_SIZE):
            n_out += len(data)
            if n_out > max_bytes:
                raise BodyTooLargeError(_too_large(max_bytes))
            out.append(data)
    except OSError:
        whole = False
    return (b"".join(out), whole) if out or whole else (body, False)


def _too_large(max_bytes: int) -> str:
    """Returns the message of a body that is too large."""
    return f"the page is larger than {max_bytes} bytes after HTTP decoding; expected at most that (max_bytes_html)"
