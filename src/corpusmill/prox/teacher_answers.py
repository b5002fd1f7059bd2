"""Reads the scores and programs that teachers wrote. Nothing is evaluated; what does not fit is refused.

Source: arXiv 2409.17115, appendix A.1 (scores and keep rule) and A.2 (three programs, checked and merged).
"""

import re
from collections.abc import Sequence

from corpusmill.prox.chunking import Chunk
from corpusmill.prox.line_edits import LineEdits, RejectedError, Spans, ranges
from corpusmill.prox.program import KeepChunk, Normalize, Program, RemoveAll, RemoveLines
from corpusmill.prox.program_execution import MIN_SOURCE
from corpusmill.prox.program_parser import parse_program

MAX_CALLS = 1000
"""Calls of one program; a teacher that writes more is looping."""

_SCORES = {
    "educational": re.compile(r"Educational\s+score:\W{0,4}(\d+)", re.IGNORECASE),
    "format": re.compile(r"Extraction\s+Quality\s+Score:\W{0,4}(\d+)", re.IGNORECASE),
}
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*$", re.MULTILINE)
_QUOTE = re.compile(r"^[ \t]*#[ \t]*\[(\d{1,6})\](.*)$", re.MULTILINE)
_QUOTED = 12
"""Characters of a quoted line that must agree, blanks apart."""


def parse_score(part: str, answer: str) -> int:
    """Returns the score of an answer, 0 to 5.

    Args:
        part: ``educational`` or ``format``.
        answer: What the teacher wrote.

    Raises:
        RejectedError: ``no_score``, ``ambiguous_score`` (several that differ) or ``score_out_of_range``.
    """
    found = {int(text[:9]) for text in _SCORES[part].findall(answer)}
    if not found:
        raise RejectedError("no_score", f"{part}: the answer {answer[-100:]!r} ends without a score")
    if len(found) > 1:
        raise RejectedError("ambiguous_score", f"{part}: the answer holds the scores {sorted(found)[:5]}")
    score = found.pop()
    if score > 5:
        raise RejectedError("score_out_of_range", f"{part}: {score} is not between 0 and 5")
    return score


def keeps_document(educational: int, layout: int) -> bool:
    """Returns the paper's keep rule: educational score from 3 on, or 2 with a format score of at least 4.

    The paper leaves (2, below 4) unsaid; by elimination it drops.
    """
    return educational >= 3 or (educational == 2 and layout >= 4)


def edits_of_programs(window: Chunk, answers: Sequence[tuple[str, str]]) -> LineEdits:
    """Returns what several programs for the same window do together.

    Removed lines are united; a `normalize` counts on the lines that stay, and so falls away where all its lines go.

    Args:
        window: The lines that the teacher saw.
        answers: Pairs of the question's name and its answer.

    Raises:
        RejectedError: An answer holds no program, several, another call, a malformed or unfinished one, lines outside
            the window, quotes that show shifted numbers, text that is not there, or an insertion.
    """
    removed: set[int] = set()
    normalizes: list[Normalize] = []
    for part, answer in answers:
        code = _fenced(part, answer)
        for op in _checked(part, code, window).ops:
            if isinstance(op, RemoveLines):
                removed.update(range(op.first, op.last + 1))
            elif isinstance(op, Normalize):
                normalizes.append(op)
        _check_quotes(part, code, window)
    deletions = _deletions(window, removed, normalizes)
    return LineEdits(window.first_line, window.lines, frozenset(removed), deletions)


def _fenced(part: str, answer: str) -> str:
    fences = list(_FENCE.finditer(answer))
    blocks = [answer[a.end() : b.start()] for a, b in zip(fences[::2], fences[1::2], strict=False)]
    if len(fences) % 2 or not blocks:
        raise RejectedError("no_program", f"{part}: the answer {answer[:100]!r} holds no closed block of code")
    if len(blocks) > 1:
        raise RejectedError("several_programs", f"{part}: the answer holds {len(blocks)} blocks of code, expected one")
    return blocks[0]


