"""Repeated lines: what a real crawl loses at which settings, and what removing them costs.

    python benchmarks/dedup_lines.py --base DIR --crawl CC-DEMO-2024-10
    OMP_NUM_THREADS=1 python benchmarks/dedup_lines.py --documents 20000

With ``--crawl`` the pages of a crawl folder are extracted and compared at several settings, without any rule before.
With ``--documents`` synthetic documents are: 30 lines of 12 words each, of which 6 come from 200 lines that all share.
The last line is JSON: ``seconds`` are CPU seconds, ``megabytes`` the process's peak above that of the loaded modules.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpusmill.dedup.config import LinesConfig
from corpusmill.dedup.duplicate_lines import DuplicateLines
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.crawl import list_files
from corpusmill.schema import STRING

FILE_DOCUMENTS = 1_000
File = tuple[str, list[str], list[str]]
"""Name, ids and texts."""


def peak_megabytes() -> float:
    """Returns the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def synthetic(n: int) -> Iterator[File]:
    """Yields files of documents: name, ids, texts."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(5_000)]
    shared = [" ".join(rng.choices(words, k=12)) for _ in range(200)]
    for start in range(0, n, FILE_DOCUMENTS):
        texts = []
        for _ in range(min(FILE_DOCUMENTS, n - start)):
            lines = [" ".join(rng.choices(words, k=12)) for _ in range(24)] + rng.sample(shared, 6)
            rng.shuffle(lines)
            texts.append("\n".join(lines))
        ids = [f"{rng.getrandbits(128):032x}" for _ in texts]
        yield f"{start:09d}", ids, texts


def measure(
    files: Iterator[File], config: LinesConfig, ids: "pa.Array[Any]", names: list[str]
) -> tuple[dict[str, float], float]:
    """Returns counts of what goes, and CPU seconds without those of making the documents."""
    lost = {"documents_shortened": 0, "documents_removed": 0, "lines": 0, "characters": 0}
    total = seconds = 0.0
    with DuplicateLines("C", ids, names, config) as lines:
        for name, doc_ids, texts in files:
            started = time.process_time()
            total += sum(map(len, texts))
            lines.add(name, pa.chunked_array([doc_ids], STRING), pa.chunked_array([texts], STRING))
            seconds += time.process_time() - started
        started = time.process_time()
        for rows in lines.rows():
            for kept, units, characters in zip(
                *(rows[c].to_pylist() for c in ("kept", "n_units_removed", "n_chars_removed")), strict=True
            ):
                lost["documents_shortened" if kept else "documents_removed"] += 1
                lost["lines"] += units * kept
                lost["characters"] += characters * kept
        seconds += time.process_time() - started
    return {**lost, "share_of_characters": round(lost["characters"] / total, 4)}, seconds


def real(base: str, crawl: str) -> list[File]:
    """Returns the documents of a crawl folder, one of each exact text, as our extraction gives them."""
    from corpusmill.ingest.stage import IngestStage

    stage, seen, found = IngestStage(IngestConfig(max_error_fraction=1.0)), set(), []
    stage.setup()
    with tempfile.TemporaryDirectory() as scratch:
        for name in list_files(base, crawl, "warc"):
            ids, texts = [], []
            for output in stage.read_file(base, name, crawl, Path(scratch)):
                for row in output.kept.select(["doc_id", "text"]).to_pylist():
                    if (folded := " ".join(row["text"].split())) not in seen:
                        seen.add(folded)
                        ids.append(row["doc_id"])
                        texts.append(row["text"])
            found.append((name, ids, texts))
    stage.close()
    return found


def main() -> None:
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--base")
    parser.add_argument("--crawl")
    given = parser.parse_args()
    if given.crawl:
        files = real(given.base, given.crawl)
        ids = pa.array([i for _, of_file, _ in files for i in of_file], STRING)
        for unit in ("line", "paragraph"):
            for min_words, max_removed in ((5, 0.5), (5, 0.3), (5, 0.8), (10, 0.5)):
                config = LinesConfig(unit=unit, min_words=min_words, max_removed=max_removed)
                counts, _ = measure(iter(files), config, ids, [name for name, *_ in files])
                row = {"documents": len(ids), "unit": unit, "min_words": min_words, "max_removed": max_removed}
                print(json.dumps(row | counts))
        return
    ids = pa.array([i for _, of_file, _ in synthetic(given.documents) for i in of_file], STRING)
    names = [f"{start:09d}" for start in range(0, given.documents, FILE_DOCUMENTS)]
    before = peak_megabytes()
    counts, seconds = measure(synthetic(given.documents), LinesConfig(), ids, names)
    megabytes = round(peak_megabytes() - before)
    print(json.dumps({"documents": given.documents, **counts, "seconds": round(seconds, 1), "megabytes": megabytes}))


if __name__ == "__main__":
    main()
