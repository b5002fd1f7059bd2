"""Texts of candidate documents in a scratch file, so that memory does not grow with their number."""

import mmap
import tempfile
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.dedup.index import Numbers
from corpusmill.dedup.minhash import Strings
from corpusmill.errors import DataError


class ScratchTexts:
    """Texts of some of a crawl's documents, by number; a context manager that deletes its file."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int]] = {}
        self._file = tempfile.TemporaryFile(prefix="corpusmill-texts-")  # noqa: SIM115 - closed with this object
        self._end = 0

    def __enter__(self) -> "ScratchTexts":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def missing(self, documents: Numbers) -> Numbers:
        """Returns which of the documents have no text here, sorted and without repeats."""
        numbers = np.unique(documents)
        return numbers[[number not in self._places for number in numbers.tolist()]]

    def add(self, wanted: Numbers, doc_ids: Strings, batches: Iterable[tuple[Column, Column]]) -> None:
        """Takes the texts of documents.

        Args:
            wanted: Numbers of the documents, (n,).
            doc_ids: Their ids, (n,).
            batches: Ids and texts, of these and perhaps of other documents, which are left out.

        Raises:
            DataError: A document's text was not among them.
        """
        for ids, texts in batches:
            rows = pc.index_in(ids, value_set=doc_ids)
            inside = rows.is_valid()
            for row, text in zip(rows.filter(inside).to_pylist(), texts.filter(inside).to_pylist(), strict=True):
                data = str(text).encode()
                self._file.write(data)
                self._places[int(wanted[row])] = (self._end, len(data))
                self._end += len(data)
        self._file.flush()
        if len(absent := self.missing(wanted)):
            doc_id = doc_ids[int(np.searchsorted(wanted, absent[0]))].as_py()
            raise DataError(
                f"{len(absent)} documents of a deduplication index have no text, the first is {doc_id!r}: the index is "
                "not one of these documents; rebuild it"
            )

    def sizes(self, documents: Numbers) -> Numbers:
        """Returns the bytes of each document's text, (n,)."""
        return np.array([self._places[number][1] for number in documents.tolist()], dtype=np.int64)

    def read(self, documents: Numbers) -> Strings:
        """Returns the texts of documents that were added, large_string, (n,)."""
        if not self._end:
            return pa.array([""] * len(documents), pa.large_string())
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            places = (self._places[number] for number in documents.tolist())
            return pa.array([data[start : start + size].decode() for start, size in places], pa.large_string())
