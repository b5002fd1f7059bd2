"""Samples seed documents: from a lakehouse table, from files of JSON lines, or from a crawl with its HTML.

Documents are taken by the lowest hash of (seed, doc_id): the same sample for any order of reading, and a larger sample
holds the smaller one. Memory is bounded by the sample.
"""

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corpusmill.batches import rows_to_table
from corpusmill.build_schema import SEED_DOCUMENTS
from corpusmill.errors import PermanentDataError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.prox.json_lines import read_json_lines
from corpusmill.prox.seed_document import SeedDocument
from corpusmill.refiner_recipe import SeedConfig
from corpusmill.runner.building.plan import SEEDS_TABLE, BuildPlan, seed_files
from corpusmill.runner.plan import resolve_base
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import doc_id_of

Progress = Callable[[str], None]
_ROW = "an object with 'text', or with 'lines' and 'remove'"


def sample_seed(lake: Lakehouse, plan: BuildPlan, progress: Progress) -> dict[str, Any]:
    """Commits the sampled documents of a build and returns their number and the shards; a second run finds them.

    Raises:
        PermanentDataError: Fewer than two documents are long enough, or a file is not in its format.
    """
    seed = plan.parsed().seed
    table = lake.table(SEEDS_TABLE)
    token = plan.token("seed")
    if table.partition_key(plan.partition) != token.key:
        taken = sample(candidates(lake, seed, plan.source, progress), seed)
        if len(taken) < 2:
            raise PermanentDataError(
                f"{plan.source} holds {len(taken)} documents of {seed.min_characters} to {seed.max_characters} "
                "characters; expected at least 2: sample another source, or widen the limits"
            )
        n_shards = min(seed.max_shards, len(taken))
        rows = [_row(plan, f"{i * n_shards // len(taken):05d}", document) for i, document in enumerate(taken)]
        commit_rows(lake, SEEDS_TABLE, plan.partition, rows_to_table(rows, SEED_DOCUMENTS.schema), token)
    shards, n = shards_of(lake, plan), lake.table(SEEDS_TABLE).count(plan.partition)
    progress(f"{n} documents sampled from {plan.source}, in {len(shards)} shards")
    return {"documents": n, "shards": shards, "source": plan.source}


def shards_of(lake: Lakehouse, plan: BuildPlan) -> list[str]:
    """Returns the names of a build's shards."""
    names = lake.table(SEEDS_TABLE).scan(plan.partition, columns=["shard"])["shard"].unique()
    return sorted(str(name) for name in names.to_pylist())


def seed_of_shard(lake: Lakehouse, plan: BuildPlan, shard: str) -> list[SeedDocument]:
    """Returns the documents of one shard, by doc_id."""
    rows = lake.table(SEEDS_TABLE).scan(plan.partition, filter=f"shard == '{shard}'").to_pylist()
    return [_document(row) for row in sorted(rows, key=lambda row: str(row["doc_id"]))]


