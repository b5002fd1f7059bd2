"""Opens the lakehouse that the environment names."""

import logging

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import LakehouseSettings, corpusmill_home

_open_lakehouses: dict[str, Lakehouse] = {}


def open_lakehouse() -> Lakehouse:
    """Returns the lakehouse that the environment names; one connection pool for each in a process."""
    logging.getLogger("pyiceberg").setLevel(logging.WARNING)  # it tells of every file access
    settings = LakehouseSettings.from_environment(corpusmill_home())
    place = f"{settings.catalog_uri} {settings.warehouse} {settings.s3_endpoint}"
    return _open_lakehouses.setdefault(place, Lakehouse(settings))
