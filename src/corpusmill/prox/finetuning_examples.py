"""Training examples as token ids: the prompt exactly as inference builds it, then the program and EOS.

A document that does not fit loses content, never the frame of the prompt and never the target: cut targets are why the
public document refiners are unreliable behind the first token on long documents. A page of many lines becomes windows
as at inference, each with the part of the program that concerns it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError
from corpusmill.prox.chunking import Chunk, number_line, split_lines
from corpusmill.prox.finetuning_settings import FinetuningSettings
from corpusmill.prox.line_labeller import program_of
from corpusmill.prox.program import (
    DropDoc,
    KeepChunk,
    KeepDoc,
    Normalize,
    Operation,
    RemoveAll,
    RemoveLines,
    render_operation,
)
from corpusmill.prox.program_execution import MAX_NORMALIZES
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer
from corpusmill.prox.prompts import CHARACTERS_PER_ID
from corpusmill.prox.training_examples import ChunkExample, DocumentExample, Example

LAST_NUMBER = 999_999
"""Highest line number that a program can name."""
MIN_CONTENT = 16
"""Ids of content that must fit beside the frame of a prompt and the target."""
TARGET_TOO_LONG, PROMPT_TOO_LONG, UNNUMBERED = "target_too_long", "prompt_too_long", "unnumbered"
"""Why a window is not trained on: its one line has a program over the limit; its one line is over the prompt's limit,
which inference does not send either; its lines have no number that a program can name."""


@dataclass(frozen=True)
class TrainingSequence:
    """One prompt with the program that should follow it.

    Attributes:
        prompt: Ids of the prompt.
        target: Ids of the program, EOS last.
        keeps: Whether the program leaves everything as it is.
    """

    prompt: list[int]
    target: list[int]
    keeps: bool

    def __len__(self) -> int:
        """Number of ids of both."""
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True)
class Window:
    """A window of lines with what should become of it.

    Attributes:
        chunk: The lines.
        line_ids: Ids of each numbered line, without BOS and EOS.
        program: The program for these lines, in canonical spelling.
        removed: bool (lines,): which lines it removes.
        unsure: bool (lines,): lines whose label is not known.
    """

    chunk: Chunk
    line_ids: tuple[list[int], ...]
    program: str
    removed: npt.NDArray[np.bool_]
    unsure: npt.NDArray[np.bool_]


@dataclass
class EncodedExamples:
    """All sequences of a file.

    Attributes:
        sequences: In file order.
        skipped: Windows left out, by reason.
    """

    sequences: list[TrainingSequence] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


class ExampleEncoder:
    """Turns training examples into ids for one model.

    Attributes:
        max_document_tokens: Ids of a document prompt at most.
        max_chunk_tokens: Ids of a chunk prompt at most.
        window_tokens: Tokens of a window, each line counted with its number and one BOS.
        max_target_tokens: Ids of a program at most, EOS included.

    Args:
        tokenizer: The model's tokenizer.
        context: Positions of the model, None where it has no limit.
        settings: Limits.

    Raises:
        ConfigError: The tokenizer has no EOS, or the context cannot hold a prompt with its target.
    """

    def __init__(self, tokenizer: RefinerTokenizer, context: int | None, settings: FinetuningSettings) -> None:
        if tokenizer.eos is None:
            raise ConfigError("the base's tokenizer names no EOS token, so no program would ever end; name one in it")
        self.tokenizer, self.eos = tokenizer, tokenizer.eos
        self.assembles = tokenizer.encoder.assembles()
        self.max_target_tokens = settings.max_target_tokens
        room = 10**6 if context is None else context
        decision = max(len(self.target_ids(render_operation(op))) for op in (KeepDoc(), DropDoc()))
        self.max_document_tokens = min(settings.max_document_tokens, room - decision)
        self.max_chunk_tokens = room - settings.max_target_tokens
        document_frame = len(tokenizer.encoder.document_ids("", "sft", 10**6)[0])
        chunk_frame = len(tokenizer.encoder.chunk_ids(None, Chunk(0, ("",)), "sft"))
        self.window_tokens = min(settings.window_tokens, self.max_chunk_tokens - chunk_frame)
        if min(self.max_document_tokens - document_frame, self.window_tokens) < MIN_CONTENT:
            raise ConfigError(
                f"the base has context={context}, max_document_tokens={settings.max_document_tokens}, window_tokens="
                f"{settings.window_tokens}, max_target_tokens={settings.max_target_tokens}; prompt frames of "
                f"{document_frame} and {chunk_frame} ids and a target leave no room for text. Use a base with a longer "
                "context, or a smaller max_target_tokens"
            )

    def target_ids(self, program: str) -> list[int]:
        """Returns the ids of a program with EOS."""
        return [*self.tokenizer.encoder.encode(program), self.eos]

    def document(self, example: DocumentExample) -> TrainingSequence:
        """Returns the ids of a document with its decision."""
        text = replace_surrogates(example.text)[0]
        prompt, _ = self.tokenizer.encoder.document_ids(text, "sft", self.max_document_tokens)
        decision = KeepDoc() if example.decision == "keep" else DropDoc()
        return TrainingSequence(prompt, self.target_ids(render_operation(decision)), example.decision == "keep")

    def windows(self, example: ChunkExample) -> list[Window]:
        """Returns the windows that inference would cut the lines into, each with its part of the program."""
        first, lines = example.first_line, list(example.lines)
        shown = (line[: self.max_chunk_tokens * CHARACTERS_PER_ID] for line in lines)  # the rest is never sent
        numbered = [replace_surrogates(number_line(first + i, line))[0] for i, line in enumerate(shown)]
        line_ids = self.tokenizer.encode_batch(numbered)
        ops = parse_program(example.program, "strict").ops
        removed, unsure = _marks(example, ops)
        edits = [op for op in ops if isinstance(op, Normalize)][:MAX_NORMALIZES]
        windows = []
        for chunk in split_lines(lines, [len(ids) + 1 for ids in line_ids], self.window_tokens):
            a, b = chunk.first_line, chunk.last_line + 1
            placed = replace(chunk, first_line=first + a)
            program = window_program(placed, removed[a:b], edits)
            windows.append(Window(placed, tuple(line_ids[a:b]), program, removed[a:b], unsure[a:b]))
        return windows

    def chunk(self, window: Window, skipped: Counter[str]) -> Iterator[TrainingSequence]:
        """Yields the ids of a window; one whose program is too long is halved until each half's fits."""
        if window.chunk.last_line > LAST_NUMBER:
            skipped[UNNUMBERED] += 1
            return
        target = self.target_ids(window.program)
        if len(target) > self.max_target_tokens:
            halves = _halves(window)
            if not halves:
                skipped[TARGET_TOO_LONG] += 1
            for half in halves:
                yield from self.chunk(half, skipped)
            return
        prompt = self.prompt_ids(window)
        if prompt is None or len(prompt) > self.max_chunk_tokens:
            skipped[PROMPT_TOO_LONG] += 1
        else:
            yield TrainingSequence(prompt, target, window.program == render_operation(KeepChunk()))

    def prompt_ids(self, window: Window) -> list[int] | None:
        """Returns the ids of a window's prompt, None where a line is so long that inference does not send it."""
        longest = self.max_chunk_tokens * CHARACTERS_PER_ID
        if any(len(line) > longest for line in window.chunk.lines):
            return None
        lines = tuple(replace_surrogates(line)[0] for line in window.chunk.lines)
        ids = list(window.line_ids) if self.assembles else None
        return self.tokenizer.encoder.chunk_ids(ids, replace(window.chunk, lines=lines), "sft")

    def is_sent(self, window: Window) -> bool:
        """Returns whether inference would send a window and its program could be written whole."""
        if window.chunk.last_line > LAST_NUMBER:
            return False
        prompt = self.prompt_ids(window)
        return prompt is not None and len(prompt) <= self.max_chunk_tokens

    def encode(self, examples: Iterator[Example]) -> EncodedExamples:
        """Returns the sequences of examples, which are read once."""
        encoded = EncodedExamples()
        for example in examples:
            if isinstance(example, DocumentExample):
                encoded.sequences.append(self.document(example))
            else:
                for window in self.windows(example):
                    encoded.sequences.extend(self.chunk(window, encoded.skipped))
        return encoded


