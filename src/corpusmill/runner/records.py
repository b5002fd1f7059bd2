"""Small JSON records of runs, beside the tables in the warehouse: plans, stage reports, selection manifests.

A record lies at a path fixed by what it describes and is written whole: a local file by rename, an object by one put.
"""

import json
import os
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from corpusmill.errors import LakehouseError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse


class RecordNotFoundError(LakehouseError, Permanent):
    """A record that an earlier task should have written is not there."""


def record_uri(lake: Lakehouse, *parts: str) -> str:
    """Returns the URI of a record below the warehouse's ``_runs`` folder."""
    return "/".join([str(lake.settings.warehouse).rstrip("/"), "_runs", *parts])


def write_record(lake: Lakehouse, uri: str, value: Any) -> None:
    """Writes a JSON record; readers see the old one or the new one, never half of it."""
    data = json.dumps(value, sort_keys=True, ensure_ascii=True).encode()
    if uri.startswith("file:"):
        target = Path(unquote(urlparse(uri).path))
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        scratch.write_bytes(data)
        os.replace(scratch, target)
        return
    with lake.io.new_output(uri).create(overwrite=True) as stream:
        stream.write(data)


def find_record(lake: Lakehouse, uri: str) -> Any | None:
    """Returns a record's value, or None where there is none."""
    try:
        with lake.io.new_input(uri).open() as stream:
            return json.loads(stream.read())
    except FileNotFoundError:
        return None


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
