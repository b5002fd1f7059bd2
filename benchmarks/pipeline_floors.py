"""The physical floors of a crawl's processing: what reading, inflating and parsing cost alone, on one core.

Each step runs over all files, several times in one process, and the least CPU time counts: what it takes when nothing
disturbs it. Files are in the page cache, everything is imported. Every step does only what no pipeline can leave out:
``inflate`` decompresses each gzip member by zlib; ``records`` decompresses by FastWARC, which is faster, and cuts
records and HTTP heads; ``decode`` also finds the charset and makes text; ``parse`` also builds the tree of each
HTML page by lexbor. From ``records`` on, what a step adds to the one before is its own floor.
"""

import functools
import gzip
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline_crawls import members

ROUNDS = 5


@functools.cache
def compressed_members(file: Path) -> list[bytes]:
    """Returns the gzip members of a file, compressed anew at the level that crawls use."""
    return [gzip.compress(content, 6) for content in members(file)]


def inflate(file: Path) -> int:
    """Decompresses every gzip member with zlib; returns the bytes that came out."""
    return sum(len(zlib.decompress(member, 31)) for member in compressed_members(file))


def bodies(file: Path) -> Iterator[bytes]:
    """Yields the body of each HTML response."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with file.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            if (record.headers.get("WARC-Identified-Payload-Type") or "text/html") in (
                "text/html",
                "application/xhtml+xml",
            ):
                yield record.reader.read()


def records(file: Path) -> int:
    """Cuts records and HTTP heads; returns the number of pages."""
    return sum(1 for _ in bodies(file))


def decode(file: Path) -> int:
    """Finds each page's charset and makes text; returns the characters."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    return sum(len(bytes_to_str(body, detect_encoding(body))) for body in bodies(file))


def parse(file: Path) -> int:
    """Builds each page's tree with lexbor; returns the number of pages."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    from resiliparse.parse.html import HTMLTree

    return sum(bool(HTMLTree.parse(bytes_to_str(body, detect_encoding(body)))) for body in bodies(file))


STEPS: dict[str, Callable[[Path], int]] = {
    "inflate": inflate,
    "records": records,
    "decode": decode,
    "parse": parse,
}


def floors(files: list[Path]) -> dict[str, float]:
    """Returns the least CPU seconds of each step over all files."""
    found = {}
    for name, step in STEPS.items():
        times = []
        for file in files:  # so that nothing is read or imported while the clock runs
            step(file)
        for _ in range(ROUNDS):
            started = time.process_time()
            for file in files:
                step(file)
            times.append(time.process_time() - started)
        found[name] = min(times)
    return found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Path(given["result"]).write_text(json.dumps(floors([Path(file) for file in given["warcs"]])))
