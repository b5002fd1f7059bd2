"""datatrove's side of the pipeline benchmark: FineWeb's steps by its local executor; runs in the peers' environment."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline import dedup, extractors, filters, readers, writers


def language_filter(model: Path) -> Any:
    """Returns the filter with the model file of our side in place of a download."""
    made = filters.LanguageFilter(languages=["en"])
    made.model.MODEL_URL = str(model)
    return made


def run(base: Path, out: Path, workers: int, model: Path) -> dict[str, int]:
    """Takes a crawl to Parquet: FineWeb's filters, then MinHash in its four steps; returns counts of documents."""

    def execute(name: str, tasks: int, *steps: Any) -> None:
        folder = str(out / "logs" / name)
        LocalPipelineExecutor(list(steps), tasks=tasks, workers=min(workers, tasks), logging_dir=folder).run()

    filtered, signatures, buckets, removed = (str(out / n) for n in ("filtered", "signatures", "buckets", "removed"))
    execute(
        "filter", workers,
        readers.WarcReader(str(base / "crawl-data"), glob_pattern="**/warc/*.warc.gz", compression="gzip"),
        extractors.Trafilatura(timeout=10),
        language_filter(model),
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
        writers.ParquetWriter(filtered, compression="zstd"),
    )  # fmt: skip
    config = dedup.MinhashConfig()
    execute("sign", workers, readers.ParquetReader(filtered), dedup.MinhashDedupSignature(signatures, config))
    execute("bucket", config.num_buckets, dedup.MinhashDedupBuckets(signatures, buckets, config=config))
    execute("cluster", 1, dedup.MinhashDedupCluster(buckets, removed, config=config))
    execute(
        "remove", workers,
        readers.ParquetReader(filtered),
        dedup.MinhashDedupFilter(removed),
        writers.ParquetWriter(str(out / "corpus"), compression="zstd"),
    )  # fmt: skip
    extractor = json.loads((out / "logs" / "filter" / "stats.json").read_text())[1]["stats"]
    forwarded = extractor["forwarded"]  # a number where it is one everywhere, else its sums
    return {
        "extracted": int(forwarded["total"] if isinstance(forwarded, dict) else forwarded),
        "after_rules": rows(Path(filtered)),
        "kept": rows(out / "corpus"),
    }


def rows(folder: Path) -> int:
    """Returns the rows of all Parquet files of a folder."""
    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    place = Path(given["out"])
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.environ["HF_ASSETS_CACHE"] = str(place / "assets")
    result = run(Path(given["base"]), place, given["workers"], Path(given["language_model"]))
    Path(given["result"]).write_text(json.dumps(result))
