"""The same stage work as our side of the pipeline benchmark, without runner and lakehouse.

The stages' own functions write plain Parquet files in worker processes: pages, documents with all measures, the
deduplication index, duplicates, the corpus. There is no catalog, plan, commit, manifest, audit or report.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

BATCH_ROWS = 512


def ingest(config: dict[str, Any], base: str, crawl: str, files: list[str], out: str) -> int:
    """Extracts some files' pages; returns their number."""
    import pyarrow.parquet as pq

    from corpusmill.ingest.config import IngestConfig
    from corpusmill.ingest.stage import IngestStage
    from corpusmill.schema import PAGES

    stage, n = IngestStage(IngestConfig.load(config)), 0
    stage.setup()
    try:
        with pq.ParquetWriter(out, PAGES.schema, compression="zstd", compression_level=3) as writer:
            for file in files:
                for output in stage.read_file(base, file, crawl, Path(out).parent):
                    writer.write_table(output.kept)
                    n += output.kept.num_rows
    finally:
        stage.close()
    return n


def clean(config: dict[str, Any], pages: str, files: list[str], out: str) -> int:
    """Measures and decides some files' pages; returns how many are kept."""
    import pyarrow.parquet as pq

    from corpusmill.rules.config import RulesConfig
    from corpusmill.rules.stage import CleanStage

    stage, n = CleanStage(RulesConfig.load(config)), 0
    stage.setup()
    with pq.ParquetWriter(out, stage.output_schema, compression="zstd", compression_level=3) as writer:
        for file in files:
            rows = pq.read_table(pages, columns=list(stage.input_columns), filters=[("warc_file", "=", file)])
            for start in range(0, rows.num_rows, BATCH_ROWS):
                output = stage.process(rows.slice(start, BATCH_ROWS))
                n += output.kept.num_rows
                writer.write_table(output.kept)
                writer.write_table(output.removed)
    return n


def deduplicate(config: dict[str, Any], crawl: str, documents: list[str], folder: str) -> None:
    """Writes the index and the duplicates of a crawl."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from corpusmill.dedup.config import NearConfig
    from corpusmill.dedup.exact import find_exact_duplicates
    from corpusmill.dedup.index import MemoryIndex, sign
    from corpusmill.dedup.minhash import Signer, key_column
    from corpusmill.dedup.near import CrawlDocuments, NearDuplicates
    from corpusmill.dedup.policy import near_rows, with_near

    near = NearConfig.load(config)
    kept = pq.read_table(
        documents, columns=["doc_id", "warc_file", "dedup_digest", "text"], filters=[("kept", "=", True)]
    )
    exact = find_exact_duplicates(kept.select(["doc_id", "warc_file", "dedup_digest"]), crawl, ())
    signer = Signer(bands=near.bands, rows=near.rows, ngram=near.ngram)
    first = kept.group_by("dedup_digest").aggregate([("doc_id", "min")])["doc_id_min"].combine_chunks()

    def texts(wanted: Any) -> Iterator[tuple[Any, Any]]:
        rows = kept.filter(pc.is_in(kept["doc_id"], value_set=wanted))
        for start in range(0, rows.num_rows, 2_000):
            yield rows["doc_id"].slice(start, 2_000), rows["text"].slice(start, 2_000)

    index = MemoryIndex(sign(texts(first), signer, near.bands), near.bands, len(first))
    bands = []
    for band in range(near.bands):
        keys, numbers = index.band(band)
        ids = index.doc_ids.take(pa.array(numbers, pa.int64()))
        bands.append(pa.table({"band": [band] * len(keys), "key": key_column(keys), "doc_id": ids}))
    pq.write_table(pa.concat_tables(bands), f"{folder}/index.parquet", compression="zstd", compression_level=3)
    own = CrawlDocuments(crawl, index, texts, lambda: None)  # type: ignore[arg-type, return-value]  # not asked
    gone = exact.filter(pc.invert(exact["kept"]))["doc_id"].combine_chunks()
    removed = pc.is_in(index.doc_ids, value_set=gone).to_numpy(zero_copy_only=False)
    with NearDuplicates([own], near.bands, near.threshold, signer.shingler) as found:
        rows = near_rows([own], found.find(removed), exact)
    found_rows = with_near(exact, rows, kept.select(["doc_id", "warc_file"]), crawl)
    pq.write_table(found_rows, f"{folder}/duplicates.parquet", compression="zstd", compression_level=3)


def assemble(pages: str, documents: str, folder: str, out: str) -> int:
    """Writes the kept documents of some files that are no duplicates, with their places; returns their number."""
    import duckdb
    import pyarrow.parquet as pq

    removed = f"(select doc_id from '{folder}/duplicates.parquet' where not kept)"
    rows = duckdb.sql(
        "select d.crawl, d.doc_id, p.url, d.language, d.language_score, d.text, length(d.text) as n_chars, "
        "d.dedup_digest, d.warc_file, p.warc_offset, p.warc_length, p.fetch_time "
        f"from '{documents}' d join '{pages}' p using (doc_id) where d.kept and d.doc_id not in {removed} "
        "order by d.language, d.doc_id"
    ).to_arrow_table()
    pq.write_table(rows, out, compression="zstd", compression_level=3)
    return int(rows.num_rows)


def run(given: dict[str, Any], folder: Path) -> dict[str, int]:
    """Takes a crawl to Parquet files; returns counts of documents."""
    recipe, crawl, workers = given["recipe"], given["crawl"], given["workers"]
    bounds = [len(given["files"]) * i // workers for i in range(workers + 1)]
    shards = [given["files"][bounds[i] : bounds[i + 1]] for i in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:

        def mapped(function: Any, arguments: list[tuple[Any, ...]]) -> int:
            return sum(done.result() for done in [pool.submit(function, *one) for one in arguments])

        pages, documents, corpus = (
            [f"{folder}/{name}-{i}.parquet" for i in range(workers)] for name in ("pages", "documents", "corpus")
        )
        shown = {
            "extracted": mapped(
                ingest, [(recipe["ingest"], given["base"], crawl, *one) for one in zip(shards, pages, strict=True)]
            ),
            "after_rules": mapped(
                clean, [(recipe["rules"], *one) for one in zip(pages, shards, documents, strict=True)]
            ),
        }
        pool.submit(deduplicate, recipe["deduplication"]["near"], crawl, documents, str(folder)).result()
        kept = mapped(assemble, [(p, d, str(folder), c) for p, d, c in zip(pages, documents, corpus, strict=True)])
    return {**shown, "kept": kept}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    place = Path(given["out"])
    place.mkdir(parents=True)
    os.environ["CORPUSMILL_HOME"] = str(place)
    result = run(given, place)
    Path(given["result"]).write_text(json.dumps(result))
