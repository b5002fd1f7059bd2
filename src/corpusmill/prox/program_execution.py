"""Executes refining programs on a document: pure, linear in the text, never evaluated.

Compat mode joins the outputs of all chunks and runs them on the whole document, as the released code does (spec and
cases: GAIR-NLP/ProX `utils/chunk_utils.py`). Strict mode runs each output on the lines of its own chunk, with an error
budget of its own, so that one bad chunk cannot void or rewrite the others.

Limits go beyond the released code and only meet hostile programs, in both modes: a replacement that would blow the
text up is refused as an error, and so is every `normalize` of one output behind the thousandth, and in compat mode of
one document behind the two thousandth. Lines are never materialised from the numbers that a program names.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corpusmill.prox.program import (
    DropDoc,
    KeepDoc,
    Mode,
    Normalize,
    Operation,
    Program,
    RemoveAll,
    RemoveLines,
)
from corpusmill.prox.program_parser import parse_program

MAX_GROWTH = 65_536
"""Characters by which all `normalize` calls on a text together may lengthen it beyond doubling it."""
MAX_NORMALIZES = 1000
"""`normalize` calls of one output that run; each reads its lines once. 256 new tokens hold fewer than 40."""
MAX_WHOLE_NORMALIZES = 2000
"""Those of all outputs that run in compat mode, where each reads the document once: at 8 a window, 375,000 tokens."""
MIN_SOURCE = 2
"""Non-blank characters that a `normalize` source must have in strict mode."""

KEPT, EDITED = "kept", "edited"
DROPPED_MODEL, DROPPED_RATIO, DROPPED_MIN_WORDS = "dropped_model", "dropped_ratio", "dropped_min_words"
REJECTED_ERRORS, REJECTED_RATIO = "rejected_errors", "rejected_ratio"
EMPTY_OUTPUT, UNPARSED, TRUNCATED = "empty_output", "unparsed", "truncated"
NORMALIZE_MISS, NORMALIZE_TINY_SOURCE = "normalize_miss", "normalize_tiny_source"
LOOPED = "looped"
"""Note of an output that was stopped because it repeated a call; what was written runs as any other output."""
DROPPED = frozenset({DROPPED_MODEL, DROPPED_RATIO, DROPPED_MIN_WORDS})
"""Reasons whose document ends here."""


@dataclass(frozen=True)
class ExecutionSettings:
    """The gates of the executor.

    Attributes:
        mode: ``compat`` or ``strict``.
        min_words: A document of at most this many words after execution is dropped.
        max_removed: A document that loses at least this share of its words is dropped.
        min_kept: A program that keeps less than this share is rejected; 0 never rejects.
        max_errors: Errors from which on a program is rejected: per document (compat) or per chunk (strict).
    """

    mode: Mode
    min_words: int = 10
    max_removed: float = 0.95
    min_kept: float = 0.0
    max_errors: int = 2


@dataclass(frozen=True)
class ChunkProgram:
    """The output of a refiner for lines ``first_line`` to ``last_line`` (inclusive) of a document.

    ``reason`` says why the model was not asked (``too_long_prompt``), ``""`` where it was. What is said of an output
    that exists (``looped``) is no reason here: it is executed and gets the reason code of what it did.
    """

    first_line: int
    last_line: int
    output: str
    reason: str = ""


@dataclass(frozen=True)
class ExecutedOperation:
    """One operation as it ran.

    Attributes:
        chunk: Index of the chunk that said it.
        op: ``remove_lines``, ``remove_all`` or ``normalize``.
        first_line: First line it concerned, after clipping; None where it concerned the whole text.
        last_line: Last line it concerned, inclusive.
        source: Source string of a `normalize`.
        target: Target string of a `normalize`.
        n_applied: Lines in range, or replacements made; 0 is a miss.
        n_characters: Characters it took away (negative where it added); a line counts with its line break and once,
            for the first operation that removed it.
    """

    chunk: int
    op: str
    first_line: int | None
    last_line: int | None
    source: str | None
    target: str | None
    n_applied: int
    n_characters: int


@dataclass(frozen=True)
class ChunkResult:
    """What became of one chunk's output: reason code, errors, and whether its last call was unfinished."""

    reason: str
    n_errors: int
    truncated: bool


