"""Small JSON records of runs, beside the tables in the warehouse: plans, stage reports, selection manifests.

A record lies at a path fixed by what it describes and is written whole: a local file by rename, an object by one put.
"""

import json
from typing import Any

from corpusmill.errors import LakehouseError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.storage import read_whole, write_whole


class RecordNotFoundError(LakehouseError, Permanent):
    """A record that an earlier task should have written is not there."""


def record_uri(lake: Lakehouse, *parts: str) -> str:
    """Returns the URI of a record below the warehouse's ``_runs`` folder."""
    return "/".join([str(lake.settings.warehouse).rstrip("/"), "_runs", *parts])


def write_record(lake: Lakehouse, uri: str, value: Any) -> None:
    """Writes a JSON record; readers see the old one or the new one, never half of it."""
    write_whole(lake.io, uri, json.dumps(value, sort_keys=True, ensure_ascii=True).encode())


def find_record(lake: Lakehouse, uri: str) -> Any | None:
    """Returns a record's value, or None where there is none."""
    data = read_whole(lake.io, uri)
    return None if data is None else json.loads(data)


def read_record(lake: Lakehouse, uri: str) -> Any:
    """Returns a record's value.

    Raises:
        RecordNotFoundError: There is none; the message says which task writes it.
    """
    value = find_record(lake, uri)
    if value is None:
        raise RecordNotFoundError(
            f"record {uri!r} does not exist; it is written by an earlier task of the same run: "
            "clear the run from 'plan' so that the task runs again"
        )
    return value
