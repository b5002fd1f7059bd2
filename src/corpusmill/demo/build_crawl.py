"""Builds the bundled demo crawls: two releases in Common Crawl's layout, the same records every time.

``python -m corpusmill.demo.build_crawl --sqlite-docs DIR --out DIR`` writes ``crawls/`` and ``gold/``. DIR is the
unpacked ``usr/share/doc/sqlite3`` of Debian's sqlite3-doc package; without it the documentation pages are taken from
the crawls that are bundled already, so that a change of the written pages needs no package.
"""

import argparse
import datetime as dt
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from corpusmill.demo.crawl_plan import DOCS_HOST, FIRST, SECOND, CrawlPages, both_crawls
from corpusmill.demo.dice import Dice
from corpusmill.demo.page_chrome import Page
from corpusmill.demo.warc_writing import Place, damaged_member, gzip_member, page_records, warcinfo_record
from corpusmill.errors import ConfigError

N_FILES = 4
"""WARC files per crawl."""
STARTS = {
    FIRST: dt.datetime(2024, 2, 20, 21, 10, 55, tzinfo=dt.UTC),
    SECOND: dt.datetime(2024, 8, 2, 23, 35, 8, tzinfo=dt.UTC),
}
"""When each crawl's first page was fetched."""
SEGMENTS = {FIRST: "1708000000000.0", SECOND: "1722600000000.0"}
DOCS_PER_FOLDER = {"": 170, "c3ref": 70, "session": 20, "releaselog": 30, "syntax": 10}
"""Documentation pages that are used, by folder."""
DOCS_BYTES = (2_500, 30_000)
"""Size of the documentation pages that are used, in bytes of HTML."""


def bundled() -> Path:
    """Returns the folder of the bundled crawls and gold."""
    return Path(str(resources.files("corpusmill.demo")))


def documentation_from_package(folder: Path) -> dict[str, bytes]:
    """Returns the chosen pages of an unpacked sqlite3-doc, by path.

    Raises:
        ConfigError: The folder does not hold the documentation.
    """
    chosen: dict[str, bytes] = {}
    for name, count in DOCS_PER_FOLDER.items():
        found = sorted((folder / name).glob("*.html"))
        fitting = [p for p in found if DOCS_BYTES[0] <= p.stat().st_size <= DOCS_BYTES[1]]
        for path in Dice(f"folder {name}").sample(fitting, count):
            chosen[path.relative_to(folder).as_posix()] = path.read_bytes()
    if len(chosen) < 100:
        raise ConfigError(
            f"--sqlite-docs={str(folder)!r} holds {len(chosen)} usable pages, expected at least 100; "
            "give usr/share/doc/sqlite3 of the unpacked Debian package sqlite3-doc"
        )
    return chosen


def documentation_from_crawls(crawls: Path) -> dict[str, bytes]:
    """Returns the documentation pages that stand in bundled crawls, by path."""
    pages: dict[str, bytes] = {}
    for path in sorted(crawls.glob("crawl-data/*/segments/*/warc/*.warc.gz")):
        for record in records_of(path):
            if record.startswith(b"WARC/1.0\r\nWARC-Type: response") and f"/{DOCS_HOST}/".encode() in record[:400]:
                head, _, block = record.partition(b"\r\n\r\n")
                url = next(line for line in head.split(b"\r\n") if line.startswith(b"WARC-Target-URI: "))
                body = block.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n\r\n")
                pages[url.decode().partition(f"{DOCS_HOST}/")[2]] = body
    return pages


def records_of(path: Path) -> Iterable[bytes]:
    """Yields the records of a bundled WARC file by the places in ``expected.json``, without the damaged ones."""
    expected = json.loads((path.parents[5] / "expected.json").read_text(encoding="utf-8"))
    data = path.read_bytes()
    for offset, length in expected["members"][path.name]:
        with gzip.open(io.BytesIO(data[offset : offset + length])) as member:
            try:
                yield member.read()
            except (OSError, EOFError, zlib.error):
                continue


