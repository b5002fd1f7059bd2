"""Deletions on the lines of a document, and the strict program that performs them: where all chunk labels meet.

Whatever route a label comes from, it is first a `LineEdits`: lines to remove, spans to cut out of lines that stay, and
lines that no label is known for. Spans become ``normalize(source_str, "")``, which deletes its source all over the
chunk; so a span is written only where every occurrence of its text is to go. What cannot be written is left standing
and counted, and its lines are unsure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from corpusmill.prox.annotation_prompts import windows_of
from corpusmill.prox.program import KeepChunk, Normalize, Operation, RemoveLines, render_program
from corpusmill.prox.program_execution import MIN_SOURCE, ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.training_examples import ChunkExample

MAX_NORMALIZES = 48
"""Different strings that one program deletes; each costs a reading of its chunk. 256 new tokens hold about 10."""
Spans = tuple[tuple[int, int], ...]
"""Ranges of characters of a line, end exclusive, in order, without overlap."""


class RejectedError(Exception):
    """A label that is not used; ``reason`` is a stable code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class LineEdits:
    """What shall become of consecutive lines of a document.

    Attributes:
        first_line: Number of the first line in the document.
        lines: The lines.
        removed: Numbers of lines to remove, in the document.
        deletions: Spans to cut out of lines that stay, by line number.
        unsure: Numbers of lines that no label is known for; they stay as they are.
    """

    first_line: int
    lines: tuple[str, ...]
    removed: frozenset[int] = frozenset()
    deletions: Mapping[int, Spans] = field(default_factory=dict)
    unsure: frozenset[int] = frozenset()

    @property
    def n_removed_characters(self) -> int:
        """Non-blank characters that go."""
        whole = sum(_size(self.lines[n - self.first_line]) for n in self.removed)
        return whole + sum(_size(self._cut(n, spans)) for n, spans in self.deletions.items())

    @property
    def removed_share(self) -> float:
        """Share of the non-blank characters that go, 0 where there are none."""
        return self.n_removed_characters / max(1, sum(map(_size, self.lines)))

    @property
    def removes_everything(self) -> bool:
        """True where no line with text stays."""
        return not any(line.strip() for _, line in self.kept())

    def _cut(self, number: int, spans: Spans) -> str:
        return "".join(self.lines[number - self.first_line][start:end] for start, end in spans)

    def kept(self) -> list[tuple[int, str]]:
        """Returns the lines that stay, as they shall be, with their numbers."""
        kept = []
        for number, line in enumerate(self.lines, self.first_line):
            if number not in self.removed:
                kept.append((number, without(line, self.deletions.get(number, ()))))
        return kept

    def windows(self, max_characters: int, max_lines: int) -> "list[LineEdits]":
        """Returns the same edits over windows of whole lines; one longer line is a window of its own."""
        return [
            self.part(chunk.first_line + self.first_line, chunk.lines)
            for chunk in windows_of(list(self.lines), max_characters, max_lines)
        ]

    def part(self, first_line: int, lines: tuple[str, ...]) -> "LineEdits":
        """Returns the edits of some of the lines."""
        inside = range(first_line, first_line + len(lines))
        return LineEdits(
            first_line,
            lines,
            frozenset(n for n in self.removed if n in inside),
            {n: spans for n, spans in self.deletions.items() if n in inside},
            frozenset(n for n in self.unsure if n in inside),
        )


def without(line: str, spans: Spans) -> str:
    """Returns a line without some of its characters."""
    for start, end in reversed(spans):
        line = line[:start] + line[end:]
    return line


def _size(text: str) -> int:
    return len("".join(text.split()))


def settled(edits: LineEdits) -> LineEdits:
    """Returns equal edits in one form: lines cut to nothing are removed, and so are blank lines between removed ones.

    A blank line goes where its nearest lines with text on both sides go (the ends of the document count as gone), so
    that a menu with blank lines is one range; else it stays and parts paragraphs. Nothing is unsure about it.
    """
    filled = {n for n, line in enumerate(edits.lines, edits.first_line) if line.strip()}
    unsure = edits.unsure & filled
    filled -= unsure
    removed = set(edits.removed & filled)
    deletions = {n: spans for n, spans in edits.deletions.items() if n in filled - removed and spans}
    for number, spans in list(deletions.items()):
        if not without(edits.lines[number - edits.first_line], spans).strip():
            removed.add(number)
            del deletions[number]
    blanks: list[int] = []
    gone_above = True
    for number, line in enumerate(edits.lines, edits.first_line):
        if not line.strip():
            blanks.append(number)
            continue
        gone = number in removed
        if gone_above and gone:
            removed.update(blanks)
        blanks, gone_above = [], gone
    if gone_above and removed:
        removed.update(blanks)
    return replace(edits, removed=frozenset(removed), deletions=deletions, unsure=unsure)


@dataclass(frozen=True)
class WrittenEdits:
    """A program for a window, and what it does.

    Attributes:
        program: Whole under the strict grammar.
        done: The edits that the program performs: those that could be written, the others' lines unsure.
        n_undone: Non-blank characters that should go and stay.
    """

    program: str
    done: LineEdits
    n_undone: int


