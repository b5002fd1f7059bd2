"""Exact selection of a share of many scores in bounded memory, against a full sort, numpy and DuckDB.

Writes random scores with many ties to a file, then decides which rows are kept in four ways, each in a process of its
own on one thread:

- ``ours``: `corpusmill.pruning.selection.resolve` over chunks of the file, then the manifest as a predicate on each;
- ``sort``: all scores in memory, `numpy.sort`, ties at the two ends ordered by tie-break: what must come out;
- ``partition``: `numpy.argpartition` in memory, which leaves ties to chance;
- ``duckdb``: the two thresholds by ``quantile_disc`` (exact) and by ``approx_quantile``, rows between them kept.

    python benchmarks/selection.py --rows 1e8

The last line is JSON: CPU seconds and peak PSS (proportional set size) of each side, the imports included, and whether
the rows that ``ours`` keeps are those of the full sort (BLAKE2b over the bit mask of all rows).
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1 << 20
"""Rows of one chunk, which stands for one input file."""
LEVELS = 1e-5
"""Scores are rounded to this step, so that thousands of rows tie at each end of what is kept."""


def write_scores(path: Path, n: int) -> None:
    """Writes n float64 scores, lognormal like a perplexity, chunk by chunk."""
    with path.open("wb") as file:
        for start in range(0, n, CHUNK):
            rng = np.random.default_rng(start)
            scores = rng.lognormal(0.0, 0.5, min(CHUNK, n - start))
            (np.round(scores / LEVELS) * LEVELS).tofile(file)


def tie_breaks(start: int, n: int) -> np.ndarray:
    """Returns a hash of each row number (splitmix64), in place of the hash of a document id."""
    x = np.arange(start + 1, start + n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def chunks(path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (number of the first row, scores) of each chunk."""
    with path.open("rb") as file:
        start = 0
        while len(scores := np.fromfile(file, np.float64, CHUNK)):
            yield start, scores
            start += len(scores)


class Mask:
    """A digest over the bits of all rows, and how many are set."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=8)
        self.n_kept = 0

    def add(self, kept: np.ndarray) -> None:
        """Takes the next chunk's rows; its length is a multiple of 8, or it is the last."""
        self._digest.update(np.packbits(kept))
        self.n_kept += int(kept.sum())

    def result(self) -> dict[str, Any]:
        """Returns what a side reports."""
        return {"n_kept": self.n_kept, "digest": self._digest.hexdigest()}


def ours(path: Path, fraction: Fraction, which: str) -> dict[str, Any]:
    """Selects by rank over the chunks."""
    from corpusmill.pruning.config import SelectionConfig
    from corpusmill.pruning.selection import Rows, resolve

    passes = []

    def shards() -> Iterator[Rows]:
        passes.append(1)
        for start, scores in chunks(path):
            yield Rows(scores, tie_breaks(start, len(scores)))

    manifest = resolve(SelectionConfig(fraction=str(fraction), which=which), shards)
    mask = Mask()
    for rows in shards():
        mask.add(manifest.keep(rows.values, rows.doc_ids))
    return {**mask.result(), "passes": len(passes), "manifest_bytes": len(manifest.to_json())}


