"""FineWeb's own quality measures: end marks of lines, short lines, duplicate lines, lists.

Source: Penedo et al. 2024 (arXiv 2406.17557), section 3.6, as in datatrove 0.10.1. Lines are those between newlines
that are not blank; they are not stripped.
"""

from corpusmill.rules.gopher_repetition import duplicates
from corpusmill.rules.punctuation import END_MARKS

SHORT_LINE_CHARS = 30
"""A line of at most this many code points is short."""

Measures = dict[str, float | None]


def line_measures(text: str) -> Measures:
    """Returns the measures on lines; all but the number of lines are null where there is none.

    ``line_punct_ratio`` is the share of lines that end in a terminal mark of any script (a trailing space or
    carriage return hides it), ``short_line_ratio`` the share of at most 30 characters, ``char_dup_ratio`` the
    characters of lines that stood before already as a share of the text without newlines.
    """
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    n = len(lines)
    if not n:
        names = ("line_punct_ratio", "short_line_ratio", "char_dup_ratio")
        return {"fineweb_n_lines": 0.0} | {f"fineweb_{name}": None for name in names}
    return {
        "fineweb_n_lines": float(n),
        "fineweb_line_punct_ratio": sum(1 for line in lines if line.endswith(END_MARKS)) / n,
        "fineweb_short_line_ratio": sum(1 for line in lines if len(line) <= SHORT_LINE_CHARS) / n,
        "fineweb_char_dup_ratio": duplicates(lines)[1] / (len(text) - text.count("\n")),
    }


def word_measures(text: str, n_words: int) -> Measures:
    """Returns newlines per word, null for a text without words; English."""
    return {"fineweb_list_ratio": text.count("\n") / n_words if n_words else None}