def write_edits(edits: LineEdits) -> WrittenEdits:
    """Returns the strict program of settled edits.

    Every `normalize` is accepted only where each of its occurrences, on lines that stay, lies in text that goes; the
    longest strings first. Sources under two non-blank characters are never written, since strict mode refuses them.
    """
    marked = _MarkedLines(edits)
    normalizes = marked.normalizes()
    undone, n_undone = marked.left()
    ops: list[Operation] = [RemoveLines(first, last) for first, last in ranges(edits.removed)]
    ops += [Normalize(source) for source in normalizes]
    done = replace(
        edits,
        deletions=marked.done(),
        unsure=edits.unsure | undone,
    )
    return WrittenEdits(render_program(ops or [KeepChunk()]), done, n_undone)


def ranges(numbers: frozenset[int]) -> list[tuple[int, int]]:
    """Returns the runs of consecutive numbers, both ends included."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


class _MarkedLines:
    """The lines that stay while strings are deleted from them; ``places`` says which characters are still there."""

    def __init__(self, edits: LineEdits) -> None:
        self.edits = edits
        self.texts = {n: line for n, line in enumerate(edits.lines, edits.first_line) if n not in edits.removed}
        self.places = {n: list(range(len(self.texts[n]))) for n in edits.deletions}
        self.marks = {n: _marks(self.texts[n], spans) for n, spans in edits.deletions.items()}

    def normalizes(self) -> list[str]:
        """Applies what can be written, and returns the sources in the order in which they act.

        What fails is tried again after the others, which may have taken its other occurrences away, and at last
        without the blanks at its ends.
        """
        spans = [(n, span) for n, spans in self.edits.deletions.items() for span in spans]
        sources = {self.texts[n][start:end] for n, (start, end) in spans}
        tried = sorted(sources, key=lambda s: (-len(s), s))[:MAX_NORMALIZES]
        chosen: list[str] = []
        for attempt in (tried, tried, [source.strip() for source in tried]):
            chosen += [s for s in attempt if _size(s) >= MIN_SOURCE and s not in chosen and self._apply(s)]
        return chosen

    def _apply(self, source: str) -> bool:
        """Deletes a string all over the lines if nothing is lost that should stay; returns whether it did."""
        found = {n: at for n, text in self.texts.items() if (at := _occurrences(text, source))}
        if not found or not all(self._all_marked(n, at, len(source)) for n, at in found.items()):
            return False
        for n, at in found.items():
            self._delete(n, at, len(source))
        return True

    def _all_marked(self, number: int, at: list[int], width: int) -> bool:
        if number not in self.marks:
            return False
        marks, places = self.marks[number], self.places[number]
        return all(marks[place] for start in at for place in places[start : start + width])

    def _delete(self, number: int, at: list[int], width: int) -> None:
        spans = tuple((start, start + width) for start in at)
        self.texts[number] = without(self.texts[number], spans)
        places = self.places[number]
        for start, end in reversed(spans):
            del places[start:end]

    def left(self) -> tuple[frozenset[int], int]:
        """Returns the lines where text stands that should go, and how many non-blank characters of it."""
        sizes = {
            n: sum(marks[p] and not self.edits.lines[n - self.edits.first_line][p].isspace() for p in self.places[n])
            for n, marks in self.marks.items()
        }
        return frozenset(n for n, size in sizes.items() if size), sum(sizes.values())

    def done(self) -> dict[int, Spans]:
        """Returns the spans that were deleted."""
        spans: dict[int, Spans] = {}
        for n, places in self.places.items():
            gone = frozenset(range(len(self.marks[n]))).difference(places)
            if gone:
                spans[n] = tuple((first, last + 1) for first, last in ranges(gone))
        return spans


def _marks(line: str, spans: Spans) -> bytearray:
    marks = bytearray(len(line))
    for start, end in spans:
        marks[start:end] = b"\1" * (end - start)
    return marks


def _occurrences(text: str, source: str) -> list[int]:
    """Returns where a source begins, without overlaps, as `str.replace` finds it."""
    found, place = [], text.find(source)
    while place >= 0:
        found.append(place)
        place = text.find(source, place + len(source))
    return found


def executed(example: ChunkExample) -> str:
    """Returns what strict mode leaves of an example's lines, "" where nothing stays; no gate is applied."""
    ops = parse_program(example.program, "strict").ops
    shifted = [
        RemoveLines(max(0, op.first - example.first_line), op.last - example.first_line)
        if isinstance(op, RemoveLines) and op.last >= example.first_line
        else op
        for op in ops
    ]
    program = render_program(shifted)
    settings = ExecutionSettings("strict", min_words=0, max_removed=1.0)
    return execute("\n".join(example.lines), [ChunkProgram(0, len(example.lines) - 1, program)], settings).text


def program_fault(example: ChunkExample) -> str:
    """Returns what is wrong with an example's program, "" where nothing is.

    A program is right when strict mode reads it whole, without an error or an unknown call; when it is one
    ``keep_chunk()``, or removes lines of its own window and deletes strings that occur in it; and nothing else.
    """
    program = parse_program(example.program, "strict")
    said = program.diagnostics
    if said.n_errors or said.n_ignored or said.truncated or not program.ops:
        return f"strict mode reads {len(program.ops)} calls, {said.n_errors} errors, {said.n_ignored} other calls"
    if any(isinstance(op, KeepChunk) for op in program.ops):
        return "" if len(program.ops) == 1 else "it keeps and edits"
    last = example.first_line + len(example.lines) - 1
    for op in program.ops:
        if isinstance(op, RemoveLines):
            if not example.first_line <= op.first <= op.last <= last:
                return f"{op} leaves the lines {example.first_line} to {last}"
        elif not isinstance(op, Normalize) or op.target or not any(op.source in line for line in example.lines):
            return f"{op} is no deletion of text of the window"
    return ""
