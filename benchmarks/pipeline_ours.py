"""Our side of the pipeline benchmark: a crawl through runner and lakehouse, its tasks in worker processes.

The tasks and their order are those of ``corpusmill refresh`` and of the DAG; shards of a stage run side by side.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any


def task(function: str, *arguments: Any) -> Any:
    """Calls a function of the chain; in a worker."""
    from corpusmill.runner import chain

    return getattr(chain, function)(*arguments)


def run(recipe: dict[str, Any], base: str, crawl: str, workers: int) -> dict[str, int]:
    """Takes a crawl to the published corpus; returns counts of documents."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:

        def call(function: str, *arguments: Any) -> Any:
            return pool.submit(task, function, *arguments).result()

        call("initialise", [recipe["name"]])
        planned = call("plan", recipe, crawl, "benchmark", base)
        uri, shards = planned["plan"], planned["shards"]

        def mapped(stage: str) -> dict[str, Any]:
            for done in [pool.submit(task, "run_shard", uri, stage, shard) for shard in shards]:
                done.result()
            return dict(call("commit", uri, stage))

        pages, documents = mapped("ingest"), mapped("clean")
        call("deduplicate", uri)
        for stage in ("refine_documents", "refine_chunks", "score"):
            mapped(stage)
        call("select", uri)
        mapped("assemble")
        call("validate", uri)
        published = call("publish", uri)
        call("report", uri, "success")
    return {
        "extracted": pages["documents_kept"],
        "after_rules": documents["documents_kept"],
        "kept": published["published"],
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    home = Path(given["out"])
    home.mkdir(parents=True)
    os.environ["CORPUSMILL_HOME"] = str(home)
    result = run(given["recipe"], given["base"], given["crawl"], given["workers"])
    Path(given["result"]).write_text(json.dumps(result))