def build(out: Path, docs: Mapping[str, bytes]) -> dict[str, Any]:
    """Writes ``crawls/`` and ``gold/`` below a folder and returns what ``crawls/expected.json`` holds."""
    expected: dict[str, Any] = {"crawls": {}, "files": {}, "members": {}}
    for crawl in both_crawls(docs):
        expected["crawls"][crawl.crawl] = _write_crawl(out / "crawls", crawl, expected)
        _write_gold(out / "gold", crawl)
    releases = [
        {
            "id": crawl,
            "name": f"{crawl} (demo)",
            "from": f"{STARTS[crawl]:%Y-%m-%dT%H:%M:%S}",
            "to": f"{STARTS[crawl] + dt.timedelta(hours=3):%Y-%m-%dT%H:%M:%S}",
        }
        for crawl in (SECOND, FIRST)
    ]
    (out / "crawls" / "collinfo.json").write_text(json.dumps(releases, indent=1) + "\n", encoding="utf-8")
    # One line per file and per copy: a change of one page stays readable in a diff.
    compact = re.sub(
        r"\[\s+([^][{}]+?)\s+\]", lambda m: f"[{re.sub(chr(10) + ' *', ' ', m[1])}]", json.dumps(expected, indent=1)
    )
    (out / "crawls" / "expected.json").write_text(compact + "\n", encoding="utf-8")
    return expected


def _write_crawl(base: Path, crawl: CrawlPages, expected: dict[str, Any]) -> dict[str, Any]:
    start = STARTS[crawl.crawl]
    folder = Path("crawl-data", crawl.crawl, "segments", SEGMENTS[crawl.crawl], "warc")
    (base / folder).mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(N_FILES):
        name = f"{crawl.crawl}-{start:%Y%m%d%H%M%S}-{number:05}.warc.gz"
        place = Place(crawl.crawl, name, f"{start:%Y-%m-%dT%H:%M:%SZ}")
        members = list(_members(place, crawl.pages[number::N_FILES], start + dt.timedelta(seconds=number)))
        data = b"".join(members)
        (base / folder / name).write_bytes(data)
        paths.append((folder / name).as_posix())
        ends = [sum(map(len, members[: i + 1])) for i in range(len(members))]
        expected["members"][name] = [[end - len(m), len(m)] for end, m in zip(ends, members, strict=True)]
        expected["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    listing = "".join(f"{path}\n" for path in paths).encode()
    (base / "crawl-data" / crawl.crawl / "warc.paths.gz").write_bytes(gzip_member(listing))
    return {
        "pages": len(crawl.pages),
        "by_kind": dict(sorted(Counter(page.kind for page in crawl.pages).items())),
        "by_status": dict(sorted(Counter(page.status.partition(" ")[0] for page in crawl.pages).items())),
        "damaged": [page.url for page in crawl.pages if page.broken],
        "copies": {url: list(origin) for url, origin in crawl.copies.items()},
    }


def _members(place: Place, pages: Iterable[Page], start: dt.datetime) -> Iterable[bytes]:
    yield gzip_member(warcinfo_record(place))
    for i, page in enumerate(pages):
        date = start + dt.timedelta(seconds=17 * i)
        request, response = page_records(place, page, f"{date:%Y-%m-%dT%H:%M:%SZ}")
        member = gzip_member(response)
        yield gzip_member(request)
        yield damaged_member(member) if page.broken == "gzip" else member


def _write_gold(folder: Path, crawl: CrawlPages) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"url": p.url, "kind": p.kind, "wanted": p.wanted, "noise": p.noise, "keep_doc": p.keep_doc}
        for p in sorted(crawl.pages, key=lambda page: page.url)
        if p.wanted or p.noise
        if not p.broken
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{crawl.crawl}.jsonl.gz").write_bytes(gzip_member(text.encode("utf-8")))


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code of the command line."""
    parser = argparse.ArgumentParser(description="Build the bundled demo crawls.")
    parser.add_argument("--sqlite-docs", type=Path, help="usr/share/doc/sqlite3 of the unpacked sqlite3-doc package")
    parser.add_argument("--out", type=Path, default=bundled(), help="folder that gets crawls/ and gold/")
    options = parser.parse_args(arguments)
    if options.sqlite_docs is not None:
        docs = documentation_from_package(options.sqlite_docs)
    else:
        docs = documentation_from_crawls(bundled() / "crawls")
    build(options.out, docs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
