"""All rules of a batch of texts by kernels; what the Python definitions measure, bit for bit."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.errors import DataError
from corpusmill.rules.c4 import LineRules
from corpusmill.rules.compiled.byte_hashing import Bytes
from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
from corpusmill.rules.compiled.document_scan import NEEDED, scan
from corpusmill.rules.compiled.fineweb_kernel import FINEWEB_MEASURES, measure_fineweb
from corpusmill.rules.compiled.gopher_kernels import (
    QUALITY_MEASURES,
    REPETITION_MEASURES,
    count_documents,
    measure_quality,
    measure_repetition,
)
from corpusmill.rules.compiled.lexicon_arrays import MOST_SPLIT_BYTES
from corpusmill.rules.compiled.line_rewriting import (
    C4_MEASURES,
    LINE_FIRST_CHUNK,
    LINE_START,
    LINE_STOP,
    LineSettings,
    NewTexts,
    rewrite_texts,
)
from corpusmill.rules.compiled.phrase_automaton import make_phrases
from corpusmill.rules.compiled.sentence_count import count_sentences
from corpusmill.rules.compiled.string_buffers import Longs, Strings, string_buffers, text_groups
from corpusmill.rules.compiled.workspace import KEPT_SLOTS, LAST_EPOCH, Workspace, make_workspace
from corpusmill.rules.english_tokens import EnglishTokenizer
from corpusmill.rules.punctuation import TERMINAL_PUNCTUATION

MAX_TEXT_BYTES = 1 << 30
"""Longer texts go to the Python definitions."""

Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredTexts:
    """What the kernels found on some texts.

    Attributes:
        names: Measures, in the order of the columns.
        values: Their values, NaN for null, (texts, names).
        data: UTF-8 of the texts as the last rule set saw them.
        starts: First byte of each text in it, (texts,).
        stops: Behind the last byte of each text, (texts,).
        usable: False where the Python definitions must measure the text, (texts,).
    """

    names: tuple[str, ...]
    values: Values
    data: Bytes
    starts: Longs
    stops: Longs
    usable: npt.NDArray[np.bool_]

    def text(self, i: int) -> str:
        """Returns a text as the last rule set saw it: C4 may have rewritten it."""
        return self.data[self.starts[i] : self.stops[i]].tobytes().decode()

    def measures(self, i: int) -> dict[str, float | None]:
        """Returns the measures of a text by name."""
        row = self.values[i].tolist()
        return {name: value if value == value else None for name, value in zip(self.names, row, strict=True)}


@dataclass
class _Scanned:
    """Chunks of a group's texts."""

    first: Numbers
    starts: Numbers
    numbers: Numbers


