"""Packing: documents, each closed by an end-of-document token, concatenated and cut in sequences of fixed length.

Source: "When Less is More" (arXiv 2309.04564v1), section 2. GPT-style: no attention mask between documents, no
beginning token. The paper does not say what happens to the remainder; it is dropped and counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from corpusmill.errors import ConfigError


class Span(NamedTuple):
    """Part of a document inside one sequence: places ``start`` to ``end`` (exclusive) of the sequence.

    ``first_token`` is the place in the document of the span's first token, ``document_tokens`` the length of the whole
    document with its end token.
    """

    document: int | str
    start: int
    end: int
    first_token: int
    document_tokens: int


@dataclass
class PackedSequence:
    """Tokens and the documents that they come from, in order; a document's end token belongs to it."""

    tokens: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


class SequencePacker:
    """Packs documents one after the other and holds nothing but the sequence that is not full yet.

    Args:
        eod: Id of the end-of-document token.
        length: t, the tokens of a sequence, at least 1.

    Attributes:
        remainder: The tokens after the last full sequence, with their owners.

    Raises:
        ConfigError: ``length`` is below 1.
    """

    def __init__(self, eod: int, length: int) -> None:
        if length < 1:
            raise ConfigError(f"length={length!r} of packed sequences must be at least 1")
        self._eod = eod
        self._length = length
        self.remainder = PackedSequence()

    def add(self, document: int | str, tokens: Sequence[int]) -> Iterator[PackedSequence]:
        """Yields the sequences that a document fills; an empty document is one end token.

        Args:
            document: Name of the document in spans.
            tokens: Its token ids, without end token.
        """
        ids = [*tokens, self._eod]
        first = 0
        while first < len(ids):
            current = self.remainder
            start = len(current.tokens)
            piece = ids[first : first + self._length - start]
            current.tokens += piece
            current.spans.append(Span(document, start, start + len(piece), first, len(ids)))
            first += len(piece)
            if len(current.tokens) == self._length:
                self.remainder = PackedSequence()
                yield current


@dataclass
class PackedSequences:
    """Result of packing.

    Attributes:
        sequences: Token ids [n, length].
        spans: For each sequence the documents in it, in order; a document's end token belongs to it.
        remainder: Tokens at the end that fill no sequence; dropped.
    """

    sequences: np.ndarray
    spans: list[list[Span]] = field(default_factory=list)
    remainder: list[int] = field(default_factory=list)


def pack(documents: Iterable[Sequence[int]], eod: int, length: int) -> PackedSequences:
    """Returns documents packed into sequences of ``length`` tokens; documents are named by their number.

    Args:
        documents: Token ids of each document, without end token.
        eod: Id of the end-of-document token.
        length: t, the tokens of a sequence, at least 1.

    Raises:
        ConfigError: ``length`` is below 1.
    """
    packer = SequencePacker(eod, length)
    full = [sequence for number, tokens in enumerate(documents) for sequence in packer.add(number, tokens)]
    rows = np.array([sequence.tokens for sequence in full], dtype=np.int64).reshape(len(full), length)
    return PackedSequences(rows, [sequence.spans for sequence in full], packer.remainder.tokens)
