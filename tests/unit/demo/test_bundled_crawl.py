import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from corpusmill.demo.build_crawl import build, bundled, documentation_from_crawls, documentation_from_package, main
from corpusmill.demo.crawl_plan import DOCS_HOST, FIRST, SECOND
from corpusmill.demo.quality import read_gold
from corpusmill.errors import ConfigError

CRAWLS = bundled() / "crawls"


def expected():
    return json.loads((CRAWLS / "expected.json").read_text(encoding="utf-8"))


def warc_files(crawl):
    paths = gzip.decompress((CRAWLS / "crawl-data" / crawl / "warc.paths.gz").read_bytes()).decode().split()
    return [CRAWLS / path for path in paths]


def members(path, base=CRAWLS):
    """Yields each gzip member of a WARC file as bytes."""
    data = path.read_bytes()
    for offset, length in json.loads((base / "expected.json").read_text())["members"][path.name]:
        yield data[offset : offset + length]


def records(base, path):
    """Returns each record of a WARC file, or the kind of error for a damaged one."""
    found = []
    for member in members(path, base):
        try:
            found.append(gzip.decompress(member))
        except (OSError, EOFError, zlib.error):
            found.append(None)
    return found


def responses(crawl):
    for path in warc_files(crawl):
        for member in members(path):
            try:
                for record in ArchiveIterator(io.BytesIO(member), record_types=WarcRecordType.response):
                    yield record.headers["WARC-Target-URI"], record.http_headers.status_code, record.reader.read()
            except OSError:
                yield None, None, None


def test_files_have_the_digests_of_the_committed_list():
    files = [path for crawl in (FIRST, SECOND) for path in warc_files(crawl)]
    assert len(files) == 8
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == {name: entry["sha256"] for name, entry in expected()["files"].items()}


def test_the_builder_makes_the_same_records_again(tmp_path):
    build(tmp_path, documentation_from_crawls(CRAWLS))
    again = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    committed = {p.relative_to(bundled()) for name in ("crawls", "gold") for p in (bundled() / name).rglob("*.*")}
    assert set(again) == {p for p in committed if (bundled() / p).is_file()}
    for relative in again:
        ours, theirs = bundled() / relative, tmp_path / relative
        if relative.name.endswith(".warc.gz"):  # compressed bytes differ between versions of zlib, records do not
            assert records(bundled() / "crawls", ours) == records(tmp_path / "crawls", theirs)
        elif relative.suffix == ".gz":
            assert gzip.decompress(ours.read_bytes()) == gzip.decompress(theirs.read_bytes())
        elif relative.name != "expected.json":
            assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("crawl", [FIRST, SECOND])
def test_fastwarc_reads_every_page_but_the_damaged_one(crawl):
    counts = expected()["crawls"][crawl]
    rows = list(responses(crawl))
    assert 340 <= len(rows) == counts["pages"] <= 500
    assert len(counts["damaged"]) == 1
    assert [url for url, _, _ in rows].count(None) == 1
    statuses = Counter(str(status) for url, status, _ in rows if url)
    statuses["200"] += 1  # the damaged one
    assert dict(statuses) == counts["by_status"]
    assert len({url for url, _, _ in rows}) == len(rows)


def test_a_reader_that_stops_at_the_damaged_member_would_lose_pages():
    for crawl in (FIRST, SECOND):
        for path in warc_files(crawl):
            found = records(CRAWLS, path)
            bad = [i for i, record in enumerate(found) if record is None]
            assert all(10 < i < len(found) - 10 for i in bad), path


def test_copies_across_the_crawls_are_what_they_say():
    first = {url: body for url, _, body in responses(FIRST)}
    second = {url: body for url, _, body in responses(SECOND)}
    copies = expected()["crawls"][SECOND]["copies"]
    kinds = Counter(kind for kind, _ in copies.values())
    assert kinds == {
        "exact": 10, "moved": 10, "boilerplate": 10, "edited": 10, "moved_same_crawl": 6, "reprint_same_crawl": 8
    }  # fmt: skip
    for url, (kind, original) in copies.items():
        if kind in ("exact", "moved"):
            assert second[url] == first[original]
            assert (url == original) is (kind == "exact")
        elif kind == "moved_same_crawl":
            assert second[url] == second[original]
        elif kind in ("boilerplate", "edited"):
            assert second[url] != first[original]


def test_documentation_pages_are_shared_by_the_crawls_in_part():
    hosts = [{url for url, _, _ in responses(c) if url and f"//{DOCS_HOST}/" in url} for c in (FIRST, SECOND)]
    assert len(hosts[0] & hosts[1]) > 40
    assert len(hosts[0] - hosts[1]) > 60
    assert len(hosts[1] - hosts[0]) > 60


def test_the_release_list_names_both_crawls_newest_first():
    releases = json.loads((CRAWLS / "collinfo.json").read_text(encoding="utf-8"))
    assert [r["id"] for r in releases] == [SECOND, FIRST]
    assert all(r["from"] < r["to"] for r in releases)


@pytest.mark.parametrize("crawl", [FIRST, SECOND])
def test_every_gold_line_stands_in_its_page(crawl):
    bodies = {url: body for url, _, body in responses(crawl) if url}
    pages = list(read_gold(bundled() / "gold" / f"{crawl}.jsonl.gz"))
    assert sum(page.keep_doc for page in pages) > 60
    for page in pages:
        text = bodies[page.url].decode("utf-8").replace("&amp;", "&").replace("&gt;", ">")
        text = text.replace("&quot;", '"').replace("&#x27;", "'")
        for line in (*page.wanted, *page.noise):
            assert line in text, page.url
        assert bool(page.wanted) is page.keep_doc
        assert not set(page.wanted) & set(page.noise)


def test_the_demo_is_small_enough_for_git_and_its_licences_are_listed():
    assert sum(p.stat().st_size for p in bundled().rglob("*") if p.is_file() and "models" not in p.parts) < 4_500_000
    listed = (bundled() / "DATA_LICENSES.md").read_text(encoding="utf-8")
    assert "public domain" in listed
    for host in {url.split("/")[2] for crawl in (FIRST, SECOND) for url, _, _ in responses(crawl) if url}:
        assert host.endswith(".example"), host


def test_a_folder_without_the_documentation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds 0 usable pages"):
        documentation_from_package(tmp_path)


def test_the_command_line_builds_without_the_package(tmp_path):
    assert main(["--out", str(tmp_path)]) == 0
    assert Path(tmp_path, "crawls", "collinfo.json").is_file()
