"""Ids of texts by SentencePiece, word by word from a table: the same ids, about three times as fast.

A word of a page has mostly been seen before. Where no piece of the vocabulary reaches across the beginning of a word,
the ids of a text are those of its words one after another, and each word is encoded once. What a word is depends on
the vocabulary: it begins at a run of spaces, and, where the pieces allow, at a line feed and at every digit (Llama's
do). Both the pieces and some hard texts are checked when a vocabulary is loaded; one that fails is encoded directly,
and so is a unigram model, in which two ways to cut a word may tie and float rounding of the text in front decides.

Cost: about 30 MB for two full tables.
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain, islice

SPACE_MARK = "\u2581"
"""How SentencePiece writes a space inside a piece; on a page it reads as one too."""
MAX_WORDS, MAX_LENGTH = 60_000, 32
"""Words in each of two tables, and characters of a word that enters one."""
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


EncodeMany = Callable[[list[str]], list[list[int]]]


class WordIds:
    """Encodes texts through a table of words.

    Args:
        encode_many: Ids of each of many texts by SentencePiece, with their space in front and without BOS and EOS.
        breaks: Characters besides the space at which a word begins.
        line_feed: Id that stands for a line feed and nothing else; None where there is none.
    """

    def __init__(self, encode_many: EncodeMany, breaks: str, line_feed: int | None) -> None:
        within = f"[^ {breaks}]*"
        self.words = re.compile(f" +{within}|[{breaks}]{within}" if breaks else f" +{within}")
        self.encode_many = encode_many
        self.table = WordTable(encode_many)
        self.line_feed = line_feed

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        if not text or SPACE_MARK in text:  # the mark would be part of a run of spaces
            return self.encode_many([text])[0]
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
        return self.table.ids(self.words.findall(text))


class WordTable:
    """Ids of words, filled when they are first looked up.

    The words of a text that are new are encoded in one call: word by word, SentencePiece's Python side takes five times
    as long. A full table becomes the older one, from which words that come again are taken over, so that common words
    are never forgotten.

    Attributes:
        recent: Ids of the words looked up last; tuples, which the garbage collector need not visit.
        older: Those of the table before.
    """

    def __init__(self, encode_many: EncodeMany) -> None:
        self.encode_many = encode_many
        self.n_front = len(encode_many(["\n"])[0]) - 1  # the space that SentencePiece puts in front of any text but ""
        self.space = {" ": tuple(encode_many(["\n"])[0][: self.n_front])}
        self.recent: dict[str, tuple[int, ...]] = dict(self.space)
        self.older: dict[str, tuple[int, ...]] = {}

    def ids(self, words: list[str]) -> list[int]:
        """Returns the ids of words one behind the other."""
        found = list(map(self.recent.get, words))
        missing = [place for place, ids in enumerate(found) if ids is None]
        if missing:
            long = self._fill({words[place] for place in missing})
            for place in missing:
                found[place] = self.recent[words[place]]
            self._shrink(long)
        return list(chain.from_iterable(found))  # type: ignore[arg-type]  # none is None now

    def _fill(self, words: set[str]) -> list[str]:
        """Enters words; returns the long ones, which seldom come again."""
        unknown = []  # by hand: a set less the keys of a dictionary would walk over all of the dictionary
        for word in words:
            known = self.older.get(word)
            if known is None:
                unknown.append(word)
            else:
                self.recent[word] = known
        spaced = [word for word in unknown if word[0] == " "]
        others = [word for word in unknown if word[0] != " "]
        self.recent.update(zip(spaced, map(tuple, self.encode_many([word[1:] for word in spaced])), strict=True))
        behind_line = slice(self.n_front + 1, None)
        for word, ids in zip(others, self.encode_many(["\n" + word for word in others]), strict=True):
            self.recent[word] = tuple(ids[behind_line])
        return [word for word in unknown if len(word) > MAX_LENGTH]

    def _shrink(self, long: list[str]) -> None:
        """Forgets long words, and puts a full table aside."""
        for word in long:
            del self.recent[word]
        if len(self.recent) > MAX_WORDS:
            self.older, self.recent = dict(islice(self.recent.items(), MAX_WORDS)), dict(self.space)


def word_ids(encode_many: EncodeMany, pieces: Iterable[str]) -> WordIds | None:
    """Returns the encoder for a vocabulary, None where its ids cannot be put together from those of words.

    Args:
        encode_many: Ids of each of many texts by SentencePiece.
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
    words = WordIds(encode_many, breaks, line_feed if "\n" in breaks else None)
    lines = [line for text in _TRIALS for line in text.split("\n") if line]
    same = [words.encode(text) for text in _TRIALS] == encode_many(list(_TRIALS))
    return words if same and words.encode_batch(lines) == encode_many(lines) else None
