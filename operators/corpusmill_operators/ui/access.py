"""Who may see what: Airflow's own authorisation as dependencies of our routes.

These names of Airflow are no declared public interface, so they are used in this module alone, and
``tests/dags/test_ui_access.py`` holds every route against them.
"""

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends

may_see_run = Depends(requires_access_dag("GET", DagAccessEntity.RUN))
"""For routes with a ``dag_id`` in their path: 401 without a token, 403 without the right to see runs of that DAG."""
may_see_task = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
"""The same for its task instances."""


def _readable_dags(user: GetUserDep) -> set[str]:
    return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


ReadableDags = Annotated[Any, Depends(_readable_dags)]
"""Ids of the DAGs that the user may read; 401 without a token."""
