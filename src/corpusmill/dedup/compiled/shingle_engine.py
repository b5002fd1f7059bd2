"""Shingles of batches of texts by kernels: what the definition gives, value by value.

Bytes are simplified in one pass by a table of characters. A chunk of plain letters that is no special case of the
tokenizer is one word; the rules' scan finds the words of the others, through a chunk lexicon that is bounded and
decides most unknown chunks without spaCy. The words' runs are hashed where they lie. Texts with a
character whose simplified form depends on its neighbours are simplified by the definition.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from corpusmill.dedup.compiled.shingle_kernels import count_words, hash_runs, join_words, set_odd_apart, simplify_texts
from corpusmill.dedup.compiled.simplify_table import MOST_GROWTH, make_table
from corpusmill.dedup.shingles import ShingledTexts, WordSplitter, english_words
from corpusmill.dedup.simplification import simplify
from corpusmill.rules.compiled.byte_hashing import Bytes
from corpusmill.rules.compiled.character_classes import LETTER
from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
from corpusmill.rules.compiled.document_scan import NEEDED, scan
from corpusmill.rules.compiled.lexicon_arrays import MOST_SPLIT_BYTES
from corpusmill.rules.compiled.string_buffers import Longs, Strings, string_buffers, text_groups
from corpusmill.rules.english_tokens import EnglishTokenizer

MAX_TEXT_BYTES = 1 << 28
"""Longer texts go to the definition."""

Ints = npt.NDArray[np.int32]


class CompiledShingler:
    """Shingles by kernels; one per process.

    Args:
        ngram: Words of a shingle.
        words: Splits simplified texts into words; None: English.
        lexicon: English chunks to start from; None: none. The shipped ones stand in texts as written, with capitals
            and punctuation, and save nothing here.
    """

    def __init__(self, ngram: int = 5, words: WordSplitter | None = None, lexicon: ChunkLexicon | None = None) -> None:
        self._ngram = ngram
        self._table = make_table()
        self._words = words
        self._lexicon = lexicon
        if words is None and lexicon is None:
            self._lexicon = ChunkLexicon(EnglishTokenizer())
        if self._lexicon is not None:
            assert (self._lexicon.arrays.classes[ord("a") : ord("z") + 1] & LETTER).all(), "plain letters are words"

    def groups(self, texts: Strings) -> Iterator[ShingledTexts]:
        """Yields the shingles of consecutive groups of texts.

        Raises:
            DataError: The texts are not valid UTF-8.
        """
        data, offsets = string_buffers(texts.fill_null("") if texts.null_count else texts)
        for first, stop in text_groups(offsets):
            begin, end = int(offsets[first]), int(offsets[stop])
            found, n_words, ends = self._words_of(data[begin:end], offsets[first : stop + 1] - begin)
            hashes = np.empty(int(np.maximum(n_words - self._ngram + 1, 0).sum()), dtype=np.uint64)
            stops = np.empty(len(n_words), dtype=np.int64)
            hash_runs(found, ends, n_words, self._ngram, hashes, stops)
            yield ShingledTexts(first, hashes, stops)

    def _words_of(self, data: Bytes, bounds: Longs) -> tuple[Bytes, Longs, Longs]:
        """Returns the words of texts, one more byte behind each; words of each text; where each word ends."""
        if len(data) > MAX_TEXT_BYTES:
            return _join([simplify(data.tobytes().decode())], self._words or english_words())
        simple, starts, stops = self._simplify(data, bounds)
        if self._lexicon is None:
            assert self._words is not None
            texts = [simple[a:b].tobytes().decode() for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
            return _join(texts, self._words)
        return self._english_words(self._lexicon, simple, starts, stops)

    def _simplify(self, data: Bytes, bounds: Longs) -> tuple[Bytes, Longs, Longs]:
        """Returns the bytes of the simplified texts, and where each one begins and ends in them."""
        out = np.empty(MOST_GROWTH * len(data), dtype=np.uint8)
        starts, stops = np.empty(len(bounds) - 1, dtype=np.int64), np.empty(len(bounds) - 1, dtype=np.int64)
        at = simplify_texts(data, bounds, self._table, out, starts, stops)
        unsure = np.flatnonzero(stops < 0).tolist()
        if not unsure:
            return out[:at], starts, stops
        pieces = [out[:at]]
        for k in unsure:
            text = simplify(data[bounds[k] : bounds[k + 1]].tobytes().decode()).encode()
            pieces.append(np.frombuffer(text, dtype=np.uint8))
            starts[k], at = at, at + len(text)
            stops[k] = at
        return np.concatenate(pieces), starts, stops

    def _english_words(
        self, lexicon: ChunkLexicon, simple: Bytes, starts: Longs, stops: Longs
    ) -> tuple[Bytes, Longs, Longs]:
        n, room = len(starts), int((stops - starts).sum()) // 2 + len(starts) + 1
        plain, n_words = np.empty(room, dtype=np.uint8), np.empty(n, dtype=np.int64)
        odd = np.empty(len(simple) + n, dtype=np.uint8)
        odd_starts, odd_stops = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        special, seed = lexicon.arrays.special_texts, lexicon.arrays.seeds[0]
        set_odd_apart(simple, starts, stops, special, seed, plain, n_words, odd, odd_starts, odd_stops)
        first, numbers = _scan(lexicon, odd, odd_starts, odd_stops)
        count_words(lexicon.arrays, first, numbers, n_words)
        if (n_words < 0).any():  # spaCy refused a chunk: the definition says how
            texts = [simple[a:b].tobytes().decode() for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
            return _join(texts, english_words())
        words = np.empty(2 * len(simple) + 1, dtype=np.uint8)
        ends = np.empty(int(n_words.sum()), dtype=np.int64)
        join_words(simple, starts, stops, plain, lexicon.arrays, numbers, words, ends)
        lexicon.shrink_if_full()
        return words, n_words, ends


def _scan(lexicon: ChunkLexicon, simple: Bytes, starts: Longs, stops: Longs) -> tuple[Ints, Ints]:
    """Returns the chunks before each text, and the number of each chunk; all of them are in the lexicon then."""
    room = int((stops - starts).sum()) // 2 + len(starts) + 1
    first, numbers = np.zeros(len(starts) + 1, np.int32), np.empty(room, dtype=np.int32)
    places, cursor = np.empty(room, dtype=np.int32), np.zeros(4, dtype=np.int64)
    known = lexicon.n_chunks
    while not scan(simple, starts, stops, lexicon.arrays, cursor, first, places, numbers):
        lexicon.grow(int(cursor[NEEDED]), 1, MOST_SPLIT_BYTES, MOST_SPLIT_BYTES)
    lexicon.resolve(known)
    return first, numbers


def _join(texts: list[str], words: WordSplitter) -> tuple[Bytes, Longs, Longs]:
    """Returns what a splitter makes of simplified texts; see `CompiledShingler._words_of`."""
    found = [[word.encode() for word in words(text)] for text in texts]
    joined = b"".join(word + b" " for text in found for word in text)
    lengths = np.array([len(word) + 1 for text in found for word in text], dtype=np.int64)
    n_words = np.array([len(text) for text in found], dtype=np.int64)
    return np.frombuffer(joined, dtype=np.uint8), n_words, np.cumsum(lengths, dtype=np.int64) - 1
