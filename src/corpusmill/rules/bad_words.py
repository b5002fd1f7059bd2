"""C4's list of words that remove a document.

Source: Raffel et al. 2020, section 2.2, with the LDNOOBW lists, as in datatrove 0.10.1's C4BadWordsFilter with
``keep_fraction=0``. The lists are not bundled; the settings name one file a language.
"""

import re
from collections.abc import Iterable, Mapping

from corpusmill.rules.config import ListFile
from corpusmill.rules.lists import read_lines

ALLOWED = frozenset({"sm", "\u30b0\u30ed", "\u5973\u306e\u5b50", "\u6027"})
"""Entries taken out of every list: common parts of Japanese and Chinese words. Source: mC4, c4_utils.py."""
WITHOUT_SPACES = frozenset({"ja", "th", "zh"})
"""Languages whose entries match anywhere; in all others they need a non-word character on both sides."""


def compile_words(words: Iterable[str], language: str) -> re.Pattern[str] | None:
    """Returns the pattern that finds a list's entries in lower-case text, None for an empty list."""
    entries = sorted({word.strip() for word in words} - ALLOWED - {""}, key=lambda word: (-len(word), word))
    if not entries:
        return None
    anything = "|".join(map(re.escape, entries))
    return re.compile(anything if language in WITHOUT_SPACES else rf"(?:\W|^)({anything})(?:\W|$)")


def load_bad_words(files: Mapping[str, ListFile]) -> dict[str, re.Pattern[str]]:
    """Returns a pattern a language.

    Raises:
        ConfigError: A file is absent or has another digest.
    """
    patterns = {code: compile_words(read_lines(file, f"bad_words.{code}"), code) for code, file in files.items()}
    return {code: pattern for code, pattern in patterns.items() if pattern is not None}


def measure(text: str, pattern: re.Pattern[str] | None) -> dict[str, float | None]:
    """Returns how many list entries the text holds (not overlapping), null without a list for its language."""
    n = None if pattern is None else float(sum(1 for _ in pattern.finditer(text.lower())))
    return {"c4_n_bad_words": n}
