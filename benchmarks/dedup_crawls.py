"""Near duplicates across crawls in a lakehouse: CPU seconds and peak memory, on synthetic documents.

Two crawls of equal size are written to a lakehouse of their own, the older one is published, and both are deduplicated,
each in a process of its own. Of the newer crawl 10 % are exact copies of the older one, 20 % near duplicates of it, and
10 % near duplicates of others of its own crawl. Memory is the process's peak less its peak before the first document.

    python benchmarks/dedup_crawls.py --documents 100000

The last line is a JSON object: for both crawls ``cpu_s``, ``index_cpu_s`` (signing and sorting, part of the former),
``memory_mb``, ``memory_mb_per_million``, ``removed``, ``pairs`` (near duplicates reported), ``least_similarity``.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import rows_to_table
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.recipe import parse_recipe
from corpusmill.runner import deduplicate as stage
from corpusmill.runner.dedup_index import build_index, signer_of
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import RunPlan, commit_keys, cut_shards, load_plan, published_base
from corpusmill.runner.provenance import provenance_uri
from corpusmill.runner.records import write_record
from corpusmill.runner.stage_tables import stage_table
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import CORPUS, DOCUMENTS

NAME = "synthetic"
CRAWLS = ("S-2024-10", "S-2024-20")
WORDS = 150
"""Words of a document."""
PER_FILE = 5_000
"""Documents of an input file."""
EDITED = 4
"""Words that a near duplicate has in place of others."""


def vocabulary() -> np.ndarray:
    """Returns 30,000 words of letters, the first of which are drawn most often."""
    rng = np.random.default_rng(0)
    letters = rng.choice(list("etaoinshrdlucmfwypvbgkjqxz"), size=(30_000, 7))
    return np.array(["".join(row[: 3 + i % 5]) for i, row in enumerate(letters)])


def word_numbers(seed: int, n: int) -> np.ndarray:
    """Returns the words of n documents, (n, WORDS), drawn as Zipf's law has it."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.zipf(1.3, size=(n, WORDS)), 30_000) - 1


