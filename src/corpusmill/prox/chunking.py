"""Splits a document into windows of lines for the chunk refiner, and joins what comes back.

Source: GAIR-NLP/ProX `utils/data_utils.py`; the paper's Algorithm 1 differs in that it never sends a line that is over
the budget by itself, the released code sends it alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """A window of consecutive lines of one document.

    Attributes:
        first_line: Number of the first line in the document, 0-based.
        lines: The lines, without their numbers and line breaks.
    """

    first_line: int
    lines: tuple[str, ...]

    @property
    def last_line(self) -> int:
        """Number of the last line in the document, inclusive."""
        return self.first_line + len(self.lines) - 1

    def numbered(self) -> list[str]:
        """Returns the lines as the model reads them: ``[007]text``, numbered through the document."""
        return [number_line(self.first_line + offset, line) for offset, line in enumerate(self.lines)]


def number_line(number: int, line: str) -> str:
    """Returns a line behind its number of at least three digits, with no blank between: ``[007]text``."""
    return f"[{number:03d}]{line}"


def split_text(text: str, cost: Callable[[str], int], budget: int) -> list[Chunk]:
    """Returns windows whose costs stay within a budget; their lines, joined by line feeds, are the text.

    Args:
        text: The document; only line feeds separate lines. An empty text has one empty line.
        cost: Cost of one numbered line, for instance its ids and one BOS (the official count).
        budget: Cost of a window at most; a line that is over it alone becomes a window of its own.
    """
    lines = text.split("\n")
    return split_lines(lines, [cost(number_line(number, line)) for number, line in enumerate(lines)], budget)


def split_lines(lines: Sequence[str], costs: Sequence[int], budget: int) -> list[Chunk]:
    """Returns windows of consecutive lines, each greedily filled; ``costs`` has one entry per line."""
    chunks: list[Chunk] = []
    start = spent = 0
    for number, cost in enumerate(costs):
        if number > start and spent + cost > budget:
            chunks.append(Chunk(start, tuple(lines[start:number])))
            start, spent = number, 0
        spent += cost
    if lines:
        chunks.append(Chunk(start, tuple(lines[start:])))
    return chunks


def join_chunks(chunks: Sequence[Chunk]) -> str:
    """Returns the document that was split."""
    return "\n".join(line for chunk in chunks for line in chunk.lines)


def join_outputs(outputs: Sequence[str], n_chunks: Sequence[int]) -> list[str]:
    """Returns one program per document as the official code joins them: outputs stripped of spaces, line by line.

    Args:
        outputs: Outputs of all chunks of all documents, in order.
        n_chunks: Chunks of each document; 0 gives the empty program.
    """
    stripped, start = [output.strip(" ") for output in outputs], 0
    programs = []
    for n in n_chunks:
        programs.append("\n".join(stripped[start : start + n]))
        start += n
    return programs
