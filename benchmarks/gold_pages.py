"""Crawled pages with known main text, and how an extracted text is judged by it.

A crawl folder holds ``crawl-data/<crawl>/**/warc/*.warc.gz`` and ``gold/<crawl>.{pages,gold}.jsonl.gz``. Gold is either
the page's main text (``full_text``, ``reference_text``), judged by the F1 of the two bags of lower-case words, or
``segments`` that must stand in the text (``with``: found) and must not (``without``: leaked).
"""

import gzip
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType

from corpusmill.ingest.charset import decode_html

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Returns the lower-case words of a text."""
    return _WORD.findall(text.lower())


def domain_half(domain: str) -> int:
    """Returns 0 for domains that models may be fitted on, 1 for those they are judged by."""
    return hashlib.blake2b(domain.encode(), digest_size=8).digest()[0] % 2


@dataclass(frozen=True)
class GoldPage:
    """A page with gold; ``text`` is empty where the gold are segments, ``html`` where it was not read."""

    doc_id: str
    domain: str
    source: str
    kind: str
    text: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    warc: str
    html: str

    @cached_property
    def bag(self) -> Counter[str]:
        """Words of the gold text."""
        return Counter(words(self.text))


def read_gold_pages(crawl: Path, *, html: bool = True) -> Iterator[GoldPage]:
    """Yields the pages with gold; labelled duplicates of other pages are left out."""
    for gold_file in sorted((crawl / "gold").glob("*.gold.jsonl.gz")):
        name = gold_file.name.removesuffix(".gold.jsonl.gz")
        gold = {g["record_id"]: g for g in _jsonl(gold_file)}
        for page in _jsonl(gold_file.with_name(f"{name}.pages.jsonl.gz")):
            if (found := gold.get(page["record_id"])) is None or page.get("dup_of"):
                continue
            yield GoldPage(
                doc_id=page["record_id"].rpartition(":")[2],
                domain=page["domain"],
                source=found["source"],
                kind=found["kind"],
                text=found.get("text") or "",
                wanted=tuple(found.get("with") or ()),
                unwanted=tuple(found.get("without") or ()),
                warc=page["warc_filename"],
                html=_html(crawl / page["warc_filename"], page["offset"]) if html else "",
            )


def f1(found: str, wanted: Counter[str]) -> float:
    """Returns the F1 of two bags of words."""
    bag = Counter(words(found))
    return 2 * (bag & wanted).total() / max(1, bag.total() + wanted.total())


def judge_texts(pages: Iterable[GoldPage], texts: Mapping[str, str]) -> dict[str, float]:
    """Returns the mean F1 over all pages with gold text and by source, and the shares of segments found and leaked."""
    scores: dict[str, list[float]] = defaultdict(list)
    segments: Counter[str] = Counter()
    for page in pages:
        text = texts.get(page.doc_id, "")
        if page.kind != "segments":
            scores["f1"].append(f1(text, page.bag))
            scores[page.source.rpartition("/")[2].partition("-")[0]].append(scores["f1"][-1])
            continue
        flat = " ".join(text.split())
        for name, parts in (("found", page.wanted), ("leaked", page.unwanted)):
            segments[f"all {name}"] += len(parts)
            segments[name] += sum(" ".join(part.split()) in flat for part in parts)
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    shares = {name: segments[name] / segments[f"all {name}"] for name in ("found", "leaked") if segments[f"all {name}"]}
    return {name: round(value, 4) for name, value in {**means, **shares}.items()}


def _jsonl(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _html(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        record = next(iter(ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True)))
        charset = record.http_charset
        return decode_html(record.reader.read(), charset).text
