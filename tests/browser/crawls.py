"""Crawls for the browser: a few pages of a bundled crawl with hostile texts in them, and one with a broken file."""

import gzip
import io
from pathlib import Path

from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLED = REPOSITORY / "src/corpusmill/demo/crawls"
HOSTILE_SCRIPT = "<script>window.injected = 1; alert('script')</script>"
HOSTILE_IMAGE = "<img src=x onerror=\"window.injected = 2; alert('image')\">"
HOSTILE_URL = "https://hostile.example/<img src=x onerror=alert(3)>/?q=</pre><script>alert(4)</script>"
SENTENCE = (
    "The garden gate stood open all night and nobody in the house had noticed it until the morning came, "
    "which is how the fox got in and why the hens were so quiet when we went down to feed them. "
)


def hostile_crawl(base: Path, crawl: str, pages: int = 60) -> Path:
    """Writes the first pages of a bundled file again, each with text that looks like markup once it is extracted."""
    source = sorted((BUNDLED / "crawl-data/MILL-DEMO-2024-33").rglob("*.warc.gz"))[2]
    files = {"00000": [], "00001": []}
    with source.open("rb") as stream:
        for record in ArchiveIterator(stream):
            if record.rec_type != "response" or record.http_headers.get_statuscode() != "200":
                continue
            n = sum(len(records) for records in files.values())
            if n >= pages:
                break
            body = _with_hostile_lines(record.content_stream().read())
            url = f"{HOSTILE_URL}&n={n}"
            files[f"{n % 2:05d}"].append((url, record.http_headers.get_header("Content-Type"), body))
    return write_crawl(base, crawl, files)


def _with_hostile_lines(body: bytes) -> bytes:
    """Puts escaped markup into a paragraph of a page, so that it is in the extracted text as it stands here."""
    text = f"{HOSTILE_SCRIPT} {HOSTILE_IMAGE}".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return body.replace(b"</p>", f" Somebody wrote {text} here.</p>".encode(), 1)


def broken_crawl(base: Path, crawl: str) -> Path:
    """Writes a crawl whose second file is no archive: its shard loses everything and fails."""
    page = f"<html><body><main><p>{SENTENCE * 8}</p></main></body></html>".encode()
    pages = [(f"https://fine.example/{n}", "text/html", page) for n in range(6)]
    write_crawl(base, crawl, {"00000": pages, "00001": pages})
    (target,) = base.rglob(f"{crawl}-00001.warc.gz")
    target.write_bytes(b"".join(gzip.compress(b"this is no WARC record\r\n") for _ in range(20)))
    return base


def write_crawl(base, crawl, files):
    """Writes (url, content type, body) by file in Common Crawl's layout; returns the base folder."""
    names = []
    for part, pages in files.items():
        name = f"crawl-data/{crawl}/segments/1.0/warc/{crawl}-{part}.warc.gz"
        names.append(name)
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            writer = WARCWriter(stream, gzip=True)
            for url, kind, body in pages:
                http = StatusAndHeaders("200 OK", [("Content-Type", kind or "text/html")], protocol="HTTP/1.1")
                record = writer.create_warc_record(
                    "https://placeholder.example/", "response", payload=io.BytesIO(body), http_headers=http
                )
                record.rec_headers.replace_header("WARC-Target-URI", url)
                writer.write_record(record)
    (base / "crawl-data" / crawl / "warc.paths.gz").write_bytes(gzip.compress("\n".join(names).encode() + b"\n"))
    return base