class CompiledRules:
    """Gopher's, C4's and FineWeb's measures by kernels; one per process.

    Gopher's rules see the text as it is, FineWeb's see what C4 makes of it where C4 is asked for.

    Args:
        rule_sets: Which of ``gopher_repetition``, ``gopher_quality``, ``c4`` and ``fineweb`` to measure.
        lines: C4's line rules; needed for ``c4``.
        lexicon: Whose chunks to start from; None: an empty one.
    """

    def __init__(
        self, rule_sets: Collection[str], lines: LineRules | None, lexicon: ChunkLexicon | None = None
    ) -> None:
        self.lexicon = lexicon or ChunkLexicon(EnglishTokenizer())
        self._rule_sets = frozenset(rule_sets)
        self._settings = None if lines is None else _line_settings(lines)
        self._terminal = np.array(sorted(map(ord, TERMINAL_PUNCTUATION)), dtype=np.int32)
        self._workspace: Workspace = make_workspace(0, 0)

    def measure(self, texts: Strings, english: Sequence[bool] | None = None) -> Iterator[MeasuredTexts]:
        """Yields the measures of consecutive groups of texts.

        Args:
            texts: Strings without nulls.
            english: Whether the measures on English words are wanted and C4 rewrites, a text; None: for all.

        Raises:
            DataError: The texts are not valid UTF-8 or have nulls.
        """
        if texts.null_count:
            raise DataError(f"texts: {texts.null_count} of {len(texts)} are null; expected strings")
        data, offsets = string_buffers(texts)
        wanted = np.ones(len(texts), dtype=np.uint8) if english is None else np.array(english, dtype=np.uint8)
        for first, stop in text_groups(offsets):
            begin, end = int(offsets[first]), int(offsets[stop])
            group = data[begin:end]
            bounds = offsets[first : stop + 1] - begin
            yield self._measure_group(group, bounds[:-1].copy(), bounds[1:].copy(), wanted[first:stop].copy())
            self.lexicon.shrink_if_full()

    def _measure_group(self, data: Bytes, starts: Longs, stops: Longs, english: Flags) -> MeasuredTexts:
        n = len(starts)
        if len(data) > MAX_TEXT_BYTES:
            return MeasuredTexts((), np.zeros((n, 0)), data, starts, stops, np.zeros(n, dtype=np.bool_))
        # texts in other languages need no words: their bytes are not scanned
        scanned = self._scan(data, starts, np.where(english, stops, starts))
        n_words, n_lines, unusable = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.uint8)
        count_documents(
            data, starts, stops, self.lexicon.arrays, scanned.first, scanned.numbers, n_words, n_lines, unusable
        )
        self._make_room(n_words, n_lines)
        columns: dict[tuple[str, ...], Values] = {}
        if "gopher_repetition" in self._rule_sets:
            columns[REPETITION_MEASURES] = self._repetition(data, starts, stops, scanned, english)
        if "gopher_quality" in self._rule_sets:
            columns[QUALITY_MEASURES] = values = _nulls(n, QUALITY_MEASURES)
            measure_quality(data, starts, stops, self.lexicon.arrays, scanned.first, scanned.numbers, english, values)
        if "c4" in self._rule_sets:
            columns[C4_MEASURES] = values = _nulls(n, C4_MEASURES)
            data, starts, stops, n_words = self._rewrite(
                data, starts, stops, scanned, english, int(n_lines.sum()) + n, n_words, unusable, values
            )
        if "fineweb" in self._rule_sets:
            columns[FINEWEB_MEASURES] = values = _nulls(n, FINEWEB_MEASURES)
            measure_fineweb(
                data,
                starts,
                stops,
                n_words,
                english,
                self.lexicon.arrays,
                self._terminal,
                self._workspace,
                values,
            )
        self._keep_small_workspace()
        names = tuple(name for group in columns for name in group)
        values = np.concatenate([*columns.values(), np.zeros((n, 0))], axis=1)
        return MeasuredTexts(names, values, data, starts, stops, unusable == 0)

    def _scan(self, data: Bytes, starts: Longs, stops: Longs) -> _Scanned:
        """Returns the chunks of texts, all of them known to the lexicon."""
        room = int((stops - starts).sum()) // 2 + len(starts) + 1
        found = _Scanned(
            np.zeros(len(starts) + 1, np.int32), np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
        )
        cursor = np.zeros(4, dtype=np.int64)
        known = self.lexicon.n_chunks
        while not scan(data, starts, stops, self.lexicon.arrays, cursor, found.first, found.starts, found.numbers):
            self.lexicon.grow(int(cursor[NEEDED]), 1, MOST_SPLIT_BYTES, MOST_SPLIT_BYTES)
        self.lexicon.resolve(known)
        return found

    def _make_room(self, n_words: Numbers, n_lines: Numbers) -> None:
        """Makes the workspace large enough for every text."""
        words, pieces = int(n_words.max(initial=0)), int(n_lines.max(initial=0)) + 1
        workspace = self._workspace
        if max(words, pieces) > len(workspace.words) or workspace.epoch[0] > LAST_EPOCH:
            self._workspace = make_workspace(words, pieces)

    def _keep_small_workspace(self) -> None:
        """Lets go of the room for a huge text."""
        if len(self._workspace.table) > KEPT_SLOTS:
            self._workspace = make_workspace(0, 0)

    def _repetition(self, data: Bytes, starts: Longs, stops: Longs, scanned: _Scanned, english: Flags) -> Values:
        values = _nulls(len(starts), REPETITION_MEASURES)
        measure_repetition(
            data,
            starts,
            stops,
            self.lexicon.arrays,
            scanned.first,
            scanned.numbers,
            english,
            self._workspace,
            values,
        )
        return values

    def _rewrite(
        self,
        data: Bytes,
        starts: Longs,
        stops: Longs,
        scanned: _Scanned,
        english: Flags,
        most_lines: int,
        n_words: Numbers,
        unusable: Flags,
        values: Values,
    ) -> tuple[Bytes, Longs, Longs, Numbers]:
        """Rewrites texts as C4 does; returns the new ones with their numbers of words."""
        assert self._settings is not None, "C4's rules need line rules"
        new = NewTexts(
            data=np.empty(len(data) + len(starts) + 1, dtype=np.uint8),
            starts=np.zeros_like(starts),
            stops=np.zeros_like(stops),
            lines=np.empty((most_lines, 5), dtype=np.int32),
            n_lines=np.zeros(2, dtype=np.int64),
        )
        arrays = self.lexicon.arrays
        rewrite_texts(
            data,
            starts,
            stops,
            arrays,
            scanned.first,
            scanned.starts,
            scanned.numbers,
            english,
            self._settings,
            new,
            values,
        )
        lines = new.lines[: int(new.n_lines[0])]
        changed = lines[lines[:, LINE_FIRST_CHUNK] < 0].astype(np.int64)
        rescanned = self._scan(new.data, changed[:, LINE_START].copy(), changed[:, LINE_STOP].copy())
        new_words = np.where(english, 0, n_words).astype(np.int32)
        count_sentences(
            lines,
            data,
            scanned.starts,
            scanned.numbers,
            new.data,
            rescanned.first,
            rescanned.starts,
            rescanned.numbers,
            self.lexicon.arrays,
            new_words,
            unusable,
            values,
        )
        return new.data, new.starts, new.stops, new_words


def _nulls(n: int, names: tuple[str, ...]) -> Values:
    return np.full((n, len(names)), np.nan)


def _line_settings(lines: LineRules) -> LineSettings:
    switches = (lines.remove_citations, lines.need_end_punctuation, lines.remove_javascript, lines.remove_policy)
    limits = [np.nan if limit is None else limit for limit in (lines.max_word_length, lines.min_words)]
    digits = [point for point in range(128, sys.maxunicode + 1) if chr(point).isdecimal()]
    return LineSettings(
        np.array(switches, dtype=np.uint8),
        np.array(limits, dtype=np.float64),
        np.array(digits, dtype=np.int32),
        make_phrases(),
    )
