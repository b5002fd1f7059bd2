"""Tokens of one whitespace chunk by spaCy's rule-based English tokenizer (``spacy.blank("en")``).

Differs: spaCy needs quadratic time for long runs of punctuation without whitespace (16,000 characters: 45 s). A chunk
beyond `SLOW_CHUNK` is cut into runs of word characters and single other characters instead.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RELOAD_AFTER = 500_000
"""Chunks tokenised before spaCy's tokenizer is made anew, which bounds its string table."""
SLOW_CHUNK = 1_000_000
"""Bound on characters times non-alphanumeric characters of a chunk that spaCy gets; about 0.2 s at the bound."""

_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]|\s+")

Token = tuple[str, bool]
"""Text of a token, and whether it is punctuation for the sentencizer."""


class EnglishTokenizer:
    """spaCy's English tokenizer, made anew from time to time because its string table only ever grows.

    Attributes:
        tokenizer: spaCy's own object.
        end_marks: Tokens that end a sentence.
    """

    def __init__(self) -> None:
        self._n_tokenised = 0
        self._load()

    def _load(self) -> None:
        with _without_torch():
            import spacy

            nlp = spacy.blank("en")
            self.end_marks: frozenset[str] = frozenset(nlp.add_pipe("sentencizer").punct_chars)
        self.tokenizer: Any = nlp.tokenizer

    def tokens(self, chunk: str) -> list[Token]:
        """Returns the tokens of a chunk without white space or lone surrogates."""
        self._n_tokenised += 1
        if self._n_tokenised % RELOAD_AFTER == 0:
            self._load()
        if len(chunk) > 200 and _slow(chunk):
            return [(w, not w[0].isalnum() and w != "_") for w in _WORD_OR_MARK.findall(chunk)]
        return [(t.text, t.is_punct) for t in self.tokenizer(chunk)]


def _slow(chunk: str) -> bool:
    return len(chunk) * (len(chunk) - sum(map(str.isalnum, chunk))) > SLOW_CHUNK


@contextmanager
def _without_torch() -> Iterator[None]:
    """Keeps spaCy's import from loading torch, which its models would need and its tokenizer does not.

    thinc, under spaCy, imports torch wherever it is installed: seconds and hundreds of MB in every worker. None in
    ``sys.modules`` is Python's way to say that a module is not there.
    """
    absent = [name for name in ("torch", "cupy", "tensorflow", "mxnet") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
