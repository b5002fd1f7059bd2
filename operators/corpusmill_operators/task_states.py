"""The states of a run's tasks, and which instances of a mapped task are among them."""

from collections.abc import Iterable
from typing import Any

from airflow.sdk import Context


def states_of_run(context: Context) -> dict[str, Any]:
    """Returns the state of every task of the run by its id; instances of a mapped task are named ``task_INDEX``."""
    run = context["run_id"]
    found: dict[str, Any] = context["ti"].get_task_states(dag_id=context["dag"].dag_id, run_ids=[run]).get(run, {})
    return found


def map_indexes(task: str, names: Iterable[str]) -> list[int]:
    """Returns the map indexes that a task has among names of `states_of_run`, in order."""
    prefix = f"{task}_"
    indexes = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(index) for index in indexes if index.isdigit())
