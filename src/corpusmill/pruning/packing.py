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
    """Part of a document inside one sequence: places ``start`` to ``end`` (exclusive) of the sequence."""

    document: int
    start: int
    end: int


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
    """Returns documents packed into sequences of ``length`` tokens; an empty document is one end token.

    Args:
        documents: Token ids of each document, without end token.
        eod: Id of the end-of-document token.
        length: t, the tokens of a sequence, at least 1.

    Raises:
        ConfigError: ``length`` is below 1.
    """
    if length < 1:
        raise ConfigError(f"length={length!r} of packed sequences must be at least 1")
    packed = PackedSequences(np.empty((0, length), dtype=np.int64))
    rows: list[list[int]] = []
    current: list[int] = []
    spans: list[Span] = []
    for number, piece in _pieces(documents, eod, length):
        spans.append(Span(number, len(current), len(current) + len(piece)))
        current.extend(piece)
        if len(current) == length:
            rows.append(current)
            packed.spans.append(spans)
            current, spans = [], []
    packed.remainder = current
    if rows:
        packed.sequences = np.array(rows, dtype=np.int64)
    return packed


def _pieces(documents: Iterable[Sequence[int]], eod: int, length: int) -> Iterator[tuple[int, list[int]]]:
    """Yields document numbers with runs of tokens that end where a document or a sequence ends."""
    room = length
    for number, document in enumerate(documents):
        ids = [*document, eod]
        start = 0
        while start < len(ids):
            piece = ids[start : start + room]
            yield number, piece
            start += len(piece)
            room = room - len(piece) or length
