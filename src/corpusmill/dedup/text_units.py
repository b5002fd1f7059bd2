"""Lines and paragraphs of a text: where they stand, when two are the same, and what is left without some of them.

Offsets are in characters. White space is what Python's ``str.split`` takes for it; only a line feed ends a line.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Unit = Literal["line", "paragraph"]
"""A line, or a run of lines between blank ones; blank lines belong to no unit."""

_LINE_ENDS = re.compile(r"(?:[^\S\n]*\n)*")


class Span(NamedTuple):
    """A unit's place in its text: characters from ``start`` up to, not including, ``end``."""

    start: int
    end: int


def unit_spans(text: str, unit: Unit) -> Iterator[Span]:
    """Yields the units of a text in order."""
    return _lines(text) if unit == "line" else _paragraphs(text)


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if line and not line.isspace():
            yield Span(start, end)
        start = end + 1


def _paragraphs(text: str) -> Iterator[Span]:
    first, last = 0, -2
    for line in _lines(text):
        if line.start == last + 1:  # nothing but the line break between the two
            last = line.end
            continue
        if last >= 0:
            yield Span(first, last)
        first, last = line
    if last >= 0:
        yield Span(first, last)


def unit_digest(text: str, min_words: int) -> bytes | None:
    """Returns 16 bytes that are equal for units whose texts are equal with runs of white space folded.

    Args:
        text: The unit.
        min_words: Units of fewer words, separated by white space, have none: None.
    """
    words = text.split()
    if len(words) < min_words:
        return None
    return hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def without_units(text: str, spans: Iterable[Span]) -> str:
    """Returns a text without some of its units.

    With a unit go the blank lines after it, so that what is left stands as far apart as it did; where nothing is left
    after the last one, the white space before it goes too.

    Args:
        text: The text.
        spans: Units of it, in order.
    """
    parts, position, cut = [], 0, False
    for start, end in spans:
        parts.append(text[position:start])
        found = _LINE_ENDS.match(text, end)
        assert found is not None, "the pattern matches the empty string"
        position, cut = found.end(), True
    rest = text[position:]
    if cut and not rest.strip():
        return "".join(parts).rstrip()
    return "".join([*parts, rest])
