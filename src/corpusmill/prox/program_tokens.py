"""The tokens that the program writer speaks, their grammar, and the exact ProX text they stand for.

A token is a `Word` (negative) or the row of a line in the window (0 and up): numbers have no vocabulary of their own,
they point at lines. The language of whole programs is::

    program := KEEP END | { OPEN row MIDDLE row CLOSE } END      at least one range, rows ascending,
                                                                 at least one line between two ranges

So every set of removed lines has exactly one program, and that is the one a writer is trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

LAST_NUMBER = 999_999
"""Highest line number that the strict grammar can name."""


class Word(IntEnum):
    """Tokens that are no line."""

    BEGIN = -1
    """Before the first token; never written."""
    OPEN = -2
    MIDDLE = -3
    CLOSE = -4
    KEEP = -5
    END = -6


class Group(IntEnum):
    """Kinds of next tokens: what a writer says first; which word or line it is follows from a scan over the lines."""

    DECIDE = 0
    """OPEN where a further range follows, otherwise a stop word: KEEP or END."""
    MIDDLE = 1
    CLOSE = 2
    ROW = 3


_TEXTS = {
    Word.OPEN: "remove_lines(start=",
    Word.MIDDLE: ", end=",
    Word.CLOSE: ")",
    Word.KEEP: "keep_chunk()",
}
RANGE_TOKENS = 5
"""Tokens of one call: OPEN, row, MIDDLE, row, CLOSE."""


_NEXT = {
    Word.BEGIN: Group.DECIDE,
    Word.OPEN: Group.ROW,
    Word.MIDDLE: Group.ROW,
    Word.CLOSE: Group.DECIDE,
    Word.KEEP: Group.DECIDE,
    Word.END: Group.DECIDE,
}


@dataclass(frozen=True)
class Scan:
    """Where the next row of a program is looked for.

    Attributes:
        ends_range: True where the row ends a range, False where it starts one.
        first: First row that can be it; equal to the number of rows where none is left.
    """

    ends_range: bool
    first: int


def next_group(tokens: Sequence[int]) -> Group:
    """Returns the kind of token that the grammar wants after a beginning of a program."""
    last = tokens[-1] if tokens else int(Word.BEGIN)
    if last < 0:
        return _NEXT[Word(last)]
    return Group.CLOSE if len(tokens) > 1 and tokens[-2] == Word.MIDDLE else Group.MIDDLE


def next_scan(tokens: Sequence[int]) -> Scan:
    """Returns where the row after these tokens (or the range after them) is looked for; defined for any tokens.

    The end of a range is at or after its start; the next range leaves at least one line between.
    """
    ends_range = next((token == Word.MIDDLE for token in reversed(tokens) if token < 0), False)
    last = next((token for token in reversed(tokens) if token >= 0), None)
    if last is None:
        return Scan(ends_range, 0)
    return Scan(ends_range, last if ends_range else last + 2)


def program_tokens(removed: Sequence[bool]) -> list[int]:
    """Returns the program that removes the marked rows, with its END."""
    marks = [False, *removed, False]
    tokens: list[int] = []
    for row, (before, now) in enumerate(pairwise(marks)):
        if now and not before:
            tokens += [Word.OPEN, row]
        elif before and not now:
            tokens += [Word.MIDDLE, row - 1, Word.CLOSE]
    return [*(tokens or [Word.KEEP]), Word.END]


def is_program(tokens: Sequence[int], n_rows: int) -> bool:
    """Returns whether tokens are a whole program of the language over ``n_rows`` rows."""
    if list(tokens) == [Word.KEEP, Word.END]:
        return True
    calls, rest = divmod(len(tokens), RANGE_TOKENS)
    if rest != 1 or not calls or tokens[-1] != Word.END:
        return False
    first = 0
    for i in range(0, calls * RANGE_TOKENS, RANGE_TOKENS):
        opened, start, middle, end, closed = tokens[i : i + RANGE_TOKENS]
        if (opened, middle, closed) != (Word.OPEN, Word.MIDDLE, Word.CLOSE) or not first <= start <= end < n_rows:
            return False
        first = end + 2
    return True


def program_text(tokens: Sequence[int], numbers: Sequence[tuple[int, int]]) -> str:
    """Returns the text of any tokens: one call a line, END and BEGIN unwritten.

    Args:
        tokens: Tokens of one window.
        numbers: For each row, the line number that it has where it starts a range, and where it ends one.
    """
    parts: list[str] = []
    ends_range = False
    for token in tokens:
        if token >= 0:
            parts.append(str(numbers[token][ends_range]))
            continue
        ends_range = token == Word.MIDDLE
        if token in (Word.OPEN, Word.KEEP) and parts:
            parts.append("\n")
        parts.append(_TEXTS.get(Word(token), ""))
    return "".join(parts)


def row_numbers(n_lines: int, filled: Sequence[int], first_line: int) -> list[tuple[int, int]]:
    """Returns, for each line with text, its number where it starts a range and where it ends one.

    Blank lines go with the line with text before them, those at the head of the window with the first one, so a range
    that ends at a row ends behind its blank lines.

    Args:
        n_lines: Lines of the window, blank ones included.
        filled: Indices of the lines with text, ascending.
        first_line: Number of the window's first line in the document, 0-based.
    """
    starts = [0, *filled[1:]] if filled else []
    ends = [*(row - 1 for row in filled[1:]), n_lines - 1]
    return [
        (first_line + a, min(first_line + b, LAST_NUMBER)) for a, b in zip(starts, ends[: len(starts)], strict=True)
    ]
