"""Ids of texts by SentencePiece, word by word from a table: the same ids, four to five times as fast.

A word of a page has mostly been seen before. Where no piece of the vocabulary reaches across the beginning of a word,
the ids of a text are those of its words one after another, and each word is encoded once. What a word is depends on
the vocabulary: it begins at a run of spaces, and, where the pieces allow, at a line feed and at every digit (Llama's
do). Both the pieces and some hard texts are checked when a vocabulary is loaded; one that fails is encoded directly, and
so is a unigram model, in which two ways to cut a word may tie and float rounding of the text in front decides.

Cost: about 25 MB for a full table.
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain

SPACE_MARK = "\u2581"
"""How SentencePiece writes a space inside a piece; on a page it reads as one too."""
MAX_WORDS, MAX_LENGTH = 100_000, 32
"""Words in the table, which is emptied when full, and characters of a word that enters it."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_TRIALS = (
    "",
    " ",
    "a",
    "  a   b ",
    "one\ttab \t and\r\nbreaks\n\n  \n x\n",
    "[007]Home | a  b 12,345 3.5e7 0x1F",
    "a\u00a0 b \u00a0c\u3000 d\u2028 e\u200b f",
    "\ufb01ne caf\u00e9 e\u0301 \uff21\uff11 \u00bd \u4f60\u597d\uff0c\u4e16\u754c \u0661\u0662",
    "</s> <s>[INST] <unk> <0x0A> ... ---- ====",
    "\x00\x01 \x7f\U0001f600 \ufffd",
)


class WordIds:
    """Encodes texts through a table of words.

    Args:
        encode: Ids of one text by SentencePiece, with its space in front and without BOS and EOS.
        breaks: Characters besides the space at which a word begins.
        line_feed: Id that stands for a line feed and nothing else; None where there is none.
    """

    def __init__(self, encode: Callable[[str], list[int]], breaks: str, line_feed: int | None) -> None:
        within = f"[^ {breaks}]*"
        self.words = re.compile(f" +{within}|[{breaks}]{within}" if breaks else f" +{within}")
        self.direct = encode
        self.table = _Table(encode)
        self.line_feed = line_feed

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        if not text or SPACE_MARK in text:  # the mark would be part of a run of spaces
            return self.direct(text)
        return self._by_words(" " + text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of each text; texts of one line each are looked up all in one go."""
        joined = "\n ".join(texts)
        if self.line_feed is None or joined.count("\n") >= len(texts) or SPACE_MARK in joined or not all(texts):
            return [self.encode(text) for text in texts]
        ids = self._by_words(" " + joined)
        lines, start = [], 0
        for _ in texts[1:]:
            end = ids.index(self.line_feed, start)
            lines.append(ids[start:end])
            start = end + 1
        return [*lines, ids[start:]]

    def _by_words(self, text: str) -> list[int]:
        """Returns the ids of a text behind the space that SentencePiece puts in front."""
        return list(chain.from_iterable(map(self.table.__getitem__, self.words.findall(text))))


class _Table(dict[str, tuple[int, ...]]):
    """Ids of words, filled when they are first looked up; tuples, which the garbage collector need not visit."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        super().__init__()
        self.encode = encode
        self.n_front = len(encode("\n")) - 1  # the space that SentencePiece puts in front; an empty text lacks it

    def __missing__(self, word: str) -> tuple[int, ...]:
        if word == " ":
            ids = self.encode("\n")[: self.n_front]
        elif word[0] == " ":
            ids = self.encode(word[1:])
        elif word[0] == "\n":
            ids = self.encode(word)[self.n_front :]
        else:
            ids = self.encode("\n" + word)[self.n_front + 1 :]
        found = tuple(ids)
        if len(word) <= MAX_LENGTH:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = found
        return found


def word_ids(encode: Callable[[str], list[int]], pieces: Iterable[str]) -> WordIds | None:
    """Returns the encoder for a vocabulary, None where its ids cannot be put together from those of words.

    Args:
        encode: Ids of one text by SentencePiece.
        pieces: All pieces of the vocabulary, spaces as `SPACE_MARK`.
    """
    known = list(pieces)
    behind_first: set[str] = set()
    for piece in known:
        if not _BYTE.fullmatch(piece):
            behind_first.update(piece.lstrip(SPACE_MARK)[piece[:1] != SPACE_MARK :])
    if SPACE_MARK in behind_first:
        return None
    line_feed = next((known.index(piece) for piece in ("<0x0A>", "\n") if piece in known), None)
    breaks = "".join(c for c in "\n0123456789" if c not in behind_first and line_feed is not None)
    words = WordIds(encode, breaks, line_feed if "\n" in breaks else None)
    lines = [line for text in _TRIALS for line in text.split("\n") if line]
    same = [words.encode(text) for text in _TRIALS] == [encode(text) for text in _TRIALS]
    return words if same and words.encode_batch(lines) == [encode(line) for line in lines] else None