def crawl_texts(number: int, n: int) -> np.ndarray:
    """Returns the words of a crawl's documents, (n, WORDS); those of the second crawl repeat some of the first."""
    rng = np.random.default_rng(100 + number)
    own = word_numbers(number, n)
    inside = np.arange(n // 10)
    own[inside + n // 2] = edited(own[inside], rng)
    if number:
        older = word_numbers(0, n)
        own[-n // 10 :] = older[-n // 10 :]
        near = slice(n - 3 * n // 10, n - n // 10)
        own[near] = edited(older[near], rng)
    return own


def edited(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns documents with some words replaced."""
    changed = words.copy()
    places = rng.integers(0, WORDS, size=(len(words), EDITED))
    np.put_along_axis(changed, places, rng.integers(1_000, 30_000, size=places.shape), axis=1)
    return changed


def write_documents(lake: Lakehouse, plan: RunPlan, number: int, n: int) -> None:
    """Commits a crawl's documents as the rules would, a file at a time."""
    from corpusmill.lakehouse.commit import commit_partition
    from corpusmill.lakehouse.shards import ShardWriter

    words, drawn = vocabulary(), crawl_texts(number, n)
    place, token = stage_table(plan, "clean"), plan.token("clean")
    with ShardWriter(lake.table(place.identifier), place.partition, token, "all") as writer:
        for f, file in enumerate(plan.files):
            rows = []
            for i in range(f * PER_FILE, min(n, (f + 1) * PER_FILE)):
                text = " ".join(words[drawn[i]])
                size = len(text)
                rows.append(
                    {
                        "crawl": plan.crawl, "doc_id": f"{number}{i * 2654435761 % 2**32:08x}-{i:026x}", "url": str(i),
                        "warc_file": file, "n_chars_raw": size, "n_chars": size, "n_pii": 0, "kept": True,
                        "dedup_digest": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), "text": text,
                    }
                )  # fmt: skip
            writer.write(rows_to_table(rows, DOCUMENTS.schema))
        manifest = writer.finish({})
    commit_partition(lake, place.identifier, place.partition, [manifest], token, expected_shards=["all"])


def make_plan(lake: Lakehouse, crawl: str, n: int) -> RunPlan:
    """Stores and returns the plan of a crawl."""
    recipe = parse_recipe({"name": NAME, "deduplication": {"near": {}}})
    base = published_base(lake, NAME, crawl)
    files = [f"{i:05d}.warc.gz" for i in range(-(-n // PER_FILE))]
    keys = commit_keys(recipe, crawl, extraction="none", paths_digest=str(n), models={}, base=base)
    plan = RunPlan(
        recipe=recipe.model_dump(mode="json"), crawl=crawl, run_id=crawl, epoch=take_epoch(lake, NAME, crawl, crawl),
        base_location="", extraction="none", shards=cut_shards(files, 1), models={}, base=base, keys=keys,
        started_at="",
    )  # fmt: skip
    write_record(lake, plan.uri(lake), plan.model_dump(mode="json"))
    return plan


def publish(lake: Lakehouse, plan: RunPlan) -> None:
    """Commits what deduplication left as the published corpus."""
    table, at = lake.table(f"{NAME}.documents"), {"crawl": plan.crawl}
    found = lake.table(f"{NAME}.duplicates").scan(at, columns=["doc_id", "kept"])
    removed = stage.removed_ids(found).combine_chunks()
    rows = table.scan(at, columns=["crawl", "doc_id", "url", "warc_file", "n_chars", "dedup_digest", "text"])
    rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=removed)))
    zeros = pa.array(np.zeros(rows.num_rows, dtype=np.int64))
    for name in ("warc_offset", "warc_length"):
        rows = rows.append_column(name, zeros)
    rows = rows.append_column("recipe_fingerprint", pa.array([""] * rows.num_rows, pa.large_string()))
    for field in CORPUS.schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
    commit_rows(lake, f"{NAME}.corpus", at, rows.select(CORPUS.schema.names), plan.token("corpus"))
    uri = provenance_uri(lake, NAME, plan.crawl, plan.keys["corpus"])
    write_record(lake, uri, {"plan": plan.uri(lake)})


def measured(uri: str) -> dict[str, Any]:
    """Deduplicates the crawl of a plan in this process; returns its figures."""
    lake = open_lakehouse()
    plan = load_plan(lake, uri)
    config = plan.parsed_recipe().deduplication.near
    assert config is not None
    signer = signer_of(config.bands, config.rows, config.ngram)  # its seconds and bytes do not depend on the documents
    signer.signatures(pa.array(["a word or two and a few more"], pa.large_string()))
    before, started = peak_mb(), time.process_time()
    build_index(lake, plan, config, plan.token("minhash"))
    indexed = time.process_time()
    report = stage.deduplicate(lake, plan)
    done, n = time.process_time(), report.documents_in
    rows = lake.table(f"{NAME}.duplicates").scan({"crawl": plan.crawl}, columns=["kind", "kept", "similarity"])
    near = rows.filter(pc.and_(pc.equal(rows["kind"], pa.scalar("near", pa.large_string())), pc.invert(rows["kept"])))
    memory = peak_mb() - before
    return {
        "documents": n,
        "cpu_s": round(done - started, 1),
        "index_cpu_s": round(indexed - started, 1),
        "memory_mb": round(memory),
        "memory_mb_per_million": round(memory * 1e6 / n),
        "removed": report.removed,
        "pairs": near.num_rows,
        "least_similarity": round(float(pc.min(near["similarity"]).as_py() or 0), 3),
    }


def peak_mb() -> float:
    """Returns the process's peak resident memory so far, MB; `getrusage` would count the parent's before the start."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def main() -> None:
    """Writes the crawls, deduplicates each in a child process and prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=20_000, help="documents of each crawl")
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan:
        print(json.dumps(measured(arguments.plan)))
        return
    figures = {}
    with tempfile.TemporaryDirectory(prefix="corpusmill-dedup-") as home:
        os.environ["CORPUSMILL_HOME"] = home
        lake = open_lakehouse()
        lake.init([NAME])
        for number, crawl in enumerate(CRAWLS):
            plan = make_plan(lake, crawl, arguments.documents)
            write_documents(lake, plan, number, arguments.documents)
            command = [sys.executable, str(Path(__file__)), "--plan", plan.uri(lake)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures[crawl] = json.loads(done.stdout.splitlines()[-1])
            print(f"{crawl}: {figures[crawl]}", flush=True)
            publish(lake, plan)
    print(json.dumps({"older": figures[CRAWLS[0]], "newer": figures[CRAWLS[1]]}))


if __name__ == "__main__":
    main()
