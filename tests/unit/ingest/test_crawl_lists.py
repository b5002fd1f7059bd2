"""Lists of crawls and manifests of files."""

import gzip
import json
from datetime import date

import pytest

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.ingest.crawl import Release, list_files, list_releases, parse_manifest, path_list_digest

PATHS = (
    "crawl-data/CC-MAIN-2024-10/segments/1/warc/a-00000.warc.gz\ncrawl-data/CC-MAIN-2024-10/segments/1/warc/b.warc.gz\n"
)


@pytest.fixture
def base(tmp_path):
    for name in ("CC-MAIN-2024-10", "CC-MAIN-2023-50", "CC-MAIN-2012", "CC-MAIN-2009-2010", "notes"):
        (tmp_path / "crawl-data" / name).mkdir(parents=True)
    (tmp_path / "crawl-data" / "CC-MAIN-2024-10" / "warc.paths.gz").write_bytes(gzip.compress(PATHS.encode()))
    return tmp_path


def test_releases_come_from_the_list_oldest_first(base):
    entries = [
        {"id": "CC-MAIN-2024-10", "name": "x", "from": "2024-02-20T21:10:55", "to": "2024-03-05T00:10:55"},
        {"id": "CC-MAIN-2008-2009", "name": "x", "cdx-api": "https://x"},
        {"id": "CC-MAIN-2013-20", "name": "x"},
    ]
    (base / "collinfo.json").write_text(json.dumps(entries))
    assert list_releases(str(base)) == [
        Release(date(2009, 12, 31), "CC-MAIN-2008-2009"),
        Release(date(2013, 5, 13), "CC-MAIN-2013-20"),
        Release(date(2024, 3, 5), "CC-MAIN-2024-10"),
    ]


def test_without_a_list_the_folders_are_the_releases(base):
    names = [release.id for release in list_releases(f"file://{base}")]
    assert names == ["CC-MAIN-2009-2010", "CC-MAIN-2012", "CC-MAIN-2023-50", "CC-MAIN-2024-10"]


@pytest.mark.parametrize(
    "content", ["", "<html>", "{}", "[]", '[{"name": "x"}]', '[{"id": "a b"}]', '[{"id": 5}]', "[1]"]
)
def test_a_list_that_is_none_is_an_error(base, content):
    (base / "collinfo.json").write_text(content)
    with pytest.raises(PermanentDataError, match="collinfo"):
        list_releases(str(base))


def test_an_empty_folder_is_no_source(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no collinfo.json and no crawls"):
        list_releases(str(tmp_path))


def test_files_come_in_the_manifests_order(base):
    assert list_files(str(base), "CC-MAIN-2024-10") == PATHS.split()


def test_an_unknown_crawl_names_the_known_ones(base):
    with pytest.raises(ConfigError, match=r"crawl='CC-MAIN-2099-01'.*CC-MAIN-2023-50, CC-MAIN-2024-10"):
        list_files(str(base), "CC-MAIN-2099-01")


def test_an_unknown_scheme_is_named():
    with pytest.raises(ConfigError, match="ftp"):
        list_files("ftp://x", "CC-MAIN-2024-10")


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b""),
        gzip.compress(PATHS.encode())[:-15],
        b"<html><body>Slow Down</body></html>",
        gzip.compress(b"<html><body>Slow Down</body></html>"),
        gzip.compress(b"/etc/passwd\n"),
        gzip.compress(b"../../secret.warc.gz\n"),
        gzip.compress(b"https://elsewhere.example/a.warc.gz\n"),
        gzip.compress(b"a.warc.gz\nb.warc.gz\na.warc.gz\n"),
        b"",
    ],
    ids=["empty", "cut", "html", "gzipped html", "absolute", "upwards", "url", "twice", "no bytes"],
)
def test_a_manifest_that_cannot_be_trusted_is_an_error_and_never_an_empty_crawl(data):
    with pytest.raises(PermanentDataError, match=r"manifest x/warc.paths.gz"):
        parse_manifest(data, "x/warc.paths.gz")


def test_the_digest_does_not_depend_on_order():
    assert path_list_digest(["a", "b"]) == path_list_digest(["b", "a"]) != path_list_digest(["a"])


def test_the_demo_crawls_are_listed(shared_data):
    base = str(shared_data / "crawls")
    assert [(r.id, r.released) for r in list_releases(base)] == [
        ("CC-DEMO-2024-10", date(2024, 2, 21)),
        ("CC-DEMO-2024-33", date(2024, 8, 3)),
    ]
    assert [len(list_files(base, "CC-DEMO-2024-33", kind)) for kind in ("warc", "wet")] == [2, 2]
