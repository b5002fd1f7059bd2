"""What the panel on Airflow's home page shows: the crawls published last, and the releases that are late."""

import datetime as dt
import os
from collections.abc import Iterable
from typing import Any

from corpusmill_operators.ui.airflow_state import Releases, releases_by_dag
from corpusmill_operators.ui.recipes import dag_of, recipe_of

LATE_VARIABLE = "CORPUSMILL_LATE_AFTER_DAYS"
LATE_AFTER_DAYS = 14
"""Days after which a release without a published run counts as late, unless the variable says otherwise."""
SHOWN = 5
"""Published crawls of a recipe that are listed."""


def home_page(readable: Iterable[str]) -> dict[str, Any]:
    """Returns ``recipes``: for each that the user may read and that has runs or releases, what is new and what late."""
    dag_ids = sorted(d for d in readable if recipe_of(d) is not None)
    after = late_after_days()
    return {
        "late_after_days": after,
        "recipes": [] if not dag_ids else _recipes(dag_ids, after),
    }


def late_after_days() -> int:
    """Returns the number of days from the environment, the default where it is no whole number."""
    given = os.environ.get(LATE_VARIABLE, "")
    return int(given) if given.isdigit() else LATE_AFTER_DAYS


def _recipes(dag_ids: list[str], after: int) -> list[dict[str, Any]]:
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.run_history import newest_published

    lake, releases, found = open_lakehouse(), releases_by_dag(dag_ids), []
    today = dt.datetime.now(dt.UTC).date()
    for dag_id in dag_ids:
        recipe = str(recipe_of(dag_id))
        published = newest_published(lake, recipe)
        known = releases.get(dag_id)
        late = [] if known is None else late_releases(known, {run.crawl for run in published}, today, after)
        if not published and not late:
            continue
        found.append(
            {
                "recipe": recipe,
                "dag_id": dag_of(recipe),
                "paused": known.paused if known else False,
                "n_published": len(published),
                "published": [_row(run) for run in published[:SHOWN]],
                "late": late,
            }
        )
    return found


def late_releases(known: Releases, published: set[str], today: dt.date, after: int) -> list[dict[str, Any]]:
    """Returns the releases that should have been published by now, newest first.

    Those are all releases since the schedule's start where it catches up, else the newest one; of them those that are
    older than ``after`` days and that no run published. Older crawls of a schedule that does not catch up come by
    backfill, when somebody wants them.
    """
    due = [r for r in known.releases if known.start is None or r[1] >= known.start.isoformat()]
    due = [r for r in due if r[1] <= today.isoformat()]
    due = due if known.catchup else due[-1:]
    late = []
    for crawl, day in reversed(due):
        days = (today - dt.date.fromisoformat(day)).days
        if days > after and crawl not in published:
            late.append({"crawl": crawl, "released": day, "days": days})
    return late


def _row(run: Any) -> dict[str, Any]:
    return {
        "crawl": run.crawl,
        "run_id": run.run_id,
        "documents": run.n_published,
        "ended_at": None if run.ended_at is None else run.ended_at.isoformat(timespec="seconds"),
    }
