"""Model servers as Airflow connections: their address and key reach the library through the environment.

A recipe names an endpoint (``endpoint: large_model``). Where the environment does not describe it already, the Airflow
connection of that id does, for the time of the task: ``host`` with scheme, or ``schema``/``host``/``port``, and
``password`` as the key. Fields of ``extra`` (``max_concurrency``, ``requests_per_minute``, ``timeout_seconds``,
``max_retries``) set limits.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

LIMITS = ("max_concurrency", "requests_per_minute", "timeout_seconds", "max_retries")


@contextmanager
def endpoint_of_connection(name: str | None) -> Iterator[None]:
    """Describes an endpoint by the Airflow connection of its name, inside the block; does nothing for an address.

    Raises:
        AirflowNotFoundException: There is neither such a connection nor the variable.
    """
    from corpusmill.modeling.endpoints import VARIABLE

    variable = "" if name is None or "://" in name else VARIABLE + name.upper().replace("-", "_")
    if name is None or not variable or variable in os.environ:
        yield
        return
    values = _described(name, variable)
    os.environ.update(values)
    try:
        yield
    finally:
        for key in values:
            os.environ.pop(key, None)


def _described(name: str, variable: str) -> dict[str, str]:
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException as error:
        raise AirflowNotFoundException(
            f"endpoint {name!r} is described neither by an Airflow connection of that id (airflow connections add "
            f"{name} --conn-type http --conn-host http://host:8000/v1) nor by the variable {variable}"
        ) from error
    host = connection.host or ""
    if "://" not in host:
        port = f":{connection.port}" if connection.port else ""
        host = f"{connection.schema or 'http'}://{host}{port}/v1"
    values = {variable: host}
    if connection.password:
        values[f"{variable}_KEY"] = connection.password
    limits = connection.extra_dejson
    return values | {f"{variable}_{k.upper()}": str(limits[k]) for k in LIMITS if k in limits}