def ranks(n: int, fraction: Fraction, which: str) -> tuple[int, int]:
    """Returns the kept ranks [lo, hi) by the rule of the issue, written down a second time."""
    k = int(n * fraction + Fraction(1, 2))
    return {"bottom": (0, k), "middle": ((n - k) // 2, (n - k) // 2 + k), "top": (n - k, n)}[which]


def sort(path: Path, fraction: Fraction, which: str) -> dict[str, Any]:
    """Sorts all scores; among those that tie at an end, the smallest tie-breaks are below it."""
    scores = np.fromfile(path, np.float64)
    ordered = np.sort(scores)
    below = []
    for rank in ranks(len(scores), fraction, which):
        if rank == len(scores):
            below.append(np.ones(len(scores), bool))
            continue
        value = ordered[rank]
        mask = scores < value
        tied = np.flatnonzero(scores == value)
        need = rank - int(np.searchsorted(ordered, value, side="left"))
        hashes = np.array([tie_breaks(int(row), 1)[0] for row in tied])
        mask[tied[np.argsort(hashes, kind="stable")[:need]]] = True
        below.append(mask)
    mask = Mask()
    mask.add(below[1] & ~below[0])
    return mask.result()


def partition(path: Path, fraction: Fraction, which: str) -> dict[str, Any]:
    """Partitions row numbers at the two ranks."""
    scores = np.fromfile(path, np.float64)
    lo, hi = ranks(len(scores), fraction, which)
    inner = [rank for rank in (lo, hi) if 0 < rank < len(scores)]
    order = np.argpartition(scores, inner)
    kept = np.zeros(len(scores), bool)
    kept[order[lo:hi]] = True
    mask = Mask()
    mask.add(kept)
    return mask.result()


def duckdb(path: Path, fraction: Fraction, which: str) -> dict[str, Any]:
    """Asks DuckDB for the two thresholds, exact and approximate; both ends inclusive."""
    import duckdb as database
    import pyarrow as pa

    scores = np.fromfile(path, np.float64)
    connection = database.connect(config={"threads": "1"})
    connection.register("scores", pa.table({"s": scores}))
    lo, hi = {"bottom": (0, fraction), "middle": ((1 - fraction) / 2, (1 + fraction) / 2), "top": (1 - fraction, 1)}[
        which
    ]
    shares = {}
    for function in ("quantile_disc", "approx_quantile"):
        started = time.process_time()
        bounds = connection.execute(
            f"select {function}(s, {float(lo)}), {function}(s, {float(hi)}) from scores"
        ).fetchone()
        assert bounds is not None
        kept = (scores >= bounds[0]) & (scores <= bounds[1])
        shares[function] = {
            "kept_share": round(float(kept.mean()), 6),
            "cpu_s": round(time.process_time() - started, 2),
        }
    mask = Mask()
    mask.add((scores >= 0) & kept)
    return {**mask.result(), **shares}


SIDES: dict[str, Callable[[Path, Fraction, str], dict[str, Any]]] = {
    "ours": ours, "sort": sort, "partition": partition, "duckdb": duckdb,
}  # fmt: skip


@contextmanager
def watching() -> Iterator[dict[str, float]]:
    """Measures this process's CPU seconds and its highest PSS, looked at 20 times a second."""
    seen = {"cpu_s": 0.0, "peak_pss_mb": 0.0}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    seen["peak_pss_mb"] = max(seen["peak_pss_mb"], int(line.split()[1]) / 1024)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    started = time.process_time()
    yield seen
    seen["cpu_s"] = round(time.process_time() - started, 2)
    done.set()
    thread.join()
    seen["peak_pss_mb"] = round(seen["peak_pss_mb"], 1)


def work(task: tuple[str, Path, Fraction, str]) -> dict[str, Any]:
    """Runs one side in this process."""
    side, path, fraction, which = task
    with watching() as seen:
        result = SIDES[side](path, fraction, which)
    return {**result, **seen}


def main() -> None:
    """Measures the sides that are asked for and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e8, help="scores (1e8)")
    parser.add_argument("--fraction", type=Fraction, default=Fraction(3, 10), help="share to keep (3/10)")
    parser.add_argument("--which", choices=["bottom", "middle", "top"], default="middle")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--folder", type=Path, help="where the file of scores goes (8 bytes a row); a temporary one")
    asked = parser.parse_args()
    n = int(asked.rows)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "scores.f64"
        write_scores(path, n)
        for side in asked.sides:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[side] = pool.apply(work, [(side, path, asked.fraction, asked.which)])
            print(f"{side}: {json.dumps(results[side])}", file=sys.stderr, flush=True)
    outcome: dict[str, Any] = {"rows": n, "fraction": str(asked.fraction), "which": asked.which, "sides": results}
    if {"ours", "sort"} <= set(results):
        outcome["equal_to_sort"] = results["ours"]["digest"] == results["sort"]["digest"]
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
