"""Shingles: the hashes of all runs of n words of a simplified text, by the definition or by kernels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.dedup.simplification import simplify
from corpusmill.dedup.xxh64 import xxh64
from corpusmill.errors import ConfigError
from corpusmill.rules.segment import Segmenter

if TYPE_CHECKING:
    Strings: TypeAlias = pa.Array[Any]
else:  # generic only in the stubs
    Strings: TypeAlias = pa.Array

Engine = Literal["reference", "compiled"]
WordSplitter: TypeAlias = Callable[[str], Sequence[str]]
"""Takes a simplified text and returns its words, none of them empty or with white space in it."""
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class ShingledTexts:
    """Shingles of consecutive texts.

    Attributes:
        first: Number of the first of these texts.
        hashes: Their shingles in order, text after text.
        ends: Where the shingles of each text end in it, (texts,).
    """

    first: int
    hashes: Hashes
    ends: npt.NDArray[np.int64]


class Shingler(Protocol):
    """Makes shingles of texts; one per process."""

    def groups(self, texts: Strings) -> Iterator[ShingledTexts]:
        """Yields the shingles of consecutive groups of texts, in bounded memory; a null has none.

        Args:
            texts: string or large_string.
        """
        ...


def make_shingler(engine: Engine, ngram: int = 5, words: WordSplitter | None = None) -> Shingler:
    """Returns a maker of shingles.

    Args:
        engine: ``reference`` is the definition, ``compiled`` gives equal shingles by kernels (needs numba).
        ngram: Words of a shingle.
        words: Splits a simplified text into words; None: English, as spaCy does.

    Raises:
        ConfigError: The engine is not known, or ngram is below 1.
    """
    if ngram < 1:
        raise ConfigError(f"ngram={ngram!r}: expected at least 1")
    if engine == "reference":
        return ReferenceShingler(ngram, words or english_words())
    if engine == "compiled":
        from corpusmill.dedup.compiled.shingle_engine import CompiledShingler  # numba is in the extra "crawl"

        return CompiledShingler(ngram, words)
    raise ConfigError(f"engine={engine!r} is not known; expected 'reference' or 'compiled'")


def english_words() -> WordSplitter:
    """Returns a splitter into English words as spaCy gives them; its only state is a bounded memory of pure results."""
    segmenter = Segmenter()
    return lambda text: segmenter.words(text).words


def shingles(text: str, words: WordSplitter, ngram: int = 5) -> Hashes:
    """Returns the XXH64 of each run of words, joined by single spaces, in order; (max(words - ngram + 1, 0),).

    Source: datatrove 0.10.1, ``MinhashDedupSignature.get_shingles``.
    """
    found = words(simplify(text))
    runs = (" ".join(found[i : i + ngram]).encode() for i in range(len(found) - ngram + 1))
    return np.fromiter((xxh64(run) for run in runs), dtype=np.uint64)


class ReferenceShingler:
    """Shingles by the definition, one text at a time."""

    def __init__(self, ngram: int, words: WordSplitter) -> None:
        self._ngram = ngram
        self._words = words

    def groups(self, texts: Strings) -> Iterator[ShingledTexts]:
        """Yields the shingles of each text."""
        for number, text in enumerate(texts):
            found = shingles(text.as_py(), self._words, self._ngram) if text.is_valid else np.empty(0, np.uint64)
            yield ShingledTexts(number, found, np.array([len(found)]))
