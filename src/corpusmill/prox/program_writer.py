"""The program writer as a refiner: a small own language model that writes a ProX program for each window of lines.

The network reads a window of lines and writes program tokens (see `program_tokens`); they are spelled out as exact ProX
text with the document's line numbers, which the same parser and executor run as any other refiner's output.

Blank lines are not seen by the network and keep their number: one goes with the last line with text before it (at the
head of a window: with the next one after it), so a removed paragraph takes its separator along.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from corpusmill.config import fingerprint
from corpusmill.prox.line_features import line_features, nonblank
from corpusmill.prox.line_labeller import even_windows
from corpusmill.prox.line_network import collate, one_thread
from corpusmill.prox.program_tokens import LAST_NUMBER, Word, program_text, row_numbers
from corpusmill.prox.refiner import Chunk, ChunkOutput, folder_digest
from corpusmill.prox.writer_decoding import ProgramDecoder
from corpusmill.prox.writer_folder import load_writer


class WriterChunkRefiner:
    """Writes a removal program for each window of lines.

    Args:
        folder: Model folder.
        constrained: True: only whole programs of the grammar can be written; False: whatever the model says.

    Raises:
        ModelError: The folder is no program writer's, or damaged.
    """

    def __init__(self, folder: Path, constrained: bool = True) -> None:
        self.writer = load_writer(folder)
        self.decoder = ProgramDecoder(self.writer.network, constrained, self.writer.threshold, self.writer.weight)
        digest = folder_digest(folder)
        self.model_id = f"{folder.name}@{digest[:12]}"
        self.fingerprint = fingerprint([digest, "writer", constrained])

    def split(self, text: str) -> list[Chunk]:
        """Returns as few windows as the network's longest input allows, of even size; no window for an empty text."""
        if not text:
            return []
        lines = text.split("\n")
        filled = nonblank(lines)
        windows = even_windows(len(filled), self.writer.network.shape.lines.max_lines)
        # blank lines stay with the line before them; those at the head of the text with the first one
        cuts = [0, *(filled[start] for start, _ in windows[1:]), len(lines)]
        return [Chunk(a, tuple(lines[a:b])) for a, b in pairwise(cuts)]

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one program for each window; ``n_prompt_tokens`` counts the lines that the network saw."""
        with one_thread(), torch.inference_mode():
            return [self._write(chunk) for chunk in chunks]

    def _write(self, chunk: Chunk) -> ChunkOutput:
        # lines past the last number that a program can name are not shown, and stay
        filled = [row for row in nonblank(chunk.lines) if chunk.first_line + row <= LAST_NUMBER]
        if not filled:
            return ChunkOutput(program_text([Word.KEEP], []), 0, truncated=False)
        network = self.writer.network
        features = line_features([chunk.lines[row] for row in filled])
        tokens, truncated = self.decoder.write(network.read(collate([features], network.shape.lines.n_buckets)))
        text = program_text(tokens, row_numbers(len(chunk.lines), filled, chunk.first_line))
        return ChunkOutput(text, len(filled), truncated)
