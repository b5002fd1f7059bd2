"""Labels the lines of a page by a reference text of the same page: people's gold text, or an extractor's output.

Page and reference become word tokens and are aligned in order, so that a menu word that the article uses too is not
taken for the article. A line is kept or removed by the share of its tokens that was found in the reference; what lies
between is unsure. Measured against the shared labelled set, see `tests/unit/prox/test_reference_labels.py`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from corpusmill.prox.annotation_config import SynthesisConfig
from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE
from corpusmill.prox.line_edits import LineEdits, RejectedError
from corpusmill.prox.rewrite_diff import CJK
from corpusmill.prox.sequence_alignment import align

KEEP_SHARE, REMOVE_SHARE = 0.7, 0.3
"""Shares of a line's tokens found in the reference, from which on it is kept and up to which it is removed."""
PASSAGE = 3
"""Tokens in a row that must be found together; shorter finds count only where they are whole lines."""
SHORT, SOLID = 3, 6
"""A line of at most `SHORT` tokens is kept only among kept lines of at least `SOLID` tokens."""
LONG, GRAM, GRAM_SHARE = 9, 5, 0.9
"""A removed line of at least `LONG` tokens is unsure where so many of its `GRAM`-grams stand anywhere in the reference:
it is out of order, or said twice."""
MAX_HTML = 4 * 1024 * 1024
"""Characters of HTML that an extractor is given."""

_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")

Cleaner = Callable[[str], str]
"""A function from text to the text that is worth keeping."""


@dataclass(frozen=True)
class Aligned:
    """The lines of a page against a reference.

    Attributes:
        labels: `KEEP`, `REMOVE` or `UNSURE` for each line.
        found: Share of the reference's tokens that are on the page.
        unsure_share: Share of the page's tokens on unsure lines.
        n_reference: Tokens of the reference.
    """

    labels: list[int]
    found: float
    unsure_share: float
    n_reference: int


def words(text: str) -> list[str]:
    """Returns the word tokens of a text, case and compatibility forms folded; Chinese, Japanese and Thai by letters."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def align_lines(lines: Sequence[str], reference: str) -> Aligned:
    """Returns a label for each line by what of it stands in the reference, in order.

    Lines without a word (rules, bullets) are unsure among kept lines and removed elsewhere; blank lines are `KEEP`
    here and settled with their neighbours later.
    """
    tokens = [words(line) for line in lines]
    theirs = words(reference)
    owner = [row for row, line in enumerate(tokens) for _ in line]
    starts = [0]
    for line in tokens:
        starts.append(starts[-1] + len(line))
    hit = bytearray(len(owner))
    n_found = 0
    for start, end in _runs(align([word for line in tokens for word in line], theirs)):
        covers = any(starts[row] >= start and starts[row + 1] <= end for row in {owner[start], owner[end - 1]})
        if end - start >= PASSAGE or covers:
            hit[start:end] = b"\1" * (end - start)
            n_found += end - start
    shares = [sum(hit[a:b]) / (b - a) if b > a else 0.0 for a, b in pairwise(starts)]
    labels = _labels(lines, tokens, shares)
    grams = set(_grams(theirs))
    for row, line in enumerate(tokens):
        if labels[row] == REMOVE and len(line) >= LONG:
            share = sum(gram in grams for gram in _grams(line)) / (len(line) - GRAM + 1)
            labels[row] = UNSURE if share >= GRAM_SHARE else REMOVE
    n_unsure = sum(len(line) for line, label in zip(tokens, labels, strict=True) if label == UNSURE)
    return Aligned(labels, n_found / max(1, len(theirs)), n_unsure / max(1, len(owner)), len(theirs))


def _grams(tokens: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(tokens[k:] for k in range(GRAM)), strict=False)


def _runs(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the ranges of our tokens that are matched without a gap on either side, end exclusive."""
    runs: list[tuple[int, int]] = []
    before = -2
    for i, j in pairs:
        if runs and runs[-1][1] == i and j == before + 1:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
        before = j
    return runs


