"""WARC to text: the product's ingestion against datatrove's reader and extractor, speed and quality beside each other.

    .venv/bin/python benchmarks/extraction.py [--crawl ../shared/data/crawls] [--rounds 3] [--quick]

Ours is the ingestion stage as the runner calls it: reading, charset, the extractor in its child process, rows of
``raw.pages`` as Arrow tables. The peer is datatrove 0.10.1's WarcReader and its Trafilatura step with default options
(its limit of 1 s a page raised to 10 s, so that a busy machine costs it no pages). Both run in processes of their own
on one core; time is CPU time of the process and its children over all files, after a crawl of one page was read to
warm up; rounds of all sides alternate and each figure is the median.

Quality is judged as in ``gold_pages.py``. ``f1`` and ``leaked`` of the last line are those of the domains that the line
model was not fitted on; standard error has all figures, also those of our other extractors. The last line is JSON.
"""

import argparse
import gzip
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
OURS, PEER = "line_model", "datatrove"
SIDES = (PEER, OURS, "library", "trafilatura", "trafilatura_balanced")


def tree_seconds() -> float:
    """Returns the CPU seconds of this process and of its children, living and ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + ended.ru_utime + ended.ru_stime
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def one_page(folder: Path) -> Path:
    """Returns a crawl of one page, so that imports and caches are no part of what is timed."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    block = head + b"<html><body><article>" + b"<p>Words of a warming paragraph, for a start.</p>" * 20
    record = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        "WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Target-URI: http://a.example/\r\nContent-Type: application/http; "
        f"msgtype=response\r\nWARC-Identified-Payload-Type: text/html\r\nContent-Length: {len(block)}\r\n\r\n"
    ).encode() + block
    path = folder / "crawl-data" / "one" / "warc" / "one.warc.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(record + b"\r\n\r\n"))
    return folder


def timed(run: Callable[[Path], dict[str, str]], crawl: Path) -> dict[str, Any]:
    """Returns the texts of a crawl by document id and the CPU seconds that they took."""
    with tempfile.TemporaryDirectory() as folder:
        if not run(one_page(Path(folder))):
            raise SystemExit("the page to warm up gave no text; expected one document")
    started = tree_seconds()
    texts = run(crawl)
    return {"seconds": tree_seconds() - started, "texts": texts}


def run_peer(crawl: Path) -> dict[str, Any]:
    """Runs datatrove; in the peers' environment."""
    readers, extractors = (importlib.import_module(f"datatrove.pipeline.{n}") for n in ("readers", "extractors"))
    importlib.import_module("loguru").logger.remove()

    def run(crawl: Path) -> dict[str, str]:
        reader = readers.WarcReader(str(crawl / "crawl-data"), glob_pattern="**/warc/*.warc.gz", compression="gzip")
        documents = extractors.Trafilatura(timeout=10).run(reader.run(None, 0, 1))
        return {document.id.strip("<>").rpartition(":")[2]: document.text for document in documents}

    extractors.Trafilatura().extract("<p>loads what its child process then shares</p>")
    return timed(run, crawl)


def run_ours(crawl: Path, side: str) -> dict[str, Any]:
    """Runs the ingestion stage with one of its extractors."""
    from corpusmill.ingest.config import IngestConfig, ResiliparseOptions, TrafilaturaOptions
    from corpusmill.ingest.stage import IngestStage

    config = {
        "library": IngestConfig(),
        "line_model": IngestConfig(resiliparse=ResiliparseOptions(line_model=True)),
        "trafilatura": IngestConfig(extractor="trafilatura"),
        "trafilatura_balanced": IngestConfig(
            extractor="trafilatura", trafilatura=TrafilaturaOptions(favor_precision=False)
        ),
    }[side]
    stage = IngestStage(config)

    def run(crawl: Path) -> dict[str, str]:
        files = sorted(path.relative_to(crawl) for path in crawl.glob("crawl-data/**/warc/*.warc.gz"))
        tables = [o.kept for f in files for o in stage.read_file(str(crawl), str(f), "benchmark", crawl)]
        rows = (row for table in tables for row in table.select(["doc_id", "text"]).to_pylist())
        return {row["doc_id"]: row["text"] for row in rows}

    result = timed(run, crawl)
    stage.close()
    return result


