"""The release list: which crawls exist and since when. A file, so that DAG files read it without any connection.

The format is Common Crawl's ``collinfo.json``: a list of objects with ``id`` and ``to`` (or ``from``). A list that is
kept up to date here also has ``released``, the day that stands for the crawl in Airflow. That day never changes again,
and an entry never goes, because Airflow tells the runs of a schedule apart by it.
"""

import datetime as dt
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.ingest.crawl import COMMON_CRAWL_FILES
from corpusmill.recipe import BUNDLED_CRAWLS, SourceConfig

Release = tuple[str, str]
"""Crawl id and release day, ``YYYY-MM-DD``."""

DATE_KEYS = ("released", "to", "from")
"""Where the release day stands, best first: a crawl is released after it ended."""
LISTS_VARIABLE = "CORPUSMILL_RELEASE_LISTS"
"""Folder of the lists that are kept up to date; ``CORPUSMILL_HOME`` where it is not set. The DAG processor and the
worker that looks for releases must both see it."""
SLUG_CHARACTERS = 80
"""Characters of a source's address that the name of its list keeps; the last ones tell sources apart best."""


@dataclass(frozen=True)
class ListUpdate:
    """What `update_release_list` did.

    Attributes:
        new: Releases that were added, oldest first.
        first: True where the list was empty or absent before: these releases are history.
        known: Releases in the list now.
    """

    new: tuple[Release, ...]
    first: bool
    known: int


def releases_of(source: SourceConfig, relative_to: Path) -> tuple[Release, ...]:
    """Returns the releases of a recipe's source, oldest first; none where its list was not made yet.

    Args:
        source: The recipe's source.
        relative_to: Folder that a relative ``releases`` starts from, the recipe's own.

    Raises:
        ConfigError: The list is not readable.
    """
    place = list_place(source, relative_to)
    return read_releases(place) if place.exists() or not is_watched(source, relative_to) else ()


def list_place(source: SourceConfig, relative_to: Path) -> Path:
    """Returns where the release list of a source lies.

    It is the file that the recipe names (``source.releases``), else the base's own ``collinfo.json`` where the base is
    a local folder with one, else a file below ``$CORPUSMILL_RELEASE_LISTS``: ``collinfo.json`` for Common Crawl,
    ``collinfo-ADDRESS.json`` for any other source.
    """
    if source.releases is not None:
        return relative_to / os.path.expandvars(source.releases)
    if source.base == BUNDLED_CRAWLS:
        import corpusmill

        return Path(corpusmill.__file__).parent / "demo" / "crawls" / "collinfo.json"
    own = _own_list(source.base, relative_to)
    if own is not None and own.exists():
        return own
    if source.base.rstrip("/") in COMMON_CRAWL_FILES:
        return _lists_folder() / "collinfo.json"
    address = re.sub(r"[^A-Za-z0-9.]+", "-", source.base.rpartition("://")[2]).strip("-.")
    return _lists_folder() / f"collinfo-{address[-SLUG_CHARACTERS:]}.json"


def is_watched(source: SourceConfig, relative_to: Path) -> bool:
    """Returns whether the source's list is kept up to date for it; a folder with a list of its own keeps it itself."""
    if source.base == BUNDLED_CRAWLS:
        return False
    return list_place(source, relative_to) != _own_list(source.base, relative_to)


def read_releases(path: Path) -> tuple[Release, ...]:
    """Returns (crawl id, release day) of every entry, oldest first.

    Raises:
        ConfigError: The file is absent, is not a list of releases, an entry has no id or no date, an id stands twice,
            or two crawls share a day (the day is how Airflow tells them apart).
    """
    releases = tuple(
        sorted((_release(path, entry) for entry in _entries(path)), key=lambda release: (release[1], release[0]))
    )
    for what, index in (("names crawl {!r} twice", 0), ("has two crawls of {!r}", 1)):
        seen: set[str] = set()
        for release in releases:
            if release[index] in seen:
                raise ConfigError(
                    f"release list {str(path)!r} {what.format(release[index])}; expected each crawl once, with a "
                    "'released' day of its own: that day is how Airflow tells crawls apart"
                )
            seen.add(release[index])
    return releases


