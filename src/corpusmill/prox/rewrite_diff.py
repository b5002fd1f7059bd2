"""Turns a teacher's rewrite of a page into deletions: lines first, then tokens inside the lines that differ.

Source: RefineX (arXiv 2507.03253): an end-to-end rewrite, a minimal diff, and of it only the deletions. Time is bounded
by the alignment's budget; a rewrite much longer than its page is not compared at all.
"""

import re

from corpusmill.prox.annotation_config import SynthesisConfig
from corpusmill.prox.annotation_prompts import page_markers
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.line_edits import LineEdits, RejectedError, Spans, ranges
from corpusmill.prox.sequence_alignment import align

MAX_ANSWER_FACTOR, MAX_ANSWER_EXTRA = 1.2, 400
"""A rewrite longer than this factor of its page and so many characters more was not made by deleting."""
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
"""Scripts without blanks between words: each character is a token."""
_TOKEN = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")


def edits_of_rewrite(window: Chunk, answer: str, config: SynthesisConfig) -> LineEdits:
    """Returns the deletions that lead from a window to its rewrite: whole lines first, then tokens of the others.

    Blanks are not compared. Tokens of the teacher's own are ignored up to ``max_inserted_share`` of the rewrite, and
    the lines around them are unsure.

    Raises:
        RejectedError: ``no_rewrite``, ``answer_too_long``, ``inserts_text`` or ``tiny_edit``.
    """
    page = "\n".join(window.lines)
    rewrite = _between_markers(page, answer)
    if len(rewrite) > MAX_ANSWER_FACTOR * len(page) + MAX_ANSWER_EXTRA:
        raise RejectedError("answer_too_long", f"a rewrite of {len(rewrite)} characters for {len(page)}")
    diff = _Diff(window, rewrite.split("\n"), whole_lines_first=True)
    if diff.n_inserted:  # a line that was cut may equal another one: then only tokens tell
        diff = min(diff, _Diff(window, rewrite.split("\n"), whole_lines_first=False), key=lambda d: d.n_inserted)
    if diff.n_inserted > config.max_inserted_share * max(1, diff.n_rewrite_tokens):
        raise RejectedError(
            "inserts_text", f"{diff.n_inserted} of {diff.n_rewrite_tokens} tokens of the rewrite are not on the page"
        )
    edits = diff.edits()
    if 0 < edits.n_removed_characters < config.min_removed_characters:
        raise RejectedError("tiny_edit", f"only {edits.n_removed_characters} characters are deleted")
    return edits


def _between_markers(page: str, answer: str) -> str:
    begin, end = page_markers(page)
    start, stop = answer.find(begin), answer.rfind(end)
    if start < 0 or stop < start:
        raise RejectedError("no_rewrite", f"the answer {answer[:100]!r} does not stand between its marker lines")
    return answer[start + len(begin) : stop].strip("\n")


class _Diff:
    """What a rewrite keeps of a window: each line's tokens that were found again."""

    def __init__(self, window: Chunk, rewrite: list[str], *, whole_lines_first: bool) -> None:
        self.window = window
        self.tokens = [list(_TOKEN.finditer(line)) for line in window.lines]
        self.found: list[set[int]] = [set() for _ in window.lines]
        self.around_insertions: set[int] = set()
        self.n_inserted = 0
        rows = [row for row, tokens in enumerate(self.tokens) if tokens]
        theirs = [tokens for line in rewrite if (tokens := _TOKEN.findall(line))]
        self.n_rewrite_tokens = sum(map(len, theirs))
        ours = [tuple(token[0] for token in self.tokens[row]) for row in rows]
        pairs = align(ours, [tuple(tokens) for tokens in theirs], most_matches=True) if whole_lines_first else []
        before = (-1, -1)
        for i, j in [*pairs, (len(rows), len(theirs))]:
            self._compare(rows[before[0] + 1 : i], theirs[before[1] + 1 : j])
            if i < len(rows):
                self.found[rows[i]] = set(range(len(ours[i])))
            before = (i, j)

    def _compare(self, rows: list[int], theirs: list[list[str]]) -> None:
        """Compares lines without an equal in the rewrite, token by token, with what the rewrite has in their place."""
        said = [token for tokens in theirs for token in tokens]
        places = [(row, k) for row in rows for k in range(len(self.tokens[row]))]
        pairs = align([self.tokens[row][k][0] for row, k in places], said, most_matches=True)
        for i, _ in pairs:
            row, k = places[i]
            self.found[row].add(k)
        if len(pairs) < len(said):
            self.n_inserted += len(said) - len(pairs)
            self.around_insertions.update(self._beside(rows, places, pairs, len(said)))

    def _beside(
        self, rows: list[int], places: list[tuple[int, int]], pairs: list[tuple[int, int]], n_said: int
    ) -> set[int]:
        """Returns the rows of the tokens in front of and behind each insertion; all rows where nothing was found."""
        if not pairs:
            return set(rows)
        beside = set()
        for (i, j), (after_i, after_j) in zip([(-1, -1), *pairs], [*pairs, (len(places), n_said)], strict=True):
            if after_j > j + 1:
                beside |= {places[k][0] for k in (max(i, 0), min(after_i, len(places) - 1))}
        return beside

    def edits(self) -> LineEdits:
        """Returns the lines and spans that the rewrite left out."""
        first = self.window.first_line
        removed, deletions = set(), {}
        for row, tokens in enumerate(self.tokens):
            if row in self.around_insertions or len(self.found[row]) == len(tokens):
                continue
            if not self.found[row]:
                removed.add(first + row)
            else:
                deletions[first + row] = self._spans(row)
        unsure = frozenset(first + row for row in self.around_insertions)
        return LineEdits(first, self.window.lines, frozenset(removed), deletions, unsure)

    def _spans(self, row: int) -> Spans:
        """Returns the runs of lost tokens with the blanks inside them, and the blank that would be doubled or left."""
        tokens, line = self.tokens[row], self.window.lines[row]
        lost = frozenset(range(len(tokens))) - self.found[row]
        spans = []
        for first, last in ranges(lost):
            start, end = tokens[first].start(), tokens[last].end()
            after = tokens[last + 1].start() if last + 1 < len(tokens) else len(line)
            before = tokens[first - 1].end() if first else 0
            if end < after:
                end = after if first == 0 or before < start else end
            elif last + 1 == len(tokens):
                start = before
            spans.append((start, end))
        return tuple(spans)
