"""The pool of an ablation: split, cut, mixed with noise, and cut in the units that are selected.

Everything is a pure function of settings and content and is written once, so that tasks on any worker, and after any
kill, see the same bytes.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.ablation.config import PoolConfig
from corpusmill.ablation.noise import CLEAN, Document, with_noise
from corpusmill.ablation.sources import pool_documents, read_texts
from corpusmill.errors import PermanentDataError
from corpusmill.pruning.reference_tokenizer import train_tokenizer
from corpusmill.schema import required

DOCUMENTS = pa.schema(
    [
        pa.field("doc_id", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("kinds", pa.list_(pa.string())),
        pa.field("language", pa.string()),
        pa.field("domain", pa.string()),
    ]
)
UNITS = pa.schema(
    [
        required("unit_id", pa.string()),
        required("text", pa.large_string()),
        pa.field("clean_bytes", pa.int64()),
        pa.field("language", pa.string()),
        pa.field("domain", pa.string()),
    ]
)
PARTS = ("pool", "reference", "clean", "test_crawl", "test_clean")
"""Parts of a prepared pool: what arms choose from, what references learn from (as crawled, and clean), the tests."""


@dataclass(frozen=True)
class Unit:
    """What a selection keeps or drops.

    Attributes:
        unit_id: Id; the hash of it breaks ties.
        text: Its text.
        clean_bytes: UTF-8 bytes of it that come from clean text; None where nobody knows.
        language: Language of the document that most of it is from (the first of equals); None where that has none.
        domain: The same for the registered domain.
    """

    unit_id: str
    text: str
    clean_bytes: int | None
    language: str | None = None
    domain: str | None = None


def split_pool(config: PoolConfig) -> dict[str, list[Document]]:
    """Returns the documents of each part; parts share no source document.

    Raises:
        PermanentDataError: There are too few documents for every part to have one.
    """
    ordered = sorted(pool_documents(config), key=lambda d: (_place(config.seed, d.doc_id), d.doc_id))
    ordered = ordered[: config.max_documents]
    n_test = max(round(len(ordered) * config.test_share), 1)
    n_reference = round(len(ordered) * config.reference_share)
    if len(ordered) - n_test - n_reference < 1:
        raise PermanentDataError(
            f"{len(ordered)} documents give {n_test} for tests and {n_reference} for references: none are left to "
            "choose from; give more documents or smaller shares"
        )
    test, reference, pool = (
        _cut(part, config.document_chars)
        for part in (ordered[:n_test], ordered[n_test : n_test + n_reference], ordered[n_test + n_reference :])
    )
    clean_reference, clean_test = _clean_parts(config, reference, test)
    mixed = {"pool": pool, "reference": reference, "test_crawl": test}
    if config.noise is not None:
        mixed = {name: with_noise(documents, config.noise) for name, documents in mixed.items()}
    return {**mixed, "clean": clean_reference, "test_clean": clean_test}


def _clean_parts(
    config: PoolConfig, reference: list[Document], test: list[Document]
) -> tuple[list[Document], list[Document]]:
    if config.clean_files:
        ordered = sorted(read_texts(config.clean_files), key=lambda d: (_place(config.seed, d.doc_id), d.doc_id))
        n_test = max(round(len(ordered) * config.test_share), 1)
        return _cut(ordered[n_test:], config.document_chars), _cut(ordered[:n_test], config.document_chars)
    return (reference, test) if config.noise is not None else ([], [])


def _place(seed: int, doc_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{doc_id}".encode(), digest_size=8).digest(), "big")


def _cut(documents: Iterable[Document], size: int) -> list[Document]:
    """Returns documents of about ``size`` characters, cut at line ends."""
    out: list[Document] = []
    for document in documents:
        piece: list[str] = []
        n = 0
        for line in document.text.split("\n"):
            if n and n + len(line) > size:
                out.append(replace(document, doc_id=f"{document.doc_id}#{len(out)}", text="\n".join(piece)))
                piece, n = [], 0
            piece.append(line)
            n += len(line) + 1
        out.append(replace(document, doc_id=f"{document.doc_id}#{len(out)}", text="\n".join(piece)))
    return [document for document in out if document.text.strip()]


def units_of(documents: Sequence[Document], config: PoolConfig) -> list[Unit]:
    """Returns what selections choose from; passages that would be shorter than the others are left out (one at most).

    Raises:
        PermanentDataError: The text does not fill one passage.
    """
    if config.unit == "document":
        return [Unit(d.doc_id, d.text, clean_bytes(d.text, d.kinds), d.language, d.domain) for d in documents]
    units: list[Unit] = []
    passage = _Passage()
    for document in documents:
        for piece, kind in _pieces(document, config.passage_bytes):
            passage.add(piece, kind, document)
            if passage.size >= config.passage_bytes:
                units.append(passage.as_unit(f"passage-{len(units):09d}"))
                passage = _Passage()
    if not units:
        raise PermanentDataError(f"the pool holds less than passage_bytes={config.passage_bytes}; give more text")
    return units


class _Passage:
    """A passage while it is filled, with the bytes that each document gives it."""

    def __init__(self) -> None:
        self.size = self.clean = 0
        self.is_known = True
        self._text: list[str] = []
        self._sources: list[tuple[Document, int]] = []

    def add(self, piece: str, kind: str, source: Document) -> None:
        n = len(piece.encode("utf-8", "surrogatepass"))
        self._text.append(piece)
        self.size += n
        self.clean += n if kind == CLEAN else 0
        self.is_known = self.is_known and kind != ""
        if not self._sources or self._sources[-1][0] is not source:
            self._sources.append((source, 0))
        self._sources[-1] = (source, self._sources[-1][1] + n)

    def as_unit(self, unit_id: str) -> Unit:
        main, _ = max(self._sources, key=lambda item: item[1])  # the first of equals
        known = self.clean if self.is_known else None
        return Unit(unit_id, "".join(self._text).strip(), known, main.language, main.domain)


def _pieces(document: Document, longest: int) -> Iterator[tuple[str, str]]:
    """Yields words with the space behind them and their kind, "" where it is not known."""
    lines = document.text.split("\n")
    for line, kind in zip(lines, document.kinds or [""] * len(lines), strict=True):
        for word in re.findall(r"\s*\S+\s*|\s+", line + "\n"):
            for start in range(0, len(word), longest):
                yield word[start : start + longest], kind


def clean_bytes(text: str, kinds: Sequence[str] | None) -> int | None:
    """Returns the bytes of the lines that are clean, None where the kinds are not known."""
    if kinds is None:
        return None
    pairs = zip(text.split("\n"), kinds, strict=True)
    return sum(len(line.encode("utf-8", "surrogatepass")) for line, kind in pairs if kind == CLEAN)


def write_pool(config: PoolConfig, folder: Path) -> None:
    """Writes the parts, the units and the students' tokenizer to a folder; a folder that is whole is left."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    parts = split_pool(config)
    for name, documents in parts.items():
        rows = [vars(document) for document in documents]
        write_table(pa.Table.from_pylist(rows, DOCUMENTS), folder / f"{name}.parquet")
    units = units_of(parts["pool"], config)
    write_table(pa.Table.from_pylist([vars(unit) for unit in units], UNITS), folder / "units.parquet")
    tokenizer = train_tokenizer((d.text for d in parts["pool"]), config.n_vocab)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "done").touch()


def pool_tokenizer(folder: Path) -> Any:
    """Returns the `tokenizers.Tokenizer` of a prepared pool; special tokens that a text spells are text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a Parquet file whole or not at all."""
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(table, scratch)
    os.replace(scratch, path)


def read_part(folder: Path, name: str) -> list[Document]:
    """Returns the documents of one part of a prepared pool."""
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return [Document(**{**row, "kinds": None if row["kinds"] is None else tuple(row["kinds"])}) for row in rows]


def read_units(folder: Path) -> list[Unit]:
    """Returns the units of a prepared pool."""
    return [Unit(**row) for row in pq.read_table(folder / "units.parquet").to_pylist()]


def unit_column(folder: Path, name: str) -> Any:
    """Returns one column of the units of a prepared pool, a chunked array."""
    return pq.read_table(folder / "units.parquet", columns=[name])[name]
