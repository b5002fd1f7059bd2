"""How quick the UI's pages are on a corpus of many crawls: what the API server reads for one request.

Fills ``ops.runs`` of a lakehouse in a scratch folder with one published run for each crawl, each with a report of full
size, then asks for the home page's figures, for one run's tab and for one shard's tab: first as a server that has just
started, then as one that has answered before. The same is measured on a corpus of one crawl.

    python benchmarks/ui.py --crawls 100

The last line is JSON: median CPU seconds of each page, ``first`` and ``again``, on ``crawls`` crawls; ``ratio_*`` is
the time on one crawl over the time on all of them (1.0: the number of crawls does not matter).
"""

import argparse
import datetime as dt
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

REPEATS = 5


def fill(crawls: int) -> None:
    """Stores one run for each crawl, with a report of nearly the largest size."""
    from corpusmill.batches import rows_to_table
    from corpusmill.lakehouse.shards import RunToken
    from corpusmill.runner import chain
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.records import record_uri, write_record
    from corpusmill.runner.report_bounds import bounded
    from corpusmill.runner.whole_crawl import commit_rows
    from corpusmill.schema import RUNS

    chain.initialise(["demo"])
    lake, now = open_lakehouse(), dt.datetime.now(dt.UTC)
    full = bounded(synthetic_report())
    for i in range(crawls):
        crawl = f"CC-MAIN-{2010 + i // 12}-{1 + 4 * (i % 12):02d}"
        report = full | {"crawl": crawl}
        write_record(lake, record_uri(lake, "demo", crawl, "epoch-00001", "report.json"), report)
        row = {
            "recipe": "demo", "crawl": crawl, "epoch": 1, "run_id": f"backfill__{crawl}", "state": "success",
            "message": "", "config": "{}", "commit_keys": "{}", "n_published": 1000 + i, "snapshot": "1",
            "report": json.dumps({k: v for k, v in report.items() if k != "examples"}), "tag": f"demo/{crawl}/1",
            "started_at": now, "ended_at": now, "versions": "{}",
        }  # fmt: skip
        partition = {"recipe": "demo", "crawl": crawl, "epoch": "1"}
        token = RunToken("demo/runs", f"{crawl}/1", f"backfill__{crawl}", 0, crawl)
        commit_rows(lake, "ops.runs", partition, rows_to_table([row], RUNS.schema), token)


def synthetic_report() -> dict[str, Any]:
    """Returns a report with ten stages, sixty reasons each, and more examples than fit."""
    reasons = {f"rule_set.rule_{n:02d}": 1000 + n for n in range(60)}
    step = {"documents_kept": 10**8, "characters_kept": 10**11, "removed": reasons, "quarantined": {}, "metrics": {}}
    text = "A line of a document that a refiner looked at.\n" * 120
    example = {
        "doc_id": "d",
        "url": "https://a.example/",
        "reason": "edited",
        "before": text,
        "program": "",
        "after": text,
    }
    return {
        "crawl": "", "recipe": "demo", "message": "", "validation": None, "state": "success",
        "funnel": [{"stage": f"stage_{n}", **step} for n in range(10)], "examples": [example] * 300,
    }  # fmt: skip


def pages() -> dict[str, Callable[[], Any]]:
    """Returns what each page reads, without Airflow's own share (session, rights, states)."""
    from corpusmill.lakehouse.epochs import current_epoch
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.run_history import earlier_funnels, find_run, newest_published, past_runs, run_report

    lake = open_lakehouse()
    newest = past_runs(lake)[-1]

    def run_tab() -> int:
        run = find_run(lake, "demo", newest.run_id)
        assert run is not None
        report = run_report(lake, run)
        current_epoch(lake, "demo", run.crawl)
        earlier_funnels(lake, "demo", run.crawl, run.epoch)
        return len(json.dumps(report))

    return {"home": lambda: newest_published(lake, "demo"), "run": run_tab}


def measure(crawls: int) -> dict[str, float]:
    """Returns median CPU seconds by page on a corpus of so many crawls."""
    from corpusmill.runner import run_history

    with tempfile.TemporaryDirectory(prefix="corpusmill-ui-") as folder:
        os.environ["CORPUSMILL_HOME"] = folder
        fill(crawls)
        found = {}
        for name, ask in pages().items():
            for when in ("first", "again"):
                seconds = []
                for _ in range(REPEATS):
                    if when == "first":
                        run_history._known.clear()
                    started = time.process_time()
                    ask()
                    seconds.append(time.process_time() - started)
                found[f"{name}_{when}_cpu_s"] = statistics.median(seconds)
    return found


def main() -> None:
    """Measures one crawl and many; prints a line for each on stderr, and the JSON line on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crawls", type=int, default=100)
    given = parser.parse_args()
    one, many = measure(1), measure(given.crawls)
    for name, seconds in many.items():
        print(f"{name}: {seconds:.4f} s on {given.crawls} crawls, {one[name]:.4f} s on one", file=sys.stderr)
    ratios = {f"ratio_{name.removesuffix('_cpu_s')}": round(one[name] / many[name], 3) for name in many}
    print(json.dumps({"crawls": given.crawls, **{k: round(v, 5) for k, v in many.items()}, **ratios}))


if __name__ == "__main__":
    main()