def _labels(lines: Sequence[str], tokens: list[list[str]], shares: list[float]) -> list[int]:
    solid = [row for row, line in enumerate(tokens) if shares[row] >= KEEP_SHARE and len(line) >= SOLID]
    first, last = (solid[0] - 2, solid[-1] + 1) if solid else (len(lines), -1)
    return [
        KEEP if not line.strip() else _label(len(tokens[row]), shares[row], inside=first <= row <= last)
        for row, line in enumerate(lines)
    ]


def _label(n: int, share: float, *, inside: bool) -> int:
    if n == 0:
        return UNSURE if inside else REMOVE
    if n <= SHORT and share > REMOVE_SHARE:
        return KEEP if share == 1 and inside else REMOVE
    if share >= KEEP_SHARE:
        return KEEP if inside or n >= SOLID else UNSURE
    return REMOVE if share <= REMOVE_SHARE else UNSURE


def edits_of_reference(lines: Sequence[str], reference: str, config: SynthesisConfig) -> tuple[LineEdits, Aligned]:
    """Returns the removals that lead from a page towards a reference text of it.

    Raises:
        RejectedError: ``reference_short``, ``reference_not_found`` or ``too_unsure``.
    """
    aligned = align_lines(lines, reference)
    if aligned.n_reference < config.min_reference_tokens:
        raise RejectedError(
            "reference_short", f"{aligned.n_reference} tokens of reference, expected {config.min_reference_tokens}"
        )
    if aligned.found < config.min_reference_found:
        raise RejectedError("reference_not_found", f"{aligned.found:.0%} of the reference is on the page")
    if aligned.unsure_share > config.max_unsure_share:
        raise RejectedError("too_unsure", f"{aligned.unsure_share:.0%} of the page's tokens are on unsure lines")
    removed = frozenset(row for row, label in enumerate(aligned.labels) if label == REMOVE)
    unsure = frozenset(row for row, label in enumerate(aligned.labels) if label == UNSURE)
    return LineEdits(0, tuple(lines), removed, unsure=unsure), aligned


def full_text(html: str) -> str:
    """Returns all text of a page, menus and footers included, in the form that ingestion gives text.

    Raises:
        RejectedError: ``extractor_failed`` or ``html_too_large``.
    """
    from resiliparse.extract.html2text import extract_plain_text

    return _extracted(html, lambda page: extract_plain_text(page, main_content=False, **_FORM))


def main_text(html: str, extractor: str) -> str:
    """Returns the main content of a page by ``trafilatura`` or ``resiliparse``; "" where there is none.

    Raises:
        RejectedError: ``extractor_failed`` or ``html_too_large``.
    """
    if extractor == "trafilatura":
        from trafilatura import extract

        # with deduplicate=True it keeps a memory of the whole process and is not repeatable
        return _extracted(html, lambda page: extract(page, include_comments=False, deduplicate=False) or "")
    from resiliparse.extract.html2text import extract_plain_text

    return _extracted(html, lambda page: extract_plain_text(page, main_content=True, **_FORM))


_FORM: dict[str, Any] = {
    "preserve_formatting": True,
    "alt_texts": False,
    "links": False,
    "comments": False,
    "form_fields": False,
    "noscript": False,
}
"""The options of the product's default extraction."""


def extractor_name(extractor: str) -> str:
    """Returns an extractor with its installed version, for provenance."""
    return f"{extractor}@{version(extractor)}"


def _extracted(html: str, extract: Cleaner) -> str:
    if len(html) > MAX_HTML:
        raise RejectedError("html_too_large", f"{len(html)} characters of HTML, expected at most {MAX_HTML}")
    return cleaned(html, extract)


def cleaned(text: str, cleaner: Cleaner) -> str:
    """Returns what a cleaner makes of a text.

    Raises:
        RejectedError: ``extractor_failed``: it raised.
    """
    try:
        return cleaner(text)
    except (MemoryError, RecursionError) as error:
        raise RejectedError("extractor_failed", f"it gave up: {type(error).__name__}") from error
    except BaseException as error:
        # a panic of a Rust extension is no Exception
        if type(error).__name__ != "PanicException" and not isinstance(error, Exception):
            raise
        raise RejectedError("extractor_failed", f"{error!r:.200}") from error
