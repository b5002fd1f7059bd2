"""Answers of teachers on disk: append-only JSON lines, each written the moment its answer is there.

One file per shard, one writer at a time. A killed writer leaves at most one unfinished last line, which is skipped, so
that its question is asked again; everything above it is never asked twice. Failures for good are rows too.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from corpusmill.errors import PermanentDataError


@dataclass(frozen=True)
class StoredAnswer:
    """One answer, or the reason why there is none.

    Attributes:
        key: `Request.key` of the question.
        teacher: Name and version of who answered.
        prompt_version: Version of the question's text.
        doc_id: The document asked about.
        part: Which of the route's questions.
        text: The answer, "" where there is none.
        finish_reason: ``stop``, or ``length`` where the answer was cut.
        n_prompt_tokens: As the teacher counted.
        n_completion_tokens: As the teacher counted.
        error: Why there is no answer, "" where there is one.
    """

    key: str
    teacher: str
    prompt_version: str
    doc_id: str
    part: str
    text: str = ""
    finish_reason: str = ""
    n_prompt_tokens: int = 0
    n_completion_tokens: int = 0
    error: str = ""


class Answers:
    """Answers by key, read from stores; a later row of the same key replaces an earlier one."""

    def __init__(self, rows: Iterable[StoredAnswer] = ()) -> None:
        self._rows = {row.key: row for row in rows}
        self.teachers = sorted({row.teacher for row in self._rows.values()})

    def get(self, key: str) -> StoredAnswer | None:
        """Returns the answer to a question, None where it was not asked."""
        return self._rows.get(key)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[StoredAnswer]:
        return iter(self._rows.values())


def read_answers(paths: Iterable[Path]) -> Answers:
    """Returns the answers of all stores together.

    Raises:
        PermanentDataError: A store cannot be read.
    """
    return Answers(row for path in paths for row in _rows(path))


class AnswerStore:
    """A store open for appending; a context manager.

    Attributes:
        path: Its file on a local disk; made where there is none.
        n_damaged: Lines that are no answers, for instance the last one of a killed writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        rows = [_parsed(line) for line in _lines(path)]
        self._rows = {row.key: row for row in rows if row is not None}
        self.n_damaged = rows.count(None)
        if not _ends_line(path):
            os.write(self._descriptor, b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; what was appended is on the disk."""
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def get(self, key: str) -> StoredAnswer | None:
        """Returns the answer to a question, None where it was not asked."""
        return self._rows.get(key)

    def append(self, row: StoredAnswer) -> None:
        """Adds an answer; it outlives this process from here on."""
        data = memoryview((json.dumps(asdict(row), ensure_ascii=True) + "\n").encode())
        while data:
            data = data[os.write(self._descriptor, data) :]
        self._rows[row.key] = row

    def answers(self) -> Answers:
        """Returns what the store holds now."""
        return Answers(self._rows.values())


def _rows(path: Path) -> Iterator[StoredAnswer]:
    for line in _lines(path):
        row = _parsed(line)
        if row is not None:
            yield row


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise PermanentDataError(f"answer store {path} cannot be read: {error}; expected JSON lines") from error


def _parsed(line: bytes) -> StoredAnswer | None:
    try:
        values = json.loads(line)
        return StoredAnswer(**values) if isinstance(values, Mapping) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
        return size == 0 or file.read(1) == b"\n"
