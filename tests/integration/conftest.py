"""Small crawls made on the spot, in Common Crawl's layout, and runs through the chain."""

import gzip
import io
import json
import random
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill.recipe import Recipe, parse_recipe
from corpusmill.runner import chain

NOUNS = [
    "river",
    "water",
    "mountain",
    "valley",
    "weather",
    "station",
    "field",
    "team",
    "summer",
    "winter",
    "farmer",
    "market",
    "bread",
    "history",
    "engine",
    "bridge",
    "teacher",
    "garden",
    "library",
    "harvest",
    "letter",
    "village",
    "window",
    "paper",
    "island",
    "museum",
    "signal",
    "forest",
    "ocean",
    "captain",
    "doctor",
    "kitchen",
    "ladder",
    "mirror",
    "needle",
    "orchard",
    "pencil",
    "quarry",
    "ribbon",
    "saddle",
    "tunnel",
    "umbrella",
    "violin",
    "wagon",
    "yarn",
    "anchor",
    "basket",
]
VERBS = [
    "measured",
    "carried",
    "painted",
    "repaired",
    "followed",
    "counted",
    "lifted",
    "opened",
    "crossed",
    "planted",
    "studied",
    "reached",
]


def article(n: int, sentences: int = 14) -> str:
    """Returns English prose that the FineWeb rules keep; another number gives another text."""
    rng = random.Random(n)
    lines = []
    for _ in range(sentences):
        a, b, c, d, e = rng.sample(NOUNS, 5)
        first, second = rng.sample(VERBS, 2)
        lines.append(
            rng.choice(
                [
                    f"The {a} of the {b} {first} the {c} and that {d} to be with the {e}.",
                    f"When they have {first} a {a}, the {b} and its {c} {second} what {d} can of {e}.",
                    f"To be a {a} that {first} {b} is harder than {c}, with {d} and the {e} near.",
                    f"Nobody {first} more {a} of {b} than this {c}, that {second} to the {d} by {e}.",
                ]
            )
        )
    return " ".join(lines)


def page(title: str, text: str) -> bytes:
    paragraphs = "".join(f"<p>{part.strip()}.</p>" for part in text.split(". ") if part.strip(". "))
    head = f"<head><meta charset='utf-8'><title>{title}</title></head>"
    return f"<html>{head}<body><main><article>{paragraphs}</article></main></body></html>".encode()


def write_crawl(base: Path, crawl: str, files: list[Mapping[str, str]]) -> Path:
    """Writes a crawl of one WARC per mapping (url -> text) and returns the base folder."""
    names = []
    for i, pages in enumerate(files):
        name = f"crawl-data/{crawl}/segments/1.0/warc/{crawl}-{i:05d}.warc.gz"
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            writer = WARCWriter(stream, gzip=True)
            for n, (url, text) in enumerate(pages.items()):
                headers = StatusAndHeaders(
                    "200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1"
                )
                record = writer.create_warc_record(
                    url,
                    "response",
                    payload=io.BytesIO(page(url, text)),
                    http_headers=headers,
                    warc_headers_dict={
                        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{crawl}/{i}/{n}')}>",
                        "WARC-Date": "2024-02-20T00:00:00Z",
                    },
                )
                writer.write_record(record)
        names.append(name)
    manifest = base / "crawl-data" / crawl / "warc.paths.gz"
    manifest.write_bytes(gzip.compress("\n".join(names).encode() + b"\n"))
    return base


@pytest.fixture
def crawls(tmp_path: Path) -> Path:
    """Two crawls of two files; six texts of T-2024-10 stand in T-2024-33 again at other URLs."""
    base = tmp_path / "crawls"
    old = [
        {f"https://a.example/{i}": article(i) for i in range(10)},
        {f"https://a.example/{i}": article(i) for i in range(10, 20)},
    ]
    new = [
        {f"https://b.example/{i}": article(i) for i in range(14, 24)},
        {f"https://b.example/{i}": article(i) for i in range(24, 34)},
    ]
    write_crawl(base, "T-2024-10", old)
    write_crawl(base, "T-2024-33", new)
    (base / "collinfo.json").write_text(json.dumps([{"id": "T-2024-33"}, {"id": "T-2024-10"}]))
    return base


@pytest.fixture
def recipe(crawls: Path) -> Callable[..., Recipe]:
    """Makes a recipe over the small crawls, with changes."""

    def make(name: str = "tiny", **changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "name": name,
            "source": {"base": str(crawls)},
            "shards": {"max_shards": 2},
            "rules": {"preset": "fineweb", "languages": ["en"]},
        }
        return parse_recipe({**values, **changes})

    return make


@pytest.fixture
def corpus_of() -> Callable[[str], pa.Table]:
    """Reads the published corpus of a recipe in a canonical order."""

    def read(recipe: str) -> pa.Table:
        table = chain.open_lakehouse().table(f"{recipe}.corpus").scan(None)
        return table.sort_by([("crawl", "ascending"), ("doc_id", "ascending")])

    return read


@pytest.fixture
def scored() -> dict[str, Any]:
    """Recipe parts that add scoring and a selection with quantiles of its own for each crawl."""
    return {
        "score": {"model": "bundled:reference_lm", "context": 256},
        "select": {"column": "bits_per_byte", "which": "middle", "fraction": "1/2"},
    }