@dataclass(frozen=True)
class ExecutionResult:
    """What became of a document.

    Attributes:
        text: The text after execution, ``""`` where the document is dropped.
        reason: Reason code of the document.
        operations: Operations that ran; empty where the programs were rejected.
        chunks: One result for each chunk program, in order.
        n_calls: Calls that were parsed, keep flags included.
        n_errors: Errors over all chunks.
        n_normalizes: `normalize` calls that ran.
        n_normalize_misses: Those of them whose source did not occur.
        n_tiny_sources: `normalize` calls that strict mode refused for a source under 2 non-blank characters.
        n_truncated: Chunks whose last call was unfinished.
        n_words_before: Whitespace-separated words of the document.
        n_words_after: Words after execution, before any gate.
    """

    text: str
    reason: str
    operations: tuple[ExecutedOperation, ...] = ()
    chunks: tuple[ChunkResult, ...] = ()
    n_calls: int = 0
    n_errors: int = 0
    n_normalizes: int = 0
    n_normalize_misses: int = 0
    n_tiny_sources: int = 0
    n_truncated: int = 0
    n_words_before: int = 0
    n_words_after: int = 0

    @property
    def dropped(self) -> bool:
        """True where the document ends here."""
        return self.reason in DROPPED


def execute(text: str, chunk_programs: Sequence[ChunkProgram], settings: ExecutionSettings) -> ExecutionResult:
    """Returns the document after its programs; never raises on any text or program.

    Args:
        text: The whole document; only line feeds separate its lines.
        chunk_programs: Outputs with the lines that each refiner call saw, in document order.
        settings: Mode and gates.
    """
    edit = _CompatEdit(text) if settings.mode == "compat" else _StrictEdit(text)
    edit.run(chunk_programs, settings.max_errors)
    return _pass_gates(text, edit, chunk_programs, settings)


def decide_document(output: str, mode: Mode) -> tuple[bool, str]:
    """Returns whether a document is kept by a document program, and the reason code.

    Compat: the letters "drop" anywhere drop. Strict: the first call decides; output without one keeps as ``unparsed``.
    """
    if not output.strip():
        return True, EMPTY_OUTPUT
    first: Operation | None = next(iter(parse_program(output, "strict").ops), None)
    drops = "drop" in output if mode == "compat" else isinstance(first, DropDoc)
    if drops:
        return False, DROPPED_MODEL
    return True, KEPT if isinstance(first, KeepDoc) else UNPARSED


class _Edit:
    """A document being edited: its lines, which of them go, and what was done."""

    acts_on_document = False  # whether every `normalize` reads the whole document

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.removed = bytearray(len(self.lines))
        self.standing = list(range(len(self.lines) + 1))  # hint at or before the next line that still stands
        self.n_normalizes: Counter[int] = Counter()
        self.n_whole_normalizes = 0
        self.operations: list[ExecutedOperation] = []
        self.errors: list[int] = []
        self.programs: list[Program] = []
        self.rejected: list[bool] = []
        self.tiny = 0

    def run(self, chunk_programs: Sequence[ChunkProgram], max_errors: int) -> None:
        """Executes all programs; ``rejected`` says of each whether it went over the error budget."""
        raise NotImplementedError

    def text(self) -> str:
        """Returns the lines that stay."""
        return "\n".join(line for line, gone in zip(self.lines, self.removed, strict=True) if not gone)

    def remove(self, chunk: int, first: int, last: int, name: str) -> None:
        """Removes a range, clipped to the text; an empty range is recorded with nothing applied."""
        first = min(max(first, 0), len(self.lines))
        last = max(min(last, len(self.lines) - 1), -1)
        n_characters = 0
        line = self._next_standing(first)
        while line <= last:  # over all calls each line is removed once, however often ranges overlap
            n_characters += len(self.lines[line]) + 1
            self.removed[line] = 1
            self.standing[line] = line + 1
            line = self._next_standing(line + 1)
        n_lines = max(0, last - first + 1)
        self.operations.append(ExecutedOperation(chunk, name, first, last, None, None, n_lines, n_characters))

    def _next_standing(self, line: int) -> int:
        """Returns the first line from a given one on that is not removed, or the number of lines."""
        standing = self.standing
        while standing[line] != line:
            standing[line] = standing[standing[line]]  # halves the path for the next search
            line = standing[line]
        return line

    def normalize(self, chunk: int, op: Normalize, part: str, lines: range, most: int) -> str:
        """Returns lines, joined, after a replacement; one that leaves more than ``most`` characters is an error."""
        self.n_normalizes[chunk] += 1
        self.n_whole_normalizes += self.acts_on_document
        if self.n_normalizes[chunk] > MAX_NORMALIZES or self.n_whole_normalizes > MAX_WHOLE_NORMALIZES:
            self.errors[chunk] += 1
            return part
        count = part.count(op.source)
        growth = count * (len(op.target) - len(op.source))
        if len(part) + growth > most:
            self.errors[chunk] += 1
            return part
        self.operations.append(
            ExecutedOperation(chunk, "normalize", lines[0], lines[-1], op.source, op.target, count, -growth)
        )
        return part.replace(op.source, op.target) if count else part


