"""What ``ops.runs`` says of earlier runs: which there were, how they ended, and their funnels.

Everything here reads one small row for each run, without its report and settings, and keeps the list until the table
changes: pages that are opened a hundred times read the table once. A report is read for one run at a time.
"""

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from corpusmill.dedup.crawl_order import crawl_order
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.records import find_record, record_uri

RUNS_TABLE = "ops.runs"
SUCCESS = "success"

_known: dict[str, tuple[int | None, tuple["PastRun", ...]]] = {}
"""The runs of a warehouse by the snapshot that they were read from."""


class PastRun(NamedTuple):
    """One run as ``ops.runs`` has it; ``epoch`` is its number for its recipe and crawl."""

    recipe: str
    crawl: str
    epoch: int
    run_id: str
    state: str
    message: str
    n_published: int
    tag: str | None
    started_at: dt.datetime | None
    ended_at: dt.datetime | None

    @property
    def published(self) -> bool:
        """Whether the run ended well and the corpus held documents of its crawl then."""
        return self.state == SUCCESS and self.n_published > 0


def past_runs(lake: Lakehouse) -> tuple[PastRun, ...]:
    """Returns every run that was reported, oldest crawl first, then by epoch; read anew only after a change."""
    table = lake.table(RUNS_TABLE)
    snapshot, place = table.snapshot_id(), str(lake.settings.warehouse)
    known = _known.get(place)
    if known is not None and known[0] == snapshot:
        return known[1]
    rows = table.scan(None, columns=list(PastRun._fields)).to_pylist()
    runs = tuple(sorted((PastRun(**row) for row in rows), key=lambda r: (r.recipe, crawl_order(r.crawl), r.epoch)))
    _known[place] = (snapshot, runs)
    return runs


def runs_of(runs: Iterable[PastRun], recipe: str, crawl: str | None = None) -> list[PastRun]:
    """Returns a recipe's runs, those of one crawl where it is named, in the order of `past_runs`."""
    return [r for r in runs if r.recipe == recipe and crawl in (None, r.crawl)]


def find_run(lake: Lakehouse, recipe: str, run_id: str) -> PastRun | None:
    """Returns the newest row of a run, None where it has not been reported; a cleared run has several epochs."""
    found = [r for r in runs_of(past_runs(lake), recipe) if r.run_id == run_id]
    return max(found, key=lambda r: r.epoch) if found else None


def newest_published(lake: Lakehouse, recipe: str) -> list[PastRun]:
    """Returns the newest run of every published crawl of a recipe, newest crawl first."""
    newest = {run.crawl: run for run in runs_of(past_runs(lake), recipe) if run.published}
    return list(reversed(newest.values()))


def run_report(lake: Lakehouse, run: PastRun) -> dict[str, Any] | None:
    """Returns the report of a past run: the stored record, else what its row holds, which lacks the examples."""
    stored = find_record(lake, record_uri(lake, run.recipe, run.crawl, f"epoch-{run.epoch:05d}", "report.json"))
    return stored if isinstance(stored, dict) else _report_in_row(lake, run)


def earlier_funnels(lake: Lakehouse, recipe: str, crawl: str, epoch: int) -> list[dict[str, Any]]:
    """Returns the funnels to hold a run against: the published crawl before its own, and its own crawl's last run.

    Each has ``crawl``, ``epoch``, ``what`` (``previous crawl`` or ``earlier run``) and ``steps``: what each stage kept.
    The epoch is that of the run to compare; only runs before it count as earlier ones of the same crawl.
    """
    published = [r for r in runs_of(past_runs(lake), recipe) if r.published]
    older = [r for r in published if crawl_order(r.crawl) < crawl_order(crawl)]
    same = [r for r in published if r.crawl == crawl and r.epoch < epoch]
    wanted = [("previous crawl", older[-1])] if older else []
    wanted += [("earlier run", same[-1])] if same else []
    found = []
    for what, run in wanted:
        report = _report_in_row(lake, run)
        if report is not None:
            steps = funnel_figures(report)
            found.append({"what": what, "crawl": run.crawl, "epoch": run.epoch, "steps": steps})
    return found


def funnel_figures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what each stage of a report kept; a report of any age has these."""
    names = ("stage", "unit", "documents_kept", "characters_kept", "tokens_kept")
    return [{k: step[k] for k in names if k in step} for step in report.get("funnel", [])]


def _report_in_row(lake: Lakehouse, run: PastRun) -> dict[str, Any] | None:
    partition = {"recipe": run.recipe, "crawl": run.crawl, "epoch": str(run.epoch)}
    for text in lake.table(RUNS_TABLE).scan(partition, columns=["report"])["report"].to_pylist():
        report = json.loads(str(text))
        return report if isinstance(report, dict) else None
    return None
