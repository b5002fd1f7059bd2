"""Small crawls made on the spot, in Common Crawl's layout, runs through the chain, and servers of our own."""

import gzip
import importlib.util
import io
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
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

POSTGRES_BIN = Path("/usr/lib/postgresql")

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


@pytest.fixture(scope="session")
def articles() -> list[list[str]]:
    """The paragraphs of each page of T-2024-10."""
    return [article(n).split(". ") for n in range(20)]


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise OSError(f"server ended with exit code {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise OSError(f"nothing listens on port {port} after {seconds} s")


@pytest.fixture(scope="session")
def postgres():
    """Starts a PostgreSQL cluster of our own and yields its URI prefix; an OSError says why it cannot."""
    binaries = sorted(POSTGRES_BIN.glob("*/bin/initdb"))
    initdb = str(binaries[-1]) if binaries else shutil.which("initdb")
    if initdb is None:
        yield OSError("PostgreSQL is not installed: no initdb")
        return
    folder = Path(tempfile.mkdtemp(prefix="corpusmill-pg-", dir="/tmp"))
    as_postgres = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
    port, pg_ctl = free_port(), str(Path(initdb).with_name("pg_ctl"))

    def run(*command):
        return subprocess.run([*as_postgres, *command], cwd=folder, capture_output=True, text=True, timeout=120)

    try:
        made = run(initdb, "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -F -c max_connections=200"
        started = run(pg_ctl, "-D", str(folder / "data"), "-l", str(folder / "log"), "-o", options, "-w", "start")
        if made.returncode or started.returncode:
            yield OSError(f"PostgreSQL does not start: {made.stderr[-300:]} {started.stderr[-300:]}")
        else:
            yield f"postgresql://postgres:secret@127.0.0.1:{port}"
    finally:
        run(pg_ctl, "-D", str(folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_endpoint():
    """Starts a moto S3 server and yields its URL; an OSError says why it cannot."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        yield OSError("moto server is not installed")
        return
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    except OSError as error:
        yield error
    finally:
        process.kill()
        process.wait()


_numbers = itertools.count()


@pytest.fixture
def server_lakehouse(postgres, s3_endpoint):
    """Returns the settings of an empty lakehouse on PostgreSQL and S3 that no other test uses."""
    for server in (postgres, s3_endpoint):
        if isinstance(server, OSError):
            pytest.skip(f"server backend: {server}")
    return server_settings(postgres, s3_endpoint)


def server_settings(uri, endpoint):
    import psycopg2
    from pyarrow.fs import S3FileSystem

    name = f"lake{os.getpid()}x{next(_numbers)}"  # a schema, because a database for each test takes 7 MB and 300 files
    connection = psycopg2.connect(f"{uri}/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE SCHEMA {name}")
    connection.close()
    S3FileSystem(
        access_key="testing", secret_key="testing", endpoint_override=endpoint, region="us-east-1",
        allow_bucket_creation=True,
    ).create_dir(name)  # fmt: skip
    return {
        "catalog_uri": f"{uri}/postgres?options=-csearch_path%3D{name}",
        "warehouse": f"s3://{name}/warehouse",
        "s3_endpoint": endpoint,
        "s3_credentials": {"access_key": "testing", "secret_key": "testing"},
    }
