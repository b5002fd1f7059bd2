"""What Airflow's own database says of a run, a task or a DAG's releases: states and names, never XCom.

Airflow's models are no public interface either; only this module of the UI reads them.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any, NamedTuple

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select


class RunState(NamedTuple):
    """A DAG run: its state, and the crawl that its partition key or its parameter names ("" where none does)."""

    state: str
    crawl: str


class TaskState(NamedTuple):
    """A task instance: its state ("" where it was never scheduled) and its attempt."""

    state: str
    try_number: int


class Releases(NamedTuple):
    """A DAG's crawls as its timetable knows them.

    Attributes:
        releases: (crawl, release day as ``YYYY-MM-DD``), oldest first.
        start: First day of the schedule.
        catchup: Whether every release since then gets a run, or only the newest.
        paused: Whether the DAG is switched off.
    """

    releases: tuple[tuple[str, str], ...]
    start: dt.date | None
    catchup: bool
    paused: bool


def run_state(dag_id: str, run_id: str) -> RunState | None:
    """Returns a run's state, None where Airflow has no such run."""
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None:
            return None
        crawl = run.partition_key or (run.conf or {}).get("crawl")
        return RunState(_value(run.state), str(crawl or ""))


def task_state(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskState | None:
    """Returns the state of one task instance, None where there is none."""
    with create_session() as session:
        found = session.execute(
            select(TaskInstance.state, TaskInstance.try_number).where(
                TaskInstance.dag_id == dag_id,
                TaskInstance.run_id == run_id,
                TaskInstance.task_id == task_id,
                TaskInstance.map_index == map_index,
            )
        ).one_or_none()
    return None if found is None else TaskState(_value(found[0]), int(found[1] or 0))


def releases_by_dag(dag_ids: Iterable[str]) -> dict[str, Releases]:
    """Returns the releases of every DAG that has a release timetable."""
    found = {}
    with create_session() as session:
        wanted = select(DagModel.dag_id, DagModel.is_paused).where(DagModel.dag_id.in_(sorted(dag_ids)))
        for dag_id, paused in session.execute(wanted).all():
            stored = SerializedDagModel.get(dag_id, session=session)
            releases = None if stored is None else _releases(stored.data or {}, bool(paused))
            if releases is not None:
                found[dag_id] = releases
    return found


def _releases(data: dict[str, Any], paused: bool) -> Releases | None:
    dag = data.get("dag", {})
    timetable = dag.get("timetable", {})
    if "CrawlReleaseTimetable" not in str(timetable.get("__type")):
        return None
    releases = timetable.get("__var", {}).get("releases", [])
    start = dag.get("start_date") or dag.get("default_args", {}).get("start_date")
    seconds = start.get("__var") if isinstance(start, dict) else start
    day = None if seconds is None else dt.datetime.fromtimestamp(float(seconds), dt.UTC).date()
    return Releases(tuple((str(k), str(d)) for k, d in releases), day, bool(dag.get("catchup")), paused)


def _value(state: Any) -> str:
    return str(getattr(state, "value", state) or "")
