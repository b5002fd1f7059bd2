"""Decodes pages: byte order mark, HTTP header, meta element, then detection; U+FFFD for bytes that nothing decodes.

The mark goes before the header, as in browsers: it stands in the bytes themselves. A declared charset that does not fit
(a Latin-1 page said to be UTF-8) gives way to the next one; one with a few bad bytes does not, or a single broken
character would turn a whole page into garbage.
"""

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

CHARSET_RULES = 1
"""Version of the rules of this module; stands in the extraction fingerprint."""

Source = Literal["bom", "header", "meta", "detected", "replaced"]

META_BYTES = 16 * 1024  # a meta element further down is not looked for; browsers look at 1,024 bytes
SNIFFED_BYTES = 4096
LARGEST_ZERO_SHARE = 0.1  # UTF-16 that nothing declares counts as binary, as in browsers
LARGEST_BAD_SHARE = 0.1  # of the bytes beyond ASCII; a wrong charset fails on nearly all of them
LARGEST_REPLACED_SHARE = 0.2  # of the characters; more is not a page of text
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.\-]{2,40})", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_ASCII = bytes(range(128))
_SUPERSETS = {"gbk": "gb18030", "gb2312": "gb18030", "ascii": "cp1252"}  # as the WHATWG encoding standard decodes them
_BINARY_STARTS = (b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b", b"RIFF", b"\x7fELF")
_WIDE = ("utf-16-le", "utf-16-be", "utf-16")


class UndecodableError(ValueError):
    """The bytes are not text in any charset that could be found."""


@dataclass(frozen=True)
class DecodedText:
    """A decoded page.

    Attributes:
        text: The text without byte order mark.
        charset: Python codec that decoded it.
        source: Where the charset came from; ``replaced`` where bytes had to be replaced.
        n_replaced: U+FFFD characters that stand for bytes which the codec does not know.
    """

    text: str
    charset: str
    source: Source
    n_replaced: int = 0


def decode_html(data: bytes, header_charset: str | None) -> DecodedText:
    """Returns the text of a page.

    Args:
        data: The page as bytes.
        header_charset: Charset of the HTTP content type, None where it states none.

    Raises:
        UndecodableError: The bytes are binary data, or more than a fifth of the characters would be replaced.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], codec, "bom")
    binary = _is_binary(data)
    if not binary and (stated := python_codec(header_charset or "")):  # most pages; spares the search for a meta
        try:
            return DecodedText(data.decode(stated), stated, "header")
        except UnicodeDecodeError:
            pass
    declared = _declared(data, header_charset)
    if binary and not any(codec in _WIDE for codec, _ in declared):
        raise UndecodableError(f"the page begins with {data[:16]!r} and is binary data; expected text")
    for codec, source in declared:
        try:
            return DecodedText(data.decode(codec), codec, source)
        except UnicodeDecodeError:
            continue
    beyond_ascii = len(data.translate(None, _ASCII))
    for codec, _ in declared:
        decoded = _decoded(data, codec, "replaced")
        if decoded.n_replaced <= LARGEST_BAD_SHARE * beyond_ascii:
            return decoded
    return _detected(data, declared[0][0] if declared else "utf-8")


def _is_binary(data: bytes) -> bool:
    """Returns whether the bytes are a picture, document or archive, or full of zero bytes; a few are in real pages."""
    head = data[:SNIFFED_BYTES]
    return head.startswith(_BINARY_STARTS) or head.count(0) > LARGEST_ZERO_SHARE * len(head)


def _declared(data: bytes, header_charset: str | None) -> list[tuple[str, Source]]:
    """Returns the codecs that header and meta element name, in order."""
    found: list[tuple[str, Source]] = []
    if codec := python_codec(header_charset or ""):
        found.append((codec, "header"))
    if (meta := _META.search(data, 0, META_BYTES)) and (codec := python_codec(meta[1].decode("ascii"))):
        found.append(("utf-8" if codec in _WIDE else codec, "meta"))  # the meta element itself was readable as ASCII
    return found


def _detected(data: bytes, otherwise: str) -> DecodedText:
    """Returns the text by the detected charset, or with replacements where that fails too."""
    from resiliparse.parse.encoding import detect_encoding

    codec = python_codec(detect_encoding(data) or "") or otherwise
    for candidate in ("utf-8", codec):
        try:
            return DecodedText(data.decode(candidate), candidate, "detected")
        except UnicodeDecodeError:
            continue
    return _decoded(data, codec, "replaced")


def _decoded(data: bytes, codec: str, source: Source) -> DecodedText:
    """Returns the text with U+FFFD for bad bytes."""
    text = data.decode(codec, "replace")
    n_replaced = text.count("\ufffd")
    if n_replaced > LARGEST_REPLACED_SHARE * max(1, len(text)):
        raise UndecodableError(
            f"{n_replaced} of {len(text)} characters are not {codec!r}, the best charset found; expected text"
        )
    return DecodedText(text, codec, "replaced" if n_replaced else source, n_replaced)


@lru_cache(maxsize=256)
def python_codec(name: str) -> str | None:
    """Returns the Python codec for a charset label as browsers understand it, None for an unknown label."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    label = name.strip().strip("\"'").lower()
    if not label:
        return None
    mapped = map_encoding_to_html5(label, False)
    if not mapped:
        return None
    codec = _SUPERSETS.get(mapped.lower(), mapped.lower())
    try:
        return codec if codecs.lookup(codec)._is_text_encoding else None
    except LookupError:
        return None