def update_release_list(path: Path, found: Iterable[Release], today: dt.date) -> ListUpdate:
    """Adds releases that a list does not hold yet, and writes it whole; readers see the old one or the new one.

    Entries that are there stay as they are, also where the source lists them no more or with other dates. In a list
    that begins now, crawls keep the day on which they ended. A crawl that is found later is given the day on which it
    was found, or one shortly before it where several are found at once, always after every day in the list: so each is
    due at once, once, and after the ones before it. A list without news is touched, so that its age says when the
    source was last asked.

    Args:
        path: The list; its folder is created if missing.
        found: Releases of the source, with the days on which the crawls ended.
        today: The day of discovery.

    Raises:
        ConfigError: The list on disk is broken; it is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_releases(path) if path.exists() else ()
        entries = _entries(path) if path.exists() else []
        ids = {crawl for crawl, _ in known}
        missing = sorted((r for r in dict(found).items() if r[0] not in ids), key=lambda r: (r[1], r[0]))
        new = _after(known[-1][1], missing, today) if known else _distinct(missing)
        if new:
            _write_whole(path, [*entries, *({"id": crawl, "released": day} for crawl, day in new)])
        elif path.exists():
            os.utime(path)
        return ListUpdate(tuple(new), not known, len(known) + len(new))


def _distinct(releases: Sequence[Release]) -> list[Release]:
    """Moves crawls that ended on the same day to the next free days."""
    days: dict[str, dt.date] = {}
    taken: set[dt.date] = set()
    for crawl, ended in releases:
        day = dt.date.fromisoformat(ended)
        while day in taken:
            day += dt.timedelta(days=1)
        days[crawl] = day
        taken.add(day)
    return sorted(((crawl, day.isoformat()) for crawl, day in days.items()), key=lambda release: release[1])


def _after(newest: str, releases: Sequence[Release], today: dt.date) -> list[Release]:
    """Gives crawls the days up to today, or the days after the newest of the list where these do not suffice."""
    first_free = dt.date.fromisoformat(newest) + dt.timedelta(days=1)
    first = max(first_free, today - dt.timedelta(days=max(0, len(releases) - 1)))
    return [(crawl, (first + dt.timedelta(days=n)).isoformat()) for n, (crawl, _) in enumerate(releases)]


def _entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"release list {str(path)!r} does not exist; expected a collinfo.json file") from None
    except ValueError as error:
        raise ConfigError(f"release list {str(path)!r} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ConfigError(f"release list {str(path)!r} holds {type(entries).__name__}, expected a list of releases")
    return entries


def _release(path: Path, entry: object) -> Release:
    values = entry if isinstance(entry, dict) else {}
    day = next((str(values[key])[:10] for key in DATE_KEYS if values.get(key)), "")
    try:
        dt.date.fromisoformat(day)
    except ValueError:
        day = ""
    if not values.get("id") or not day:
        raise ConfigError(
            f"release list {str(path)!r}: {entry!r} is not a release; expected an object with 'id' and one of "
            f"{DATE_KEYS} as YYYY-MM-DD"
        )
    return str(values["id"]), day


def _write_whole(path: Path, entries: list[Any]) -> None:
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(json.dumps(entries, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def _own_list(base: str, relative_to: Path) -> Path | None:
    if "://" in base and not base.startswith("file://"):
        return None
    return relative_to / Path(base.removeprefix("file://")).expanduser() / "collinfo.json"


def _lists_folder() -> Path:
    from corpusmill.lakehouse.settings import corpusmill_home

    return Path(os.environ.get(LISTS_VARIABLE) or corpusmill_home())