def _most(part: str) -> int:
    """Returns the characters that a text may have after all its replacements."""
    return 2 * len(part) + MAX_GROWTH


class _CompatEdit(_Edit):
    """Every call acts on the whole document, `normalize` at once and line removal last; one error budget."""

    acts_on_document = True

    def run(self, chunk_programs: Sequence[ChunkProgram], max_errors: int) -> None:
        whole, n_lines = "\n".join(self.lines), len(self.lines)
        most = _most(whole)
        removals: list[tuple[int, RemoveLines | RemoveAll]] = []
        for chunk, chunk_program in enumerate(chunk_programs):
            program = parse_program(chunk_program.output, "compat")
            self.programs.append(program)
            self.errors.append(program.diagnostics.n_errors)
            for op in program.ops:
                if isinstance(op, Normalize):
                    whole = self.normalize(chunk, op, whole, range(n_lines), most)
                elif isinstance(op, RemoveLines | RemoveAll):
                    removals.append((chunk, op))
        self.lines = whole.split("\n")
        for chunk, op in removals:
            if isinstance(op, RemoveAll):
                self.remove(chunk, 0, n_lines - 1, "remove_all")
            else:
                self.remove(chunk, op.first, op.last, "remove_lines")
        for chunk in _out_of_range([(op, chunk) for chunk, op in removals if isinstance(op, RemoveLines)], n_lines):
            self.errors[chunk] += 1
        self.rejected = [sum(self.errors) >= max_errors] * len(chunk_programs)


def _out_of_range(removals: list[tuple[RemoveLines, int]], n_lines: int) -> list[int]:
    """Returns the chunk of each range that leaves the text, after merging ranges that overlap or touch."""
    merged: list[tuple[int, int, int]] = []
    for op, chunk in sorted(removals, key=lambda removal: removal[0].first):
        if not merged or op.first > merged[-1][1] + 1:
            merged.append((op.first, op.last, chunk))
        elif op.last > merged[-1][1]:
            merged[-1] = (merged[-1][0], op.last, chunk)
    return [chunk for first, last, chunk in merged if first >= n_lines or last >= n_lines]


class _StrictEdit(_Edit):
    """Every call acts on the lines of its own chunk; a chunk over its error budget stays as it was."""

    def run(self, chunk_programs: Sequence[ChunkProgram], max_errors: int) -> None:
        for chunk, chunk_program in enumerate(chunk_programs):
            program = parse_program(chunk_program.output, "strict")
            first = max(0, chunk_program.first_line)
            last = min(len(self.lines) - 1, chunk_program.last_line)
            rejected = program.diagnostics.n_errors >= max_errors
            self.programs.append(program)
            self.errors.append(program.diagnostics.n_errors)
            if not rejected and first <= last:
                rejected = not self._run_chunk(chunk, program, first, last, max_errors)
            self.rejected.append(rejected)

    def _run_chunk(self, chunk: int, program: Program, first: int, last: int, max_errors: int) -> bool:
        """Runs one program; returns False, with the chunk as it was, where refused calls exceed the budget."""
        part, n_operations = "\n".join(self.lines[first : last + 1]), len(self.operations)
        most = _most(part)
        for op in program.ops:
            if isinstance(op, Normalize) and len("".join(op.source.split())) < MIN_SOURCE:
                self.tiny += 1
            elif isinstance(op, Normalize):
                part = self.normalize(chunk, op, part, range(first, last + 1), most)
        if self.errors[chunk] >= max_errors:
            del self.operations[n_operations:]
            return False
        self.lines[first : last + 1] = part.split("\n")
        for op in program.ops:
            if isinstance(op, RemoveAll):
                self.remove(chunk, first, last, "remove_all")
            elif isinstance(op, RemoveLines):
                self.remove(chunk, max(first, op.first), min(last, op.last), "remove_lines")
        return True


