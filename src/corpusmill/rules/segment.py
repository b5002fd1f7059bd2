"""Words, sentences and lines of a text, from one tokenisation that all rules share.

English words are those of spaCy's rule-based English tokenizer (``spacy.blank("en")``), sentences those of its
sentencizer: what datatrove, and so FineWeb, counts. spaCy works on whitespace-separated chunks one by one, so each
distinct chunk is tokenised once and remembered with everything that the rules ask of it. The memory is bounded and
never changes a result.

Limits: spaCy's special cases may match across whitespace; no text is known where that changes a token.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from corpusmill.batches import replace_surrogates
from corpusmill.rules.english_tokens import EnglishTokenizer, Token
from corpusmill.rules.punctuation import SYMBOLS

MEMO_CHUNKS = 400_000
"""Distinct chunks remembered per process; about 250 MB when full."""
MEMO_CHUNK_CHARS = 40
"""Longer chunks are rarely met twice and are not remembered."""
ODD_NAME = "IS_ALPHA"
"""A token that spaCy refuses inside a memory zone; the reference then drops it from the text, and so do we."""

_PIECES = re.compile(r"\S+|\s+")


class Chunk(NamedTuple):
    """What the rules ask of one whitespace-separated chunk.

    Attributes:
        words: Its tokens.
        n_named: Tokens with at least one character outside `SYMBOLS` (Gopher's words).
        n_named_chars: Code points of those tokens.
        n_alpha: Tokens with an alphabetic character.
        starts: Sentences that begin inside it, if no / if an end mark came before.
        open_mark: Whether an end mark waits for the next token after it, if no / if one came before.
    """

    words: tuple[str, ...]
    n_named: int
    n_named_chars: int
    n_alpha: int
    starts: tuple[int, int]
    open_mark: tuple[bool, bool]


class Words(NamedTuple):
    """The words of a text with their sums.

    Attributes:
        words: Tokens in order, case kept, punctuation tokens included, whitespace tokens not.
        n_named: Words with at least one character outside `SYMBOLS`.
        n_named_chars: Code points of those words.
        n_alpha: Words with an alphabetic character.
    """

    words: list[str]
    n_named: int
    n_named_chars: int
    n_alpha: int


class Segmenter:
    """English words and sentence counts. One per process; the only state is a memory of pure results."""

    def __init__(self) -> None:
        self._memo: dict[str, Chunk] = {}
        self._tokenizer = EnglishTokenizer()

    def words(self, text: str) -> Words:
        """Returns the words of a text."""
        text = self._without_odd_name(_storable(text))
        return _join(map(self._chunk, text.split()))

    def n_words(self, text: str) -> int:
        """Returns the number of words of a text."""
        text = self._without_odd_name(_storable(text))
        return sum(len(self._chunk(c).words) for c in text.split())

    def n_sentences(self, text: str) -> int:
        """Returns the number of sentences; 1 for a text without tokens, as the reference counts."""
        text = self._without_odd_name(_storable(text))
        chunks = text.split()
        if " ".join(chunks) == text:
            return self._count_sentences(chunks)
        return self._count_sentences(_PIECES.findall(text))

    def _count_sentences(self, pieces: Sequence[str]) -> int:
        """Returns 1 + the tokens that begin a new sentence; a whitespace piece other than one space is a token."""
        n, mark = 1, False
        for piece in pieces:
            if not piece.isspace():
                chunk = self._chunk(piece)
                n += chunk.starts[mark]
                mark = chunk.open_mark[mark]
            elif piece != " ":
                n += mark
                mark = False
        return n

    def _without_odd_name(self, text: str) -> str:
        if ODD_NAME in text and any(ODD_NAME in self._chunk(c).words for c in text.split() if ODD_NAME in c):
            return text.replace(ODD_NAME, "")
        return text

    def _chunk(self, text: str) -> Chunk:
        found = self._memo.get(text)
        if found is None:
            found = measure_chunk(self._tokenizer.tokens(text), self._tokenizer.end_marks)
            if len(text) <= MEMO_CHUNK_CHARS:
                if len(self._memo) >= MEMO_CHUNKS:
                    for old in list(self._memo)[: MEMO_CHUNKS // 2]:
                        del self._memo[old]
                self._memo[text] = found
        return found


def measure_chunk(tokens: Sequence[Token], end_marks: Collection[str]) -> Chunk:
    """Returns the sums over a chunk's tokens; sentence marks follow spaCy's sentencizer."""
    words = [word for word, _ in tokens]
    named = [w for w in words if not SYMBOLS.issuperset(w)]
    starts, open_mark = zip(*(_follow(tokens, mark, end_marks) for mark in (False, True)), strict=True)
    return Chunk(
        tuple(words),
        len(named),
        sum(map(len, named)),
        sum(1 for w in words if w.isalpha() or any(map(str.isalpha, w))),
        starts,
        open_mark,
    )


def _follow(tokens: Iterable[Token], mark: bool, end_marks: Collection[str]) -> tuple[int, bool]:
    """Returns how many sentences begin in the tokens and whether an end mark is open after them."""
    n = 0
    for text, is_punct in tokens:
        if text in end_marks:
            mark = True
        elif mark and not is_punct:
            n += 1
            mark = False
    return n, mark


def _storable(text: str) -> str:
    """Returns the text without lone surrogates, which spaCy cannot store."""
    return replace_surrogates(text)[0]


def _join(chunks: Iterable[Chunk]) -> Words:
    words: list[str] = []
    n_named = n_named_chars = n_alpha = 0
    for chunk in chunks:
        words += chunk.words
        n_named += chunk.n_named
        n_named_chars += chunk.n_named_chars
        n_alpha += chunk.n_alpha
    return Words(words, n_named, n_named_chars, n_alpha)
