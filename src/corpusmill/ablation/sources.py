"""Where the text of an ablation comes from: files, the texts of the package, a lakehouse table."""

import glob
import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corpusmill.ablation.config import BUNDLED_TEXTS, PoolConfig
from corpusmill.ablation.noise import Document
from corpusmill.errors import ConfigError, PermanentDataError


def pool_documents(pool: PoolConfig) -> list[Document]:
    """Returns the documents of a pool's files or table, in a fixed order.

    Raises:
        ConfigError: A pattern names no file, or the table has no such partition.
        PermanentDataError: A file cannot be read, or there is no text in any.
    """
    documents = _of_table(pool) if pool.table else read_texts(pool.files)
    if not documents:
        raise PermanentDataError(f"{pool.table or list(pool.files)!r} holds no document with text; give more")
    return documents


def source_content(pool: PoolConfig) -> dict[str, Any]:
    """Returns what identifies the content of a pool: digests of its files, or commit keys of its table.

    Raises:
        ConfigError: A pattern names no file, or the table has no such partition.
    """
    content: dict[str, Any] = {"clean": file_digests(pool.clean_files)}
    if not pool.table:
        return {**content, "files": file_digests(pool.files)}
    table, partitions = _partitions(pool)
    return {**content, "table": {table.partition_path(p): table.partition_key(p) for p in partitions}}


def file_digests(patterns: Sequence[str]) -> dict[str, str]:
    """Returns the sha256 of every file that the patterns name, by file name."""
    from corpusmill.runner.building.plan import file_sha256

    return {name: "" if name == BUNDLED_TEXTS else file_sha256(Path(name)) for name in matching(patterns)}


def matching(patterns: Iterable[str]) -> list[str]:
    """Returns the files that the patterns name, sorted; bundled names stay as they are.

    Raises:
        ConfigError: A pattern names no file.
    """
    found: set[str] = set()
    for pattern in patterns:
        names = [pattern] if pattern == BUNDLED_TEXTS else [n for n in glob.glob(pattern) if Path(n).is_file()]
        if not names:
            raise ConfigError(f"{pattern!r} names no file; expected .parquet, .jsonl or WikiText .txt, perhaps .gz")
        found.update(names)
    return sorted(found)


def read_texts(patterns: Sequence[str]) -> list[Document]:
    """Returns the documents of files, those without text left out; ids are unique over all files."""
    documents: list[Document] = []
    for name in matching(patterns):
        documents += _bundled() if name == BUNDLED_TEXTS else _of_file(Path(name))
    return [document for document in documents if document.text.strip()]


def _of_file(path: Path) -> list[Document]:
    if path.name.removesuffix(".gz").endswith(".txt"):
        from corpusmill.pruning.demo_reference import wikitext_articles

        try:
            with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open("rt") as stream:
                articles = wikitext_articles(stream.read())
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise PermanentDataError(f"{str(path)!r} is not a WikiText file: {error}") from error
        return [Document(f"{path.name}/{title}", text) for title, text in articles.items()]
    from corpusmill.runner.local_files import read_documents

    table = read_documents(path)
    return [_document(f"{path.name}/{row['doc_id']}", row) for row in table.to_pylist()]


def _document(doc_id: str, row: Mapping[str, Any]) -> Document:
    from corpusmill.runner.building.sampling import registered_domain

    domain = row.get("domain") or registered_domain(row.get("url") or "")
    return Document(doc_id, row["text"] or "", language=row.get("language") or None, domain=domain or None)


def _bundled() -> list[Document]:
    """Returns the long English texts of the demo crawls; of each news event one wording, for the others repeat it."""
    from corpusmill.demo import written_texts

    texts = [*written_texts.articles(), *written_texts.recipes(), *written_texts.threads(), *written_texts.products()]
    texts += written_texts.news()[:: len(written_texts.TOWNS)]
    return [
        Document(f"bundled/{text.key}", "\n".join(block for _, block in text.blocks), language="en") for text in texts
    ]


def _partitions(pool: PoolConfig) -> tuple[Any, list[dict[str, str]]]:
    from corpusmill.runner.open_lakehouse import open_lakehouse

    table = open_lakehouse().table(str(pool.table))
    wanted = [dict(p) for p in table.partitions() if pool.partition in (None, p.get("crawl"))]
    if not wanted:
        known = sorted(str(p.get("crawl")) for p in table.partitions())[-10:]
        raise ConfigError(f"pool.table={pool.table!r} has no rows of partition={pool.partition!r}; it has {known}")
    return table, wanted


def _of_table(pool: PoolConfig) -> list[Document]:
    table, partitions = _partitions(pool)
    documents: list[Document] = []
    wanted = ("doc_id", "text", "kept", "url", "domain", "language")
    columns = [name for name in wanted if name in table.spec.schema.names]
    for partition in partitions:
        rows = table.scan(partition, columns)
        if "kept" in rows.column_names:
            rows = rows.filter(rows.column("kept"))
        found = (_document(row["doc_id"], row) for row in rows.to_pylist())
        documents += [document for document in found if document.text.strip()]
    return sorted(documents, key=lambda document: document.doc_id)
