"""The release list: which crawls exist and since when, read from a file at parse time.

The format is Common Crawl's ``collinfo.json``: a list of objects with ``id`` and ``to`` (or ``from``), optionally
``released``. Nothing here opens a connection; a list of a remote source is kept up to date by a DAG of its own.
"""

import json
import os
from pathlib import Path

from corpusmill.errors import ConfigError
from corpusmill.recipe import BUNDLED_CRAWLS, SourceConfig

Release = tuple[str, str]
"""Crawl id and release day, ``YYYY-MM-DD``."""

DATE_KEYS = ("released", "to", "from")
"""Where the release day stands, best first: a crawl is released after it ended."""


def releases_of(source: SourceConfig, relative_to: Path) -> tuple[Release, ...]:
    """Returns the releases of a recipe's source, oldest first; none where it has no list yet.

    Args:
        source: The recipe's source; its ``releases`` names the list, else the base's own ``collinfo.json`` is taken
            where the base is a local folder, else ``$CORPUSMILL_HOME/collinfo.json``.
        relative_to: Folder that a relative ``releases`` starts from, the recipe's own.

    Raises:
        ConfigError: The recipe names a list that is not there or not readable.
    """
    if source.releases is not None:
        return read_releases(relative_to / os.path.expandvars(source.releases))
    if source.base == BUNDLED_CRAWLS:
        return read_releases(_bundled())
    from corpusmill.lakehouse.settings import corpusmill_home

    place = (corpusmill_home() if "://" in source.base else relative_to / source.base) / "collinfo.json"
    return read_releases(place) if place.exists() else ()


def read_releases(path: Path) -> tuple[Release, ...]:
    """Returns (crawl id, release day) of every entry, oldest first.

    Raises:
        ConfigError: The file is absent, is not a list of releases, or an entry has no id or no date.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"release list {str(path)!r} does not exist; expected a collinfo.json file") from None
    except ValueError as error:
        raise ConfigError(f"release list {str(path)!r} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ConfigError(f"release list {str(path)!r} holds {type(entries).__name__}, expected a list of releases")
    return tuple(sorted((_release(path, entry) for entry in entries), key=lambda release: (release[1], release[0])))


def _release(path: Path, entry: object) -> Release:
    values = entry if isinstance(entry, dict) else {}
    day = next((str(values[key])[:10] for key in DATE_KEYS if values.get(key)), None)
    if not values.get("id") or day is None:
        raise ConfigError(
            f"release list {str(path)!r}: {entry!r} is not a release; expected an object with 'id' and one of "
            f"{DATE_KEYS}"
        )
    return str(values["id"]), day


def _bundled() -> Path:
    import corpusmill

    return Path(corpusmill.__file__).parent / "demo" / "crawls" / "collinfo.json"
