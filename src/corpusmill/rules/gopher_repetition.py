"""Gopher's repetition measures: duplicate paragraphs, lines and n-grams as shares of the text.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, table A1, in the reading of datatrove 0.10.1 (FineWeb).
The denominator of every character share is the length of the whole text.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

TOP_N_GRAMS = (2, 3, 4)
"""Sizes for the share of the most frequent n-gram."""
DUPLICATE_N_GRAMS = (5, 6, 7, 8, 9, 10)
"""Sizes for the share of text inside repeated n-grams."""

Measures = dict[str, float | None]

_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")


def line_measures(text: str) -> Measures:
    """Returns the shares of duplicate paragraphs and lines, by count and by characters; any language.

    Paragraphs are those of the stripped text, lines those of the text as it is: a newline at either end makes an
    empty line. Shares are null for an empty text; ``n_chars`` is 0 then.
    """
    measures: Measures = {"gopher_repetition_n_chars": float(len(text))}
    for kind, pieces in (("para", _PARAGRAPHS.split(text.strip())), ("line", _LINES.split(text))):
        n, n_chars = duplicates(pieces)
        measures[f"gopher_repetition_dup_{kind}_frac"] = n / len(pieces) if text else None
        measures[f"gopher_repetition_dup_{kind}_char_frac"] = n_chars / len(text) if text else None
    return measures


def n_gram_measures(text: str, words: Sequence[str]) -> Measures:
    """Returns the shares of the most frequent 2- to 4-gram and of repeated 5- to 10-grams; English.

    A text with fewer words than n has no most frequent n-gram (null) and no repeated one (0). There is no minimum
    count: in a short text even an n-gram that stands once can have a large share.

    Args:
        text: The text.
        words: Its words.
    """
    measures: Measures = {}
    for n in TOP_N_GRAMS:
        top = _top_chars(words, n)
        measures[f"gopher_repetition_top_{n}_gram"] = top / len(text) if text and top is not None else None
    joined = "".join(words)
    ends = [0, *accumulate(map(len, words))]
    for n in DUPLICATE_N_GRAMS:
        measures[f"gopher_repetition_dup_{n}_grams"] = _repeated_chars(joined, ends, n) / len(text) if text else None
    return measures


def duplicates(pieces: Sequence[str]) -> tuple[int, int]:
    """Returns how many pieces stood before already, and their characters."""
    seen: set[str] = set()
    n = n_chars = 0
    for piece in pieces:
        if piece in seen:
            n += 1
            n_chars += len(piece)
        else:
            seen.add(piece)
    return n, n_chars


def _top_chars(words: Sequence[str], n: int) -> int | None:
    """Returns the characters covered by the most frequent n-gram joined by spaces; ties go to the first one."""
    counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    if not counts:
        return None
    gram, count = max(counts.items(), key=lambda item: item[1])
    return (sum(map(len, gram)) + n - 1) * count


def _repeated_chars(joined: str, ends: Sequence[int], n: int) -> int:
    """Returns the characters of n-grams seen before; after a hit the scan goes on behind it.

    N-grams are compared as concatenated text, so that word boundaries inside them do not matter.

    Args:
        joined: All words without spaces.
        ends: Where words end in it: word i is ``joined[ends[i]:ends[i + 1]]``.
        n: Words in an n-gram.
    """
    seen: set[str] = set()
    n_chars = i = 0
    last = len(ends) - 1 - n
    while i <= last:
        gram = joined[ends[i] : ends[i + n]]
        if gram in seen:
            n_chars += len(gram)
            i += n
        else:
            seen.add(gram)
            i += 1
    return n_chars
