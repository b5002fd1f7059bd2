"""Near duplicates: signatures against datatrove, and the bucket join against polars and DuckDB, in one run.

    CORPUSMILL_HOME=... .venv/bin/python benchmarks/dedup.py --warc FILE... [--rounds 3] [--documents 2000000] [--quick]

Signatures: main content of every English page, text in memory, one core a side, processes of their own, rounds of both
sides alternate, median of the rounds. Ours counts simplification, scan and hashing, with an empty lexicon that has seen
none of the pages; datatrove's counts ``get_shingles`` and ``get_signature``.

Bucket join: 14 bands of documents (2,000,000: 28 million keys), 30 % of them copies of others, in one zstd Parquet file
a band with ``key`` binary(16), its two halves ``high`` and ``low`` as uint64, and ``id``, sorted by (key, id): the form
of the deduplication index. All engines read these files and must find the same number of edges; of the peers the
quicker form of the key counts. Ours uses the order, theirs group by hashes. ``ours:sort`` reads the same rows in
document order and sorts them first, which a crawl's index costs once; ``roots`` is the union-find over all edges. Time
is CPU time of reading and joining, memory the largest resident size of the process.

The last line is JSON.
"""

import argparse
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
BANDS = 14
OURS, PEER = "ours", "datatrove"
PEERS = ("polars", "duckdb")
JOINS = ("ours", "ours:sort", "polars:key", "polars:halves", "duckdb:key", "duckdb:halves")


def sign_ours(texts: list[str]) -> dict[str, Any]:
    """Returns our CPU seconds, cold and on the same pages again, and digests of the signatures."""
    import pyarrow as pa

    from corpusmill.dedup.minhash import Signer, has_signature

    column = pa.array(texts, pa.large_string())
    seconds = {}
    Signer(engine="compiled").signatures(column[:0])  # tables and kernels are loaded before the clock starts
    signer = Signer(engine="compiled")
    for name in ("cold", "warm"):
        started = time.process_time()
        found = signer.signatures(column)
        seconds[name] = time.process_time() - started
    signed = has_signature(found).tolist()
    return {
        "seconds": seconds,
        "signatures": [row.tolist() if s else None for row, s in zip(found, signed, strict=True)],
    }


def sign_peer(texts: list[str]) -> dict[str, Any]:
    """Returns datatrove's CPU seconds and signatures; runs in the peers' environment."""
    minhash = importlib.import_module("datatrove.pipeline.dedup.minhash")
    with tempfile.TemporaryDirectory() as folder:
        step = minhash.MinhashDedupSignature(folder, minhash.MinhashConfig())
        step.get_signature(step.get_shingles("one two three four five six"))  # the tokenizer is loaded
        found = []
        started = time.process_time()
        for text in texts:
            shingles = step.get_shingles(text)
            found.append(step.get_signature(shingles) if shingles.size else None)
        seconds = time.process_time() - started
    values = [None if bands is None else [value for band in bands for value in band] for bands in found]
    return {"seconds": seconds, "signatures": values}


