"""Why a run failed before it had a plan: a small record by DAG and run, because ``ops.runs`` counts planned runs."""

import hashlib

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.records import find_record, record_uri, write_record


def _uri(lake: Lakehouse, dag_id: str, run_id: str) -> str:
    name = hashlib.blake2b(f"{dag_id}\n{run_id}".encode(), digest_size=16).hexdigest()  # ids may hold any character
    return record_uri(lake, "unplanned-runs", f"{name}.json")  # no recipe can have this name


def record_unplanned(lake: Lakehouse, dag_id: str, run_id: str, message: str) -> None:
    """Stores why a run got no plan."""
    write_record(lake, _uri(lake, dag_id, run_id), {"dag_id": dag_id, "run_id": run_id, "message": message})


def why_unplanned(lake: Lakehouse, dag_id: str, run_id: str) -> str:
    """Returns why a run got no plan, ``""`` where that is not known."""
    found = find_record(lake, _uri(lake, dag_id, run_id))
    return "" if found is None else str(found["message"])
