"""One DAG run for each crawl release, with the crawl id as partition key.

A partitioned periodic timetable is the one kind that serves the schedule, ``airflow backfill create`` and the REST API
with the same identity: run ids read ``backfill__CC-MAIN-2024-10__20261121T001041``. The partition interface of Airflow
still moves between minor versions, so all of it stays in this module.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pendulum
from airflow.exceptions import AirflowTimetableInvalid, InvalidPartitionKeyError
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable
from airflow.timetables.trigger import CronTriggerTimetable

SHOWN = 5
"""Crawl ids that a message about an unknown crawl names."""


class DailyWatchTimetable(CronTriggerTimetable):
    """A cron schedule whose tasks name the partitions of their events themselves: the releases that they found."""

    partitioned_at_runtime = True


class CrawlReleaseTimetable(Timetable):
    """One run per release, at 00:00 UTC of the release day, so that ``--to-date`` includes that day.

    With ``catchup`` every release since the DAG's ``start_date`` gets a run, also those that came while no scheduler
    was running; without it only the newest. The list travels inside the serialised DAG: a longer list is a new version
    of the DAG.

    Args:
        releases: (crawl id, release day as ``YYYY-MM-DD``) in any order.
    """

    partitioned = True
    periodic = True  # else `airflow backfill` refuses the DAG
    can_be_scheduled = True
    run_ordering = ("partition_date", "run_after")
    description = "One run per crawl release"

    def __init__(self, releases: Iterable[tuple[str, str]]) -> None:
        self._releases = tuple(sorted(((str(k), str(d)) for k, d in releases), key=lambda r: (r[1], r[0])))
        self._dates = {key: pendulum.parse(day, tz="UTC") for key, day in self._releases}

    def serialize(self) -> dict[str, Any]:
        """Returns what `deserialize` needs."""
        return {"releases": [list(release) for release in self._releases]}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "CrawlReleaseTimetable":
        """Returns the timetable that `serialize` described."""
        return cls((key, day) for key, day in data["releases"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CrawlReleaseTimetable) and other._releases == self._releases

    def __hash__(self) -> int:
        return hash(self._releases)

    def validate(self) -> None:
        """Refuses two releases that Airflow could not tell apart.

        Raises:
            AirflowTimetableInvalid: A crawl id stands twice, or two crawls share a day (the date is the identity of a
                partition for Airflow, not the key).
        """
        seen: dict[Any, str] = {}
        if len(self._dates) != len(self._releases):
            ids = [key for key, _ in self._releases]
            twice = sorted({key for key in ids if ids.count(key) > 1})
            raise AirflowTimetableInvalid(f"the release list names crawls twice: {', '.join(twice)}")
        for key, at in self._dates.items():
            if at in seen:
                day = at.to_date_string()
                raise AirflowTimetableInvalid(
                    f"crawls {seen[at]!r} and {key!r} share the release day {day}, which is how Airflow tells "
                    "partitions apart; give one of them another 'released' date in the release list"
                )
            seen[at] = key

    @property
    def summary(self) -> str:
        """What the UI shows as schedule."""
        return f"{len(self._releases)} crawl release{'' if len(self._releases) == 1 else 's'}"

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """Returns the empty interval of a run that a person started."""
        return DataInterval.exact(run_after)

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Returns the next release after the last run's, None where there is none (yet)."""
        last = last_dagrun_info.partition_date if last_dagrun_info is not None else None
        ahead = [
            (key, at)
            for key, at in self._dates.items()
            if (last is None or at > last)
            and (restriction.earliest is None or at >= restriction.earliest)
            and (restriction.latest is None or at <= restriction.latest)
        ]
        if not restriction.catchup:
            now = pendulum.now("UTC")
            ahead = [r for r in ahead if r[1] <= now][-1:] or ahead
        return self._info(ahead[0][0]) if ahead else None

    def iter_partition_dagrun_infos(self, *, earliest: dt.datetime, latest: dt.datetime) -> Iterable[DagRunInfo]:
        """Yields the runs of a backfill: every release between two instants, both included."""
        for key, at in self._dates.items():
            if earliest <= at <= latest:
                yield self._info(key)

    def generate_run_id(
        self, *, run_type: Any, run_after: pendulum.DateTime, data_interval: DataInterval | None, **extra: Any
    ) -> str:
        """Returns a run id that names the crawl; the time makes a second run of the same crawl another run."""
        key = extra.get("partition_key")
        if not key:
            plain: str = super().generate_run_id(
                run_type=run_type, run_after=run_after, data_interval=data_interval, **extra
            )
            return plain
        now = pendulum.now("UTC").format("YYYYMMDDTHHmmss")
        return str(run_type.generate_run_id(suffix=f"{key}__{now}"))

    def _decode_partition_date(self, partition_key: str) -> dt.datetime:
        if partition_key not in self._dates:
            known = ", ".join(list(self._dates)[-SHOWN:]) or "none"
            raise InvalidPartitionKeyError(
                f"unknown crawl {partition_key!r}; the newest known releases: {known}. "
                "Add it to the recipe's release list, or start a run without partition key and give the crawl as param"
            )
        found: dt.datetime = self._dates[partition_key]
        return found

    def _info(self, key: str) -> DagRunInfo:
        at = self._dates[key]
        return DagRunInfo(run_after=at, data_interval=None, partition_date=at, partition_key=key)