def window_program(chunk: Chunk, removed: npt.NDArray[np.bool_], edits: Sequence[Normalize]) -> str:
    """Returns the program of a window: removals by line, then the string edits whose source stands in what stays.

    Removals of touching lines are one call, comments are gone: one spelling for one edit, which is what can be learnt.
    A source that only an earlier edit brings about is not looked for.
    """
    staying = [line for line, gone in zip(chunk.lines, removed.tolist(), strict=True) if not gone]
    met = dict.fromkeys(op for op in edits if op.source and any(op.source in line for line in staying))
    calls = [program_of(removed, chunk.first_line)] if removed.any() or not met else []
    return "\n".join([*calls, *(render_operation(op) for op in met)])


def _marks(example: ChunkExample, ops: Sequence[Operation]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Returns which lines a program removes, and which have no known label; ranges are clipped to the lines."""
    n, first = len(example.lines), example.first_line
    removed, unsure = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    for op in ops:
        if isinstance(op, RemoveAll):
            removed[:] = True
        elif isinstance(op, RemoveLines):
            removed[max(0, op.first - first) : max(0, op.last + 1 - first)] = True
    numbers = np.array(example.unsure, dtype=np.int64) - first
    unsure[numbers[(numbers >= 0) & (numbers < n)]] = True
    return removed, unsure


def _halves(window: Window) -> list[Window]:
    """Returns a window's two halves with their programs, nothing for a single line."""
    n = len(window.chunk.lines)
    edits = [op for op in parse_program(window.program, "strict").ops if isinstance(op, Normalize)]
    parts = [] if n < 2 else [slice(0, n // 2), slice(n // 2, n)]
    halves = []
    for part in parts:
        chunk = Chunk(window.chunk.first_line + part.start, window.chunk.lines[part])
        program = window_program(chunk, window.removed[part], edits)
        halves.append(Window(chunk, window.line_ids[part], program, window.removed[part], window.unsure[part]))
    return halves