def run_part(arguments: list[str], python: Path) -> dict[str, Any]:
    """Runs one side in a process of its own and returns what it prints."""
    environment = os.environ | {"POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def peers_python() -> Path:
    """Returns the interpreter of the peers' environment."""
    path = Path(os.environ.get("CORPUSMILL_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python"))
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; run make peers or set CORPUSMILL_PEERS_PYTHON")
    return path


def compare_signatures(texts: list[str], rounds: int) -> dict[str, float]:
    """Returns mismatches and ratios over alternating rounds of both sides."""
    ratios: dict[str, list[float]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(texts))
        for number in range(rounds):
            theirs = run_part(["--side", PEER, "--texts", str(path)], peers_python())
            ours = run_part(["--side", OURS, "--texts", str(path)], Path(sys.executable))
            say(f"signatures, round {number + 1}: datatrove {theirs['seconds']:.2f} s, ours {ours['seconds']}")
            for name, values in ratios.items():
                values.append(theirs["seconds"] / ours["seconds"][name])
    pairs = zip(theirs["signatures"], ours["signatures"], strict=True)
    say(f"signatures of pages seen before: {statistics.median(ratios['warm']):.1f}x")
    return {
        "signature_mismatches": sum(a != b for a, b in pairs),
        "ratio_signatures": round(statistics.median(ratios["cold"]), 1),
    }


def make_bands(n: int, folder: Path) -> None:
    """Writes the keys of each band of n documents, in document order and sorted."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from corpusmill.dedup.minhash import KEY_TYPE, key_column, sort_order

    rng = np.random.default_rng(0)
    source = np.arange(n)
    copied = rng.random(n) < 0.3
    source[copied] = rng.integers(0, n, int(copied.sum()))
    ids = np.arange(n)
    for band in range(BANDS):
        halves = np.random.default_rng(band + 1).integers(0, 2**64, size=(n, 2), dtype=np.uint64)[source]
        keys = halves.astype(">u8").view(KEY_TYPE).reshape(-1)
        for name, order in (("signed", ids), ("sorted", sort_order(keys, ids))):
            table = pa.table(
                {
                    "key": key_column(keys[order]),
                    "high": halves[order, 0],
                    "low": halves[order, 1],
                    "id": ids[order],
                }
            )
            pq.write_table(table, folder / f"{name}{band:02d}.parquet", compression="zstd", use_dictionary=False)


def join_ours(folder: Path, name: str) -> dict[str, float]:
    """Returns our edges and CPU seconds of the joins, and of the union-find over all edges."""
    import pyarrow.parquet as pq

    from corpusmill.dedup.clusters import Components, join_bucket, key_words
    from corpusmill.dedup.minhash import KEY_TYPE, sort_order

    n_edges, seconds, root_seconds, components = 0, 0.0, 0.0, None
    for band in range(BANDS):
        started = time.process_time()
        table = pq.ParquetFile(folder / f"{name}{band:02d}.parquet").read(["key", "id"], use_threads=False)
        keys = key_words(table["key"].combine_chunks()).view(KEY_TYPE).reshape(-1)
        ids = table["id"].to_numpy()
        if name == "signed":
            order = sort_order(keys, ids)
            keys, ids = keys[order], ids[order]
        edges = join_bucket(keys, ids)
        n_edges += len(edges)
        joined = time.process_time()
        components = components or Components(len(ids))
        components.link(edges)
        seconds, root_seconds = seconds + joined - started, root_seconds + time.process_time() - joined
    return {"edges": n_edges, "seconds": seconds, "roots": root_seconds}


def join_polars(folder: Path, keys: list[str]) -> dict[str, float]:
    """Returns polars' edges and CPU seconds."""
    import polars as pl

    n_edges, started = 0, time.process_time()
    for band in range(BANDS):
        rows = pl.scan_parquet(folder / f"sorted{band:02d}.parquet").select(*keys, "id")
        lowest = rows.group_by(keys).agg(pl.col("id").min().alias("lowest"), pl.len().alias("n"))
        edges = rows.join(lowest.filter(pl.col("n") > 1), on=keys).filter(pl.col("id") != pl.col("lowest"))
        n_edges += len(edges.select("id", "lowest").collect(engine="streaming"))
    return {"edges": n_edges, "seconds": time.process_time() - started}


def join_duckdb(folder: Path, keys: list[str]) -> dict[str, float]:
    """Returns DuckDB's edges and CPU seconds."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set threads=2; set memory_limit='2GB'; set preserve_insertion_order=false")
    connection.execute(f"set temp_directory='{folder}/spill'")
    n_edges, started, names = 0, time.process_time(), ", ".join(keys)
    for band in range(BANDS):
        file = folder / f"sorted{band:02d}.parquet"
        edges = connection.sql(
            f"with lowest as (select {names}, min(id) as low_id from '{file}' group by {names} having count(*) > 1) "
            f"select id, low_id from '{file}' join lowest using ({names}) where id <> low_id"
        ).to_arrow_table()
        n_edges += edges.num_rows
    return {"edges": n_edges, "seconds": time.process_time() - started}


def join(folder: Path, name: str) -> dict[str, float]:
    """Runs one engine's join in this process."""
    import resource

    engine, _, form = name.partition(":")
    keys = ["key"] if form == "key" else ["high", "low"]
    if engine == "polars":
        found = join_polars(folder, keys)
    elif engine == "duckdb":
        found = join_duckdb(folder, keys)
    else:
        found = join_ours(folder, "signed" if form == "sort" else "sorted")
    return found | {"megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def compare_joins(n: int, rounds: int) -> dict[str, float]:
    """Returns the ratios over alternating rounds of all engines."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in JOINS}
    with tempfile.TemporaryDirectory() as folder:
        run_part(["--make", str(n), "--bands", folder], Path(sys.executable))
        for number in range(rounds):
            for name in JOINS:
                found[name].append(run_part(["--join", name, "--bands", folder], Path(sys.executable)))
                one = found[name][-1]
                rate = f"{BANDS * n / one['seconds'] / 1e6:.1f} M keys/s"
                say(
                    f"join, round {number + 1}: {name} {one['seconds']:.2f} s, {rate}, {one['megabytes']:.0f} MB, {one}"
                )
    edges = {int(one["edges"]) for results in found.values() for one in results}
    assert len(edges) == 1, f"engines found different numbers of edges: {edges}"
    seconds = {name: statistics.median(one["seconds"] for one in results) for name, results in found.items()}
    say(f"{BANDS * n} keys, {edges.pop()} edges; median CPU seconds {seconds}")
    sort = {peer: min(seconds[f"{peer}:key"], seconds[f"{peer}:halves"]) / seconds["ours:sort"] for peer in PEERS}
    say(f"the same with our sort: {sort}")
    return {
        f"ratio_join_{peer}": round(min(seconds[f"{peer}:key"], seconds[f"{peer}:halves"]) / seconds["ours"], 1)
        for peer in PEERS
    }


def say(text: str) -> None:
    """Prints progress; standard output is for the last line."""
    print(text, file=sys.stderr, flush=True)


def texts_of(warcs: list[Path], n: int | None) -> list[str]:
    """Returns the main content of English pages; see `benchmarks/rules.py`."""
    sys.path.insert(0, str(Path(__file__).parent))
    pages: Iterator[str] = importlib.import_module("rules").pages(warcs)
    return list(itertools.islice(pages, n))


def parse() -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warc", nargs="+", type=Path, default=[], help="WARC files; default: the shared demo crawl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, help="take so many pages at most")
    parser.add_argument("--documents", type=int, default=2_000_000, help="documents of the bucket join")
    parser.add_argument("--quick", action="store_true", help="one round, 60 pages, 50,000 documents")
    for hidden in ("--side", "--join", "--make"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bands", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Runs the benchmark, or one part of it."""
    options = parse()
    if options.side:
        texts = json.loads(options.texts.read_text())
        print(json.dumps(sign_ours(texts) if options.side == OURS else sign_peer(texts)))
    elif options.make:
        make_bands(int(options.make), options.bands)
        print("{}")
    elif options.join:
        print(json.dumps(join(options.bands, options.join)))
    else:
        shared = Path(os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
        crawl = shared / "crawls" / "crawl-data" / "CC-DEMO-2024-10"
        warcs = options.warc or sorted(crawl.glob("segments/*/warc/*.warc.gz"))
        texts = texts_of(warcs, 60 if options.quick else options.pages)
        if not texts:
            raise SystemExit("no English pages: name WARC files with --warc or set CORPUSMILL_SHARED_DATA")
        say(f"{len(texts)} English pages, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB")
        rounds = 1 if options.quick else options.rounds
        result = compare_signatures(texts, rounds)
        result |= compare_joins(50_000 if options.quick else options.documents, rounds)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
