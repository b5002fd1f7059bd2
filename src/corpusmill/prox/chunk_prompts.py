"""From a document to the prompts of the chunk stage: windows of lines, each line encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass

from corpusmill.batches import replace_surrogates
from corpusmill.prox.chunking import Chunk, number_line, split_lines
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer
from corpusmill.prox.prompts import CHARACTERS_PER_ID


@dataclass(frozen=True)
class EncodedChunk(Chunk):
    """A window of lines with the ids of each numbered line, so that no line is encoded twice."""

    line_ids: tuple[list[int], ...] = ()


class ChunkPrompts:
    """Splits documents and encodes their windows, the same for every backend.

    Args:
        tokenizer: The refiner's.
        config: Window, limits and style of the prompts.
    """

    def __init__(self, tokenizer: RefinerTokenizer, config: ChunkRefinementConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.assembles = tokenizer.encoder.assembles()
        self.max_line = config.max_prompt_tokens * CHARACTERS_PER_ID

    def split(self, text: str) -> list[Chunk]:
        """Returns windows of at most ``window_tokens`` ids, each line counted with its number and one BOS."""
        if not text:
            return []
        lines = text.split("\n")
        shown = (line[: self.max_line] for line in lines)  # a longer line is never sent: its prompt is too long
        readable = shown if _is_readable(text) else (replace_surrogates(line)[0] for line in shown)
        ids = self.tokenizer.encode_batch([number_line(number, line) for number, line in enumerate(readable)])
        chunks = split_lines(lines, [len(line) + 1 for line in ids], self.config.window_tokens)
        return [EncodedChunk(c.first_line, c.lines, tuple(ids[c.first_line : c.last_line + 1])) for c in chunks]

    def ids(self, chunk: Chunk) -> list[int]:
        """Returns the ids of a chunk's prompt.

        Lines of more than 64 characters per prompt id are encoded up to there only; `fits` is False for such a chunk.
        """
        line_ids = list(chunk.line_ids) if self.assembles and isinstance(chunk, EncodedChunk) else None
        if line_ids is None:
            lines = (replace_surrogates(line[: self.max_line])[0] for line in chunk.lines)
            chunk = Chunk(chunk.first_line, tuple(lines))
        return self.tokenizer.encoder.chunk_ids(line_ids, chunk, self.config.prompt_ids)

    def fits(self, chunk: Chunk, ids: Sequence[int], context: int | None) -> bool:
        """Returns whether a prompt may be sent: whole, within the limit, and with room for a token behind it.

        Args:
            chunk: The window.
            ids: Its prompt.
            context: Positions of the model, None where it names none.
        """
        limit = self.config.max_prompt_tokens if context is None else min(self.config.max_prompt_tokens, context - 1)
        return len(ids) <= limit and all(len(line) <= self.max_line for line in chunk.lines)


def _is_readable(text: str) -> bool:
    """Returns whether a text has no lone surrogate; one look at the page instead of one at every line."""
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False
