"""The lakehouse from where it is used: catalog, tables, a file in the warehouse, clocks, room on disk."""

import contextlib
import datetime as dt
import os
import shutil
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from corpusmill.doctor.finding import Finding, error, ok, warning
from corpusmill.errors import CorpusmillError
from corpusmill.lakehouse.catalog import Lakehouse, NotInitialisedError
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.storage import delete_file, list_files, read_whole, write_whole

SKEW_SECONDS = 60.0
"""Difference of clocks from which ages of files mislead upkeep, whose grace is counted in hours."""
GIGABYTE = 1e9
SCRATCH_GIGABYTES = 5.0
"""Room for downloads: four Common Crawl files of about 1.1 GB, one for each of the local Airflow's tasks."""
CRAWLS_OF_ROOM = 2.0
"""Room for the next crawl, in crawls as large as those stored: its own tables, and what upkeep has not removed yet."""


def check_catalog(lake: Lakehouse) -> Iterator[Finding]:
    """Opens the catalog."""
    shown = lake.settings.shown_catalog_uri
    try:
        namespaces = sorted(str(".".join(name)) for name in lake.catalog.list_namespaces())
    except NotInitialisedError as problem:
        yield error("catalog", str(problem), "corpusmill init RECIPE, or correct CORPUSMILL_HOME")
        return
    except CorpusmillError as problem:
        yield error("catalog", str(problem), "start its database, or correct CORPUSMILL_CATALOG_URI")
        return
    except Exception as problem:  # noqa: BLE001 - a database has many ways to say no; the doctor repeats it
        yield error("catalog", f"{shown}: {problem}", "create it with: corpusmill init RECIPE; or correct its address")
        return
    kind = lake.catalog.engine.dialect.name
    server = lake.catalog.engine.dialect.server_version_info or ()
    what = f"{shown} answers: {kind} {'.'.join(map(str, server))}, pyiceberg {version('pyiceberg')}"
    yield ok("catalog", f"{what}, {len(namespaces)} namespaces")


def check_tables(lake: Lakehouse, recipe: str) -> Iterator[Finding]:
    """Looks whether a recipe's tables were created."""
    try:
        there = lake.is_initialised(recipe)
    except Exception as problem:  # noqa: BLE001 - the finding on the catalog says more
        yield warning(f"tables {recipe}", f"unknown: {problem}", "see the finding on the catalog")
        return
    if there:
        yield ok(f"tables {recipe}", "all tables are there")
    else:
        yield warning(f"tables {recipe}", "not created yet: its runs would fail", f"corpusmill init {recipe}")


def check_warehouse(lake: Lakehouse) -> Iterator[Finding]:
    """Writes a small file, reads it back, compares clocks, and deletes it."""
    if str(lake.settings.warehouse).startswith("file:"):
        local = Path(lake.io.parse_location(lake.settings.warehouse)[2])
        if not local.exists() and os.access(_existing(local), os.W_OK):
            yield ok("warehouse", f"{local} is yet to be made and can be")
            return
    folder = f"{str(lake.settings.warehouse).rstrip('/')}/_doctor"
    place = f"{folder}/{uuid.uuid4().hex}.txt"
    before = dt.datetime.now(dt.UTC)
    try:
        write_whole(lake.io, place, b"probe")
        held = read_whole(lake.io, place)
        modified = [f.modified for f in list_files(lake.io, folder) if f.location == place]
        delete_file(lake.io, place)
    except Exception as problem:  # noqa: BLE001 - an object store has many ways to say no; the doctor repeats it
        yield error(
            "warehouse",
            f"{folder} cannot be written: {problem}",
            "give the user of the workers the right to write, or correct CORPUSMILL_WAREHOUSE and its credentials",
        )
        return
    if held != b"probe" or not modified:
        yield error("warehouse", f"{place} was written and does not hold it", "use a store that shows whole files")
        return
    with contextlib.suppress(OSError):
        if folder.startswith("file:"):
            Path(lake.io.parse_location(folder)[2]).rmdir()
    yield ok("warehouse", f"{lake.settings.warehouse} can be written")
    skew = abs((modified[0] - before).total_seconds())
    if skew > SKEW_SECONDS:
        yield warning(
            "clock", f"the store's clock differs by {skew:.0f} s: ages of files mislead upkeep", "synchronise both"
        )
    else:
        yield ok("clock", "the store's clock agrees")


def check_disk(lake: Lakehouse) -> Iterator[Finding]:
    """Compares the room on disk with what downloads and the next crawl need."""
    home = corpusmill_home()
    need = {home: SCRATCH_GIGABYTES}
    if str(lake.settings.warehouse).startswith("file:"):
        warehouse = Path(lake.io.parse_location(lake.settings.warehouse)[2])
        size, crawls = _stored(lake)
        need[warehouse] = need.get(warehouse, 0.0) + CRAWLS_OF_ROOM * size / max(1, crawls) / GIGABYTE
    by_disk: dict[int, list[Path]] = {}
    for place in need:
        by_disk.setdefault(_existing(place).stat().st_dev, []).append(place)
    for places in by_disk.values():
        wanted = sum(need[place] for place in places)
        free = shutil.disk_usage(_existing(places[0])).free / GIGABYTE
        what = f"{free:.1f} GB free at {places[0]}, about {wanted:.1f} GB needed for downloads and the next crawl"
        if free < wanted:
            yield error("disk", what, "free some, run: corpusmill maintain RECIPE, or move CORPUSMILL_HOME")
        else:
            yield ok("disk", what)


def _stored(lake: Lakehouse) -> tuple[int, int]:
    """Returns the bytes of the current snapshots of all tables, and the number of crawls in ``raw.pages``."""
    size, crawls = 0, 0
    with contextlib.suppress(Exception):  # the finding on the catalog says why
        for namespace in lake.catalog.list_namespaces():
            for name in lake.catalog.list_tables(namespace):
                snapshot = lake.load(".".join(name)).metadata.current_snapshot()
                if snapshot is not None and snapshot.summary is not None:
                    size += int(snapshot.summary.additional_properties.get("total-files-size", 0))
        crawls = len({p["crawl"] for p in lake.table("raw.pages").partitions()})
    return size, crawls


def _existing(place: Path) -> Path:
    """Returns the nearest folder that exists."""
    return next(p for p in (place, *place.absolute().parents) if p.exists())
