"""What DAG files know of releases: the list of each recipe's source, and which lists are kept up to date.

Nothing here opens a connection; `WatchReleasesOperator` asks the sources.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from corpusmill.recipe import Recipe
from corpusmill.release_list import Release, is_watched, list_place, read_releases, releases_of

__all__ = ["Release", "WatchedSource", "read_releases", "releases_of", "watched_sources"]

NAME_CHARACTERS = 60
"""Characters of an address that name its task and asset; the last ones tell sources apart best."""


@dataclass(frozen=True)
class WatchedSource:
    """A source whose release list is kept up to date.

    Attributes:
        name: The source's address in letters, digits, dots and dashes, for tasks and assets.
        base: Folder or URL in Common Crawl's layout.
        place: The list.
    """

    name: str
    base: str
    place: str


def watched_sources(recipes: Iterable[tuple[Path, Recipe]]) -> list[WatchedSource]:
    """Returns the sources that recipes read and whose lists are kept up to date; each list once.

    Args:
        recipes: Each recipe with its file.
    """
    found: dict[str, WatchedSource] = {}
    for file, recipe in recipes:
        if is_watched(recipe.source, file.parent):
            place = str(list_place(recipe.source, file.parent))
            name = re.sub(r"[^A-Za-z0-9.]+", "-", recipe.source.base.rpartition("://")[2]).strip("-.")
            found.setdefault(place, WatchedSource(name[-NAME_CHARACTERS:], recipe.source.base, place))
    return list(found.values())
