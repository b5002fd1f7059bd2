"""C4's line rules, which rewrite the text, and the measures that decide on the document.

Source: Raffel et al. 2020 (JMLR 21/140), section 2.2, and tensorflow_datasets ``c4_utils.py``, in the reading of
datatrove 0.10.1 (FineWeb): sentences by spaCy's sentencizer, not NLTK punkt.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

END_PUNCTUATION = (".", "?", "!", '"', "'")
"""A kept line ends in one of these, but not in three dots."""
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
"""Wikipedia's citation marks; ``\\d`` is any script's digit."""
POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
"""A line that holds one of these, in any case, is removed."""

Measures = dict[str, float | None]


@dataclass(frozen=True)
class LineRules:
    """Which lines C4 removes and what it removes from lines.

    Attributes:
        max_word_length: Remove a line with a longer whitespace-separated word, in code points; None: off.
        remove_citations: Remove citation marks from lines.
        need_end_punctuation: Remove a line that does not end in `END_PUNCTUATION`.
        min_words: Remove a line with fewer whitespace-separated words; None: off.
        remove_javascript: Remove a line with "javascript" in any case.
        remove_policy: Remove a line with one of `POLICY_PHRASES`.
    """

    max_word_length: float | None = 1000
    remove_citations: bool = True
    need_end_punctuation: bool = True
    min_words: float | None = 3
    remove_javascript: bool = True
    remove_policy: bool = True


@dataclass(frozen=True)
class RewrittenText:
    """What C4 makes of a text.

    Attributes:
        text: Kept lines joined by newlines, stripped; what later rules see if the document is kept.
        measures: The ``c4_*`` measures.
    """

    text: str
    measures: Measures


def rewrite(text: str, rules: LineRules, n_sentences: Callable[[str], int]) -> RewrittenText:
    """Returns the text after the line rules, with its measures.

    Lines are those of `str.splitlines`. ``c4_lorem_ipsum_line`` and ``c4_curly_bracket_line`` are the numbers
    (from 1) of the first line with "lorem ipsum" or "{" that the line rules before that test let through, 0 for none:
    the reference drops a document for the one that comes first.

    Args:
        text: The text.
        rules: The line rules.
        n_sentences: Counts the sentences of a line; at least 1.
    """
    lines = text.splitlines()
    kept: list[str] = []
    n_sentences_kept = lorem_line = curly_line = 0
    for number, raw in enumerate(lines, 1):
        line = _clean_line(raw, rules)
        if line is None:
            continue
        lower = line.lower()
        if not lorem_line and "lorem ipsum" in lower:
            lorem_line = number
        if rules.remove_javascript and "javascript" in lower:
            continue
        if not curly_line and "{" in line:
            curly_line = number
        if rules.remove_policy and any(phrase in lower for phrase in POLICY_PHRASES):
            continue
        n_sentences_kept += n_sentences(line)
        kept.append(line)
    return RewrittenText(
        "\n".join(kept).strip(),
        {
            "c4_n_lines": float(len(lines)),
            "c4_n_lines_removed": float(len(lines) - len(kept)),
            "c4_n_sentences": float(n_sentences_kept),
            "c4_lorem_ipsum_line": float(lorem_line),
            "c4_curly_bracket_line": float(curly_line),
        },
    )


def _clean_line(raw: str, rules: LineRules) -> str | None:
    """Returns the stripped line without citation marks, or None where length, ending or word count remove it.

    The order matters: words are counted before citation marks go, and the line is not stripped again, so that
    "Foo. [1]" becomes "Foo. " and fails the punctuation test.
    """
    line = raw.strip()
    words = line.split()
    if rules.max_word_length is not None and any(len(word) > rules.max_word_length for word in words):
        return None
    if rules.remove_citations:
        line = CITATION.sub("", line)
    if rules.need_end_punctuation and (not line.endswith(END_PUNCTUATION) or line.endswith("...")):
        return None
    if rules.min_words is not None and len(words) < rules.min_words:
        return None
    return line
