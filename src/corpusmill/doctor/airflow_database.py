"""What Airflow's own database says, read as a database: the library does not know Airflow, nor needs it installed."""

import configparser
import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from corpusmill.doctor.finding import Finding, error, ok, warning
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.runner.device import visible_devices

GPU_POOL = "gpu"
CONNECT_SECONDS = 3
ALIVE_SECONDS = 60
"""A scheduler writes a heartbeat every five seconds."""


class AirflowDatabase:
    """Reads pools and connections.

    Args:
        url: SQLAlchemy URL; None where it is not known.
    """

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.problem = "" if url else "neither AIRFLOW__DATABASE__SQL_ALCHEMY_CONN nor an Airflow home is set"

    def pools(self) -> dict[str, int] | None:
        """Returns the slots of each pool, None where the database cannot be read (`problem` says why)."""
        rows = self._rows("SELECT pool, slots FROM slot_pool")
        return None if rows is None else {str(name): int(slots) for name, slots in rows}

    def connections(self) -> set[str] | None:
        """Returns the ids of the connections, None where the database cannot be read."""
        rows = self._rows("SELECT conn_id FROM connection")
        return None if rows is None else {str(name) for (name,) in rows}

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of SQLite."""
        return (self.url or "").startswith("sqlite")

    def schedulers(self, now: dt.datetime) -> list[str] | None:
        """Returns the hosts of the schedulers that are alive, None where the database cannot be read."""
        rows = self._rows(
            "SELECT hostname, latest_heartbeat FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
        )
        if rows is None:
            return None
        alive = now - dt.timedelta(seconds=ALIVE_SECONDS)
        return sorted(str(host) for host, heartbeat in rows if heartbeat and _moment(heartbeat) > alive)

    def _rows(self, query: str) -> list[Any] | None:
        if self.url is None:
            return None
        try:
            url = make_url(self.url)
            if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
                self.problem = f"{url.database} does not exist"
                return None
            arguments = {"connect_timeout": CONNECT_SECONDS} if url.get_backend_name() == "postgresql" else {}
            engine = create_engine(url, connect_args=arguments)
            try:
                with engine.connect() as connection:
                    return list(connection.execute(text(query)))
            finally:
                engine.dispose()
        except (SQLAlchemyError, ArgumentError, ImportError) as problem:  # the password stands in none of these
            self.problem = str(getattr(problem, "orig", None) or problem)
            return None


def airflow_database() -> AirflowDatabase:
    """Returns Airflow's database: as configured, else that of Airflow's home, else that of the local Airflow."""
    if url := os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        return AirflowDatabase(url)
    homes = [os.environ.get("AIRFLOW_HOME"), str(corpusmill_home() / "airflow")]
    for home in [Path(h).expanduser() for h in homes if h]:
        config = configparser.ConfigParser(interpolation=None, strict=False)
        config.read(home / "airflow.cfg")
        configured = config.get("database", "sql_alchemy_conn", fallback="")
        if configured and "{" not in configured and not (home / "airflow.db").exists():
            return AirflowDatabase(configured)
        if (home / "airflow.db").exists():
            return AirflowDatabase(f"sqlite:///{home}/airflow.db")
    return AirflowDatabase(None)


def check_pools(database: AirflowDatabase) -> Iterator[Finding]:
    """Looks for the pool of model stages and compares its slots with this machine's devices."""
    pools = database.pools()
    if pools is None:
        yield warning("pools", f"unknown: {database.problem}", "run this where Airflow's database can be reached")
        return
    if GPU_POOL not in pools:
        yield error(
            "pools",
            f"pool {GPU_POOL!r} is missing: tasks of model stages stay 'scheduled' for ever",
            f"airflow pools set {GPU_POOL} SLOTS 'Model stages', with one slot for each device",
        )
        return
    slots, devices = pools[GPU_POOL], visible_devices() or _present_devices()
    if slots < 1:
        yield error("pools", f"pool {GPU_POOL!r} has {slots} slots", f"airflow pools set {GPU_POOL} 1 'Model stages'")
    elif devices and slots != len(devices):
        yield warning(
            "pools",
            f"pool {GPU_POOL!r} has {slots} slots, this machine {len(devices)} devices ({', '.join(devices)})",
            f"give it one slot for each device of all workers: airflow pools set {GPU_POOL} N 'Model stages'",
        )
    else:
        yield ok("pools", f"pool {GPU_POOL!r} has {slots} slots, devices here: {len(devices)}")


def check_schedulers(database: AirflowDatabase, now: dt.datetime) -> Iterator[Finding]:
    """Counts the schedulers that are alive: SQLite locks no rows, so there two start the same tasks twice."""
    hosts = database.schedulers(now)
    if hosts is None:  # that the database cannot be read is said of its pools
        return
    shown = f"{len(hosts)} alive" + (f": {', '.join(hosts)}" if hosts else "")
    if database.is_sqlite and len(hosts) > 1:
        yield error("schedulers", f"{shown}, on SQLite", "stop all but one, or move Airflow's database to PostgreSQL")
    else:
        yield ok("schedulers", shown)


def _moment(value: dt.datetime | str) -> dt.datetime:
    """Returns a timestamp as drivers give it, SQLite's as text, in UTC."""
    moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment


def _present_devices() -> list[str]:
    """Returns the NVIDIA devices of this machine by their device files; no driver is loaded for that."""
    return sorted(p.name for p in Path("/dev").glob("nvidia[0-9]*"))
