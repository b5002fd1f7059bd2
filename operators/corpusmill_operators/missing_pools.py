"""A run whose tasks name a pool that does not exist is refused by `plan`, with the command that makes the pool.

Airflow leaves such tasks ``scheduled`` forever and says so in the scheduler's log only. Tasks cannot ask for pools, so
the scheduler looks when a run begins (this module is a listener of the plugin) and leaves a note on the run, which the
UI shows. Notes do not reach tasks: the same text stands in the configuration of the run, for `PlanRunOperator` to read.
"""

import logging
from typing import Any

from airflow.listeners import hookimpl

from corpusmill.errors import ConfigError
from corpusmill_operators.pools import pool_definitions

log = logging.getLogger(__name__)

TAG = "corpusmill"
"""Tag of the DAGs that are looked at."""
HEAD = "Tasks of this run wait for pools that do not exist"
"""Begin of the note."""
CONF_KEY = "missing_pools"
"""Entry of the run's configuration that holds the note."""


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:  # noqa: ARG001 - the names that Airflow passes
    """Notes on a run that begins which pools its tasks lack; takes the note away when they are there."""
    try:
        dag = dag_run.dag
        if dag is None or TAG not in (dag.tags or ()):
            return
        found = note_of({task.pool for task in dag.tasks}, _pools(dag_run))
        if found or CONF_KEY in (dag_run.conf or {}):
            dag_run.note = found
            rest = {k: v for k, v in (dag_run.conf or {}).items() if k != CONF_KEY}
            dag_run.conf = {**rest, CONF_KEY: found} if found else rest
        if found:
            log.error("run %s: %s", dag_run.run_id, found)
    except Exception:  # the scheduler must go on whatever happens here
        log.exception("the pools of run %s could not be looked at", dag_run)


def _pools(dag_run: Any) -> set[str]:
    """Returns the pools that exist, read in the scheduler's own session, which nobody else may commit."""
    from airflow.models import Pool
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    return set(object_session(dag_run).scalars(select(Pool.pool)))


def note_of(wanted: set[str], existing: set[str]) -> str | None:
    """Returns what is to do about pools that do not exist, None where all do."""
    missing = sorted(wanted - existing)
    if not missing:
        return None
    known = pool_definitions()
    made = " && ".join(
        f"airflow pools set {name} {known.get(name, {}).get('slots', 1)} "
        f'"{known.get(name, {}).get("description", name)}"'
        for name in missing
    )
    return f"{HEAD}: {missing}. They would stay scheduled forever. Create them, then clear this run: {made}"


def refuse_missing_pools(context: Any) -> None:
    """Raises a ConfigError where the scheduler noted that pools are missing."""
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    if CONF_KEY in conf:
        raise ConfigError(str(conf[CONF_KEY]))