def _checked(part: str, code: str, window: Chunk) -> Program:
    program = parse_program(code, "strict")
    said = program.diagnostics
    if said.n_errors or said.truncated:
        raise RejectedError("malformed_program", f"{part}: {said.n_errors} malformed or unfinished calls in a program")
    if said.n_ignored:
        raise RejectedError("other_calls", f"{part}: {said.n_ignored} lines are neither known calls nor comments")
    if not program.ops or len(program.ops) > MAX_CALLS:
        reason = "too_many_calls" if program.ops else "no_program"
        raise RejectedError(reason, f"{part}: {len(program.ops)} calls, expected 1 to {MAX_CALLS}")
    if len(program.ops) > 1 and any(isinstance(op, KeepChunk) for op in program.ops):
        raise RejectedError("keeps_and_edits", f"{part}: untouch_doc() stands beside other calls")
    for op in program.ops:
        if isinstance(op, RemoveAll):
            raise RejectedError("removes_everything", f"{part}: remove_lines(all=True)")
        if isinstance(op, RemoveLines):
            _check_range(part, op, window)
        elif isinstance(op, Normalize):
            _check_normalize(part, op, window)
        elif not isinstance(op, KeepChunk):
            raise RejectedError("other_calls", f"{part}: {op} is no call of a chunk program")
    return program


def _check_range(part: str, op: RemoveLines, window: Chunk) -> None:
    if not window.first_line <= op.first <= op.last <= window.last_line:
        raise RejectedError(
            "line_out_of_range",
            f"{part}: lines {op.first} to {op.last} leave the window {window.first_line} to {window.last_line}",
        )


def _check_normalize(part: str, op: Normalize, window: Chunk) -> None:
    if len("".join(op.source.split())) < MIN_SOURCE:
        raise RejectedError("tiny_source", f"{part}: {op.source!r} has fewer than {MIN_SOURCE} non-blank characters")
    if not any(op.source in line for line in window.lines):
        raise RejectedError("source_not_found", f"{part}: {op.source[:80]!r} is on no line of the window")
    if op.target not in op.source:
        raise RejectedError("inserts_text", f"{part}: the target {op.target[:80]!r} is no part of its source")


def _check_quotes(part: str, code: str, window: Chunk) -> None:
    """Refuses a program whose comments quote lines under another number: its numbers are not to be trusted."""
    for match in _QUOTE.finditer(code):
        number, quote = int(match[1]), _squeezed(match[2]).rstrip(".\u2026")[:_QUOTED]
        if quote and not _begins(window, number, quote):
            shifted = any(_begins(window, number + by, quote) for by in (-1, 1))
            raise RejectedError(
                "shifted_lines" if shifted else "misquoted_line",
                f"{part}: line {number} is quoted as {match[2].strip()[:40]!r}, which is not what stands there",
            )


def _begins(window: Chunk, number: int, quote: str) -> bool:
    inside = window.first_line <= number <= window.last_line
    return inside and _squeezed(window.lines[number - window.first_line]).startswith(quote)


def _squeezed(text: str) -> str:
    return "".join(text[: 20 * _QUOTED].split())


def _deletions(window: Chunk, removed: set[int], normalizes: Sequence[Normalize]) -> dict[int, Spans]:
    """Returns what the replacements cut out of each line that stays, when they act one after the other."""
    deletions: dict[int, Spans] = {}
    for number, line in enumerate(window.lines, window.first_line):
        if number in removed:
            continue
        places = list(range(len(line)))
        for op in normalizes:
            places = _replaced(line, places, op)
        gone = frozenset(range(len(line))).difference(places)
        if gone:
            deletions[number] = tuple((first, last + 1) for first, last in ranges(gone))
    return deletions


def _replaced(line: str, places: list[int], op: Normalize) -> list[int]:
    """Returns which characters of a line are left after one replacement."""
    text = "".join(line[place] for place in places)
    kept_from = op.source.index(op.target)
    at = text.find(op.source)
    left, end = [], 0
    while at >= 0:
        left += places[end:at] + places[at + kept_from : at + kept_from + len(op.target)]
        end = at + len(op.source)
        at = text.find(op.source, end)
    return left + places[end:] if end else places