def run_side(side: str, crawl: Path, cpu: int) -> dict[str, Any]:
    """Runs one side in a process of its own on one core and returns what it stores."""
    peer = Path(os.environ.get("CORPUSMILL_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python"))
    if side == PEER and not peer.is_file():
        raise SystemExit(f"{peer} does not exist; run make peers or set CORPUSMILL_PEERS_PYTHON")
    python = str(peer) if side == PEER else sys.executable
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [python, __file__, "--side", side, "--crawl", str(crawl), "--out", str(out), "--cpu", str(cpu)]
        subprocess.run(command, stdout=sys.stderr, check=True)
        return json.loads(out.read_text())


def count_responses(crawl: Path) -> int:
    """Returns how many fetched pages the crawl's files hold."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    total = 0
    for path in crawl.glob("crawl-data/**/warc/*.warc.gz"):
        with path.open("rb") as file:
            total += sum(1 for _ in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=False))
    return total


def compare(crawl: Path, rounds: int, cpu: int, *, quick: bool) -> dict[str, float]:
    """Returns the last line's figures; prints all others on standard error."""
    from gold_pages import domain_half, judge_texts, read_gold_pages

    always = (PEER, OURS, "library")
    sides = always if quick else SIDES
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number == 0 else always:
            results[side].append(run_side(side, crawl, cpu))
            print(f"round {number + 1}: {side} {results[side][-1]['seconds']:.2f} CPU s", file=sys.stderr, flush=True)
    n_pages, pages = count_responses(crawl), list(read_gold_pages(crawl, html=False))
    held_out = [page for page in pages if domain_half(page.domain) == 1]
    quality = {}
    for side in sides:
        seconds = statistics.median(r["seconds"] for r in results[side])
        texts = results[side][-1]["texts"]
        rate = f"{n_pages / seconds:.0f} docs/s, {1000 * seconds / n_pages:.2f} ms a page, {len(texts)} texts"
        print(f"{side}: {rate} of {n_pages} pages", file=sys.stderr)
        for name, judged in (("all domains", pages), ("domains held out", held_out)):
            print(f"  {name} ({len(judged)}): {json.dumps(judge_texts(judged, texts))}", file=sys.stderr)
        quality[side] = judge_texts(held_out, texts)
        if any(result["texts"] != texts for result in results[side]):
            print(f"  {side}: the rounds' texts differ", file=sys.stderr)
    ratios = {
        side: statistics.median(p["seconds"] / o["seconds"] for p, o in zip(results[PEER], results[side], strict=True))
        for side in (OURS, "library")
    }
    print(f"documents per second against the peer: {ratios}", file=sys.stderr)
    return {
        "docs_per_s_ratio": round(ratios[OURS], 1),
        "f1": quality[OURS]["f1"],
        "f1_peer": quality[PEER]["f1"],
        "leaked": quality[OURS].get("leaked", 0.0),
        "leaked_peer": quality[PEER].get("leaked", 0.0),
    }


def main() -> None:
    """Runs the benchmark, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--crawl", type=Path, default=Path(shared) / "crawls", help="crawl folder with gold")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="leave out our slow extractors (trafilatura)")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="core to run on")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    crawl = options.crawl.resolve()
    if options.side:
        os.sched_setaffinity(0, {options.cpu})
        result = run_peer(crawl) if options.side == PEER else run_ours(crawl, options.side)
        options.out.write_text(json.dumps(result))
        return
    print(json.dumps(compare(crawl, options.rounds, options.cpu, quick=options.quick)))


if __name__ == "__main__":
    main()
