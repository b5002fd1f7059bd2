"""What spaCy's English tokenizer and the rules ask of a single character, found by asking them.

The table lets kernels split most chunks as spaCy would. A character whose behaviour depends on more than the kernels
look at is `UNSURE`, and a chunk with such a character goes to spaCy.
"""

import unicodedata
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from corpusmill.rules.punctuation import SYMBOLS

N_CLASSIFIED = 0x3000
"""Code points from here on have no class: their chunks go to spaCy."""

LETTER = 1 << 0
"""Alphabetic, and never a prefix, suffix or infix beside other letters."""
DIGIT = 1 << 1
PREFIX = 1 << 2
"""Always cut from the front, alone."""
SUFFIX = 1 << 3
"""Always cut from the end, alone."""
UNSURE = 1 << 4
BEFORE_STOP = 1 << 5
"""A full stop at the end is cut off behind it."""
CAPITAL = 1 << 6
"""A full stop at the end is cut off behind two of these."""
ALPHABETIC = 1 << 7
"""`str.isalpha`."""
SYMBOL = 1 << 8
"""In `corpusmill.rules.punctuation.SYMBOLS`."""
PUNCTUATION_MARK = 1 << 9
"""Unicode category P, as the sentencizer asks."""
END_MARK = 1 << 10
"""Ends a sentence, where it is a token of its own."""
JOINER = 1 << 11
"""Between letters it is a token of its own: hyphens, dashes, slash, comma."""
APOSTROPHE = 1 << 12
"""Between letters it stays inside the word."""

JOINERS = "-\u2013\u2014/,"
APOSTROPHES = "'\u2019"


class SpecialCases(NamedTuple):
    """spaCy's exceptions to its rules.

    Attributes:
        texts: Strings with tokens of their own.
        pairs: First two tokens of each exception that the rules would split: where they meet, spaCy may join them.
    """

    texts: frozenset[str]
    pairs: frozenset[tuple[str, str]]


def special_cases(tokenizer: Any) -> SpecialCases:
    """Returns the exceptions of a spaCy tokenizer."""
    from spacy.tokenizer import Tokenizer

    plain = Tokenizer(
        tokenizer.vocab,
        rules={},
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
        url_match=tokenizer.url_match,
    )
    split = ([token.text for token in plain(text)] for text in tokenizer.rules)
    return SpecialCases(
        frozenset(tokenizer.rules), frozenset((words[0], words[1]) for words in split if len(words) > 1)
    )


def classify(tokenizer: Any, end_marks: frozenset[str]) -> npt.NDArray[np.uint16]:
    """Returns the classes of the first `N_CLASSIFIED` code points.

    Args:
        tokenizer: spaCy's English tokenizer.
        end_marks: The sentencizer's end marks.
    """
    asked = _Asked(tokenizer)
    classes = np.zeros(N_CLASSIFIED, dtype=np.uint16)
    for point in range(N_CLASSIFIED):
        c = chr(point)
        if not c.isspace():
            classes[point] = _of_text(c, end_marks) | _of_tokenizer(c, asked)
    return classes


def _of_text(c: str, end_marks: frozenset[str]) -> int:
    found = ALPHABETIC if c.isalpha() else 0
    found |= SYMBOL if c in SYMBOLS else 0
    found |= PUNCTUATION_MARK if unicodedata.category(c).startswith("P") else 0
    return found | (END_MARK if c in end_marks else 0)


class _Asked:
    """Lengths of prefixes and suffixes as the tokenizer's expressions find them."""

    def __init__(self, tokenizer: Any) -> None:
        self._prefix = tokenizer.prefix_search
        self._suffix = tokenizer.suffix_search
        self._infixes = tokenizer.infix_finditer

    def prefix(self, text: str) -> int:
        match = self._prefix(text)
        return match.end() - match.start() if match else 0

    def suffix(self, text: str) -> int:
        match = self._suffix(text)
        return match.end() - match.start() if match else 0

    def n_infixes(self, text: str) -> int:
        return sum(1 for _ in self._infixes(text))


# Without "$", which is UNSURE itself: only beside it can letters (A$, US$) be a prefix.
_NEIGHBOURS = "xXzS1\u00e9\u00c9.,:;!?'\"()[]{}<>_#*&-+=/%\u00b0\u2018\u2019\u201c\u201d\u2013\u2014\u2026"


def _of_tokenizer(c: str, asked: _Asked) -> int:
    """Returns the classes that depend on the tokenizer's expressions, tried beside many neighbours."""
    if c in "0123456789":
        return DIGIT | BEFORE_STOP
    as_prefix = {asked.prefix(c + d) for d in _NEIGHBOURS} | {asked.prefix(c)}
    as_suffix = {asked.suffix(d + c) for d in _NEIGHBOURS if d not in "1'\u2019"} | {asked.suffix(c)}
    if c.isalpha():
        return _of_letter(c, asked) if as_prefix == as_suffix == {0} else UNSURE
    as_suffix |= {asked.suffix(d + c) for d in _NEIGHBOURS}
    if len(as_prefix) > 1 or len(as_suffix) > 1 or max(as_prefix | as_suffix) > 1:
        return UNSURE
    found = PREFIX if as_prefix == {1} else 0
    found |= SUFFIX if as_suffix == {1} else 0
    found |= BEFORE_STOP if asked.suffix(f"x{c}.") == 1 else 0
    found |= JOINER if c in JOINERS else 0
    return found | (APOSTROPHE if c in APOSTROPHES else 0)


def _of_letter(c: str, asked: _Asked) -> int:
    if any(asked.n_infixes(f"{c}{joiner}{c}") != 1 for joiner in JOINERS):
        return UNSURE
    if asked.suffix(f"x{c}.") == 1:
        return LETTER | BEFORE_STOP
    return LETTER | (CAPITAL if asked.suffix(f"{c}{c}.") == 1 else 0)
