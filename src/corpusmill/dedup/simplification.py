"""The simplified form of a text, in which near duplicates are compared: datatrove's ``simplify_text``.

Lower case, numbers to ``0``, punctuation to spaces, canonical decomposition without nonspacing marks. All steps stay
inside a white-space-separated chunk, so that a text may be simplified piece by piece.

Source: datatrove 0.10.1, ``datatrove.utils.text.simplify_text`` with its default `TextNormConfig`. Lower case, marks
and decomposition are those of the running Python's Unicode version, as they are there.
"""

import re
import unicodedata

from corpusmill.rules.punctuation import PUNCTUATION

DECIMAL_SEPARATORS = ".,\u060c\u066b\u2396\u2397\u2398"
"""One of these between digits belongs to the number."""

NEWER_DIGITS = (
    (0x10D40, 0x10D49),
    (0x116D0, 0x116E3),
    (0x11BF0, 0x11BF9),
    (0x11DE0, 0x11DE9),
    (0x11F50, 0x11F59),
    (0x16130, 0x16139),
    (0x16D70, 0x16D79),
    (0x1CCF0, 0x1CCF9),
    (0x1E4F0, 0x1E4F9),
    (0x1E5F1, 0x1E5FA),
)
"""Decimal digits of Unicode 15 to 17, which datatrove's regular expressions know before Python does."""

_DIGIT = r"[\d" + "".join(f"{chr(first)}-{chr(last)}" for first, last in NEWER_DIGITS) + "]"
_IS_DIGIT = re.compile(_DIGIT)
_NUMBER = re.compile(f"{_DIGIT}+(?:[{DECIMAL_SEPARATORS}]{_DIGIT}+)?")
_TO_SPACES = str.maketrans(dict.fromkeys(PUNCTUATION, " "))


def is_digit(character: str) -> bool:
    """Returns whether a character is a decimal digit of any script."""
    return _IS_DIGIT.match(character) is not None


def without_marks(text: str) -> str:
    """Returns the canonical decomposition without nonspacing marks."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def simplify(text: str) -> str:
    """Returns the simplified text, its words separated by single spaces.

    Differs: datatrove leaves two spaces where a word vanishes because it has marks only; its tokenizer drops them.
    """
    text = _NUMBER.sub("0", text.lower()).translate(_TO_SPACES)
    return " ".join(without_marks(text).split())
