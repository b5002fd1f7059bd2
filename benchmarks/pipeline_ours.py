"""Our side of the pipeline benchmark: a crawl through runner and lakehouse, its tasks in worker processes.

The tasks and their order are those of ``corpusmill refresh`` and of the DAG; shards of a stage run side by side. Stages
have processes of their own, as Airflow's tasks and the steps of datatrove's executor have.
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

    def pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

    def alone(*calls: tuple[Any, ...]) -> Any:
        with pool() as processes:
            return [processes.submit(task, *call).result() for call in calls][-1]

    planned = alone(("initialise", [recipe["name"]]), ("plan", recipe, crawl, "benchmark", base))
    uri, shards = planned["plan"], planned["shards"]

    def mapped(*stages: str) -> dict[str, Any]:
        with pool() as processes:
            for stage in stages:
                for done in [processes.submit(task, "run_shard", uri, stage, shard) for shard in shards]:
                    done.result()
                report = processes.submit(task, "commit", uri, stage).result()
        return dict(report)

    pages, documents = mapped("ingest"), mapped("clean")
    alone(("deduplicate", uri))
    mapped("refine_documents", "refine_chunks", "score")
    alone(("select", uri))
    mapped("assemble")
    published = alone(("validate", uri), ("publish", uri))
    alone(("report", uri, "success"))
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
