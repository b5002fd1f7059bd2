"""Discovery: asks a source for its releases and adds the new ones to the release list."""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, Context
from airflow.sdk.exceptions import AirflowSkipException

from corpusmill_operators.base import StageOperator

UNANNOUNCED = "unannounced"
"""Key in the task's state store: what an attempt added to the list and may not have announced."""


class WatchReleasesOperator(StageOperator):
    """Adds the releases of a source that are not in its list yet, and announces them.

    Reads: ``collinfo.json`` of the source. Writes: the release list, whole; one event with the crawl id as partition
    key for each new release, on every asset in ``outlets``. Of a list that begins now only the newest release is
    announced: the others are history, which a backfill makes. Makes no runs: a longer list does that, through
    `CrawlReleaseTimetable`. Retried: when the source does not answer. Fails at once: what it answers, or what is on
    disk, is no list of releases; the list is then left as it is. Second run: finds nothing new and is skipped.

    Args:
        source: Folder or URL in Common Crawl's layout (templated).
        place: The release list (templated).
    """

    template_fields = ("source", "place")
    ui_color = "#f3eedc"

    def __init__(self, *, source: str, place: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source, self.place = source, place

    def work(self, context: Context) -> dict[str, Any]:
        """Updates the list; returns what is new and how many releases are known."""
        from corpusmill.ingest.crawl import list_releases
        from corpusmill.release_list import update_release_list

        found = [(release.id, release.released.isoformat()) for release in list_releases(self.source)]
        update = update_release_list(Path(self.place), found, dt.datetime.now(dt.UTC).date())
        for crawl, day in update.new:
            self.log.info("new release %s, listed as of %s", crawl, day)
        announced = self._announce(context, [crawl for crawl, _ in (update.new[-1:] if update.first else update.new)])
        if not (update.new or announced):
            raise AirflowSkipException(f"nothing new at {self.source}: {update.known} releases are known")
        return {"source": self.source, "new": len(update.new), "known": update.known, "announced": announced}

    def _announce(self, context: Context, crawls: Iterable[str]) -> list[str]:
        """Attaches events for crawls, and for those that an attempt before this one added and could not announce."""
        store = context["task_state_store"]
        earlier = store.get(UNANNOUNCED, default=[])
        told = sorted({*crawls, *(str(crawl) for crawl in earlier if isinstance(earlier, list))})
        if told:
            store.set(UNANNOUNCED, told)
            for asset in self.outlets:
                if isinstance(asset, Asset):
                    context["outlet_events"][asset].add_partitions(told)
        return told