def sample(documents: Iterator[SeedDocument], seed: SeedConfig) -> list[SeedDocument]:
    """Returns at most ``n_documents`` documents of allowed length, by doc_id; of equal ids the first one is taken."""

    def rank(document: SeedDocument) -> int:
        digest = hashlib.blake2b(f"{seed.seed}\n{document.doc_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest)

    heap: list[tuple[int, int, SeedDocument]] = []
    inside: set[str] = set()
    for number, document in enumerate(documents):
        size = len(document.text or document.html or "")
        if not seed.min_characters <= size <= seed.max_characters or document.doc_id in inside:
            continue
        entry = (-rank(document), -number, document)
        if len(heap) < seed.n_documents:
            heapq.heappush(heap, entry)
        elif entry[0] > heap[0][0]:
            inside.discard(heapq.heapreplace(heap, entry)[2].doc_id)
        else:
            continue
        inside.add(document.doc_id)
    return sorted((document for _, _, document in heap), key=lambda document: document.doc_id)


def candidates(lake: Lakehouse, seed: SeedConfig, source: str, progress: Progress) -> Iterator[SeedDocument]:
    """Yields every document that a recipe could sample."""
    if seed.files:
        return itertools.chain.from_iterable(_file_documents(path, progress) for path in seed_files(seed))
    if seed.crawl:
        return _crawl_documents(seed, progress)
    return _table_documents(lake, seed, source)


def _table_documents(lake: Lakehouse, seed: SeedConfig, source: str) -> Iterator[SeedDocument]:
    table = lake.table(str(seed.table))
    names = table.spec.schema.names
    columns = [c for c in ("doc_id", "text", "url", "kept") if c in names]
    for partition in table.partitions():
        if seed.partition is not None and partition.get("crawl") != seed.partition:
            continue
        files = sorted(map(str, table.scan(partition, columns=["warc_file"])["warc_file"].unique().to_pylist()))
        for _, rows in table.iter_groups(partition, groups=files, columns=columns):
            for row in rows.to_pylist():
                if row.get("kept", True) and row["text"]:
                    domain = registered_domain(row.get("url") or "")
                    yield SeedDocument(doc_id=row["doc_id"], text=row["text"], domain=domain, source=source)


def _file_documents(path: Path, progress: Progress) -> Iterator[SeedDocument]:
    number = 0
    for number, row in read_json_lines(path, _ROW):
        try:
            document = _file_document(path, number, row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PermanentDataError(f"{path} line {number}: {error!r}; expected {_ROW}") from error
        yield document
    progress(f"{number} documents read from {path.name}")


def _file_document(path: Path, number: int, row: dict[str, Any]) -> SeedDocument:
    if "lines" in row:
        return _labelled_document(path, number, row)
    meta = row.get("meta") or row.get("metadata") or {}
    url = row.get("url") or (meta.get("url") if isinstance(meta, dict) else None) or ""
    doc_id = str(row.get("doc_id") or row.get("id") or doc_id_of(None, path.name, number))
    text = row["text"]
    if not isinstance(text, str):
        raise TypeError(f"'text' is {type(text).__name__}")
    return SeedDocument(doc_id=doc_id, text=text, domain=registered_domain(str(url)), source=path.name)


def _labelled_document(path: Path, number: int, row: dict[str, Any]) -> SeedDocument:
    lines, remove, unsure = row["lines"], row["remove"], row.get("unsure", [])
    if not all(isinstance(i, int) and 0 <= i < len(lines) for i in [*remove, *unsure]):
        raise ValueError(f"'remove' or 'unsure' names a line beyond the {len(lines)} of the page")
    return SeedDocument(
        doc_id=str(row.get("doc_id") or doc_id_of(None, path.name, number)),
        text="\n".join(str(line).replace("\n", " ") for line in lines),
        domain=str(row.get("domain", "")),
        source=path.name,
        remove=tuple(remove),
        unsure=tuple(unsure),
        tier=str(row.get("tier", "human")),
    )


def _crawl_documents(seed: SeedConfig, progress: Progress) -> Iterator[SeedDocument]:
    from corpusmill.ingest.crawl import list_files
    from corpusmill.ingest.html_pages import read_html_pages

    base = resolve_base(seed.base)
    scratch = corpusmill_home() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    for name in list_files(base, str(seed.crawl)):
        number = 0
        for number, page in enumerate(read_html_pages(base, name, scratch), 1):  # noqa: B007 - reported below
            domain = registered_domain(page.url)
            yield SeedDocument(doc_id=page.doc_id, html=page.html, domain=domain, source=f"{seed.crawl}/{name}")
        progress(f"{number} HTML pages read from {name}")


def registered_domain(url: str) -> str:
    """Returns the registered domain of a URL, else its host, "" where it has none; by tldextract's own list."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # a broken IPv6 address
        host = ""
    return str(_domains()(host).top_domain_under_public_suffix or host) if host else ""


@lru_cache(maxsize=1)
def _domains() -> Any:
    from tldextract import TLDExtract

    return TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)


def _row(plan: BuildPlan, shard: str, document: SeedDocument) -> dict[str, Any]:
    return {
        **plan.partition,
        "shard": shard,
        "doc_id": document.doc_id,
        "domain": document.domain,
        "source": document.source,
        "text": document.text,
        "html": document.html,
        "gold": document.gold,
        "remove": None if document.remove is None else list(document.remove),
        "unsure": list(document.unsure),
        "tier": document.tier,
    }


def _document(row: dict[str, Any]) -> SeedDocument:
    return SeedDocument(
        **{k: row[k] for k in ("doc_id", "domain", "source", "text", "html", "gold", "tier")},
        remove=None if row["remove"] is None else tuple(row["remove"]),
        unsure=tuple(row["unsure"] or ()),
    )