def _pass_gates(
    text: str, edit: _Edit, chunk_programs: Sequence[ChunkProgram], settings: ExecutionSettings
) -> ExecutionResult:
    """Returns the result behind the gates, in the official order: removed share, words, errors and kept share."""
    edited = edit.text()
    before, after = len(text.split()), len(edited.split())
    share = after / before if before else 0.0
    # strict mode has put rejected chunks back before this point, so its errors cannot void the document
    void = settings.mode == "compat" and sum(edit.errors) >= settings.max_errors
    result = ExecutionResult(
        text=edited,
        reason=EDITED,
        operations=tuple(edit.operations),
        chunks=_chunk_results(edit, chunk_programs),
        n_calls=sum(len(program.ops) for program in edit.programs),
        n_errors=sum(edit.errors),
        n_normalizes=sum(op.op == "normalize" for op in edit.operations),
        n_normalize_misses=sum(op.op == "normalize" and not op.n_applied for op in edit.operations),
        n_tiny_sources=edit.tiny,
        n_truncated=sum(program.diagnostics.truncated for program in edit.programs),
        n_words_before=before,
        n_words_after=after,
    )
    if before and share <= 1 - settings.max_removed and not void:
        return replace(result, text="", reason=DROPPED_RATIO)
    if after <= settings.min_words:
        return replace(result, text="", reason=DROPPED_MIN_WORDS)
    if void:
        return replace(result, text=text, reason=REJECTED_ERRORS, operations=())
    if share < settings.min_kept:
        return replace(result, text=text, reason=REJECTED_RATIO, operations=())
    if edited == text:
        return replace(result, text=text, reason=_unchanged_reason([chunk.reason for chunk in result.chunks]))
    return result


def _unchanged_reason(reasons: list[str]) -> str:
    """Returns why a document stayed as it is: what all its chunks say, else a rejection, else ``kept``."""
    if len(set(reasons)) == 1 and reasons[0] != EDITED:
        return reasons[0]
    return REJECTED_ERRORS if REJECTED_ERRORS in reasons else KEPT


def _chunk_results(edit: _Edit, chunk_programs: Sequence[ChunkProgram]) -> tuple[ChunkResult, ...]:
    applied: dict[int, list[int]] = {}
    for operation in edit.operations:
        applied.setdefault(operation.chunk, []).append(operation.n_applied)
    return tuple(
        ChunkResult(
            reason=REJECTED_ERRORS if rejected else _chunk_reason(chunk, program, applied.get(index, [])),
            n_errors=errors,
            truncated=program.diagnostics.truncated,
        )
        for index, (chunk, program, errors, rejected) in enumerate(
            zip(chunk_programs, edit.programs, edit.errors, edit.rejected, strict=True)
        )
    )


def _chunk_reason(chunk: ChunkProgram, program: Program, applied: list[int]) -> str:
    """Returns the reason code of a chunk that was not rejected."""
    if chunk.reason:
        return chunk.reason
    if not chunk.output.strip():
        return EMPTY_OUTPUT
    if any(applied):
        return EDITED
    if program.diagnostics.truncated and not program.ops:
        return TRUNCATED
    normalizes = [op for op in program.ops if isinstance(op, Normalize)]
    if normalizes:
        return NORMALIZE_MISS if applied else NORMALIZE_TINY_SOURCE
    return KEPT if program.ops or program.diagnostics.n_errors else UNPARSED
