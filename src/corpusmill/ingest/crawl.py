"""Crawls in Common Crawl's layout: which releases there are, and which files make up one of them."""

import gzip
import hashlib
import json
import re
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from corpusmill.errors import ConfigError, DataError, PermanentDataError
from corpusmill.ingest.fetch import MissingFileError, list_folders, read_bytes

COLLINFO = "collinfo.json"
COMMON_CRAWL_INDEX = "https://index.commoncrawl.org"
"""Common Crawl keeps its list of crawls at another host than its files."""
COMMON_CRAWL_FILES = ("https://data.commoncrawl.org", "s3://commoncrawl")
_WEEK = re.compile(r"(\d{4})-(\d{2})$")
_YEAR = re.compile(r"(\d{4})$")
_PATH = re.compile(r"(?!.*(://|<))[^\s/\\?#][^\s\\?#]*")


@dataclass(frozen=True, order=True)
class Release:
    """One crawl that was released.

    Attributes:
        released: Day on which fetching ended (UTC); where the list does not say, the first day of the week, or the last
            day of the year, that the id names.
        id: Crawl id, for instance ``CC-MAIN-2024-10``.
    """

    released: date
    id: str


def list_releases(base: str) -> list[Release]:
    """Returns the crawls under a base, oldest first.

    Read from ``BASE/collinfo.json`` in Common Crawl's format; where there is none, the folders under
    ``BASE/crawl-data`` (a local folder or S3).

    Args:
        base: Local folder, ``file://``, ``http(s)://`` or ``s3://`` URL.

    Raises:
        ConfigError: There is neither a list nor a folder ``crawl-data``.
        PermanentDataError: The list is not one.
        TransientDataError: The list could not be fetched now.
    """
    at = COMMON_CRAWL_INDEX if base.rstrip("/") in COMMON_CRAWL_FILES else base
    try:
        return _from_collinfo(_read(at, COLLINFO), f"{at}/{COLLINFO}")
    except MissingFileError:
        folders = [name for name in list_folders(base, "crawl-data") if _day_in(name)]
    if not folders:
        raise ConfigError(
            f"source={base!r} holds no {COLLINFO} and no crawls under crawl-data/; expected a folder or URL in Common "
            "Crawl's layout"
        )
    return sorted(Release(_day_in(name) or date.min, name) for name in folders)


def _from_collinfo(data: bytes, place: str) -> list[Release]:
    """Returns the releases of a list in Common Crawl's format, oldest first."""
    try:
        entries = json.loads(data)
        releases = [_release(entry) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PermanentDataError(
            f"{place} begins with {data[:60]!r} and is not a list of crawls ({error}); expected JSON such as "
            '[{"id": "CC-MAIN-2024-10", "to": "2024-03-05T20:24:08"}]'
        ) from error
    if not releases or len({release.id for release in releases}) != len(releases):
        raise PermanentDataError(f"{place} lists {len(releases)} crawls, some twice or none; expected each crawl once")
    return sorted(releases)


def _release(entry: dict[str, str]) -> Release:
    """Returns one entry of the list."""
    name = entry["id"]
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ValueError(f"id={name!r} of a crawl is not a name")
    until = entry.get("to") or entry.get("from")
    if until:
        moment = datetime.fromisoformat(until)
        return Release((moment if moment.tzinfo is None else moment.astimezone(UTC)).date(), name)
    day = _day_in(name)
    if day is None:
        raise ValueError(f"crawl id={name!r} has no date ('to') and names no week or year")
    return Release(day, name)


def _day_in(name: str) -> date | None:
    """Returns the day that a crawl id names by its week or year, None where it names none."""
    try:
        if found := _WEEK.search(name):
            return date.fromisocalendar(int(found[1]), int(found[2]), 1)
    except ValueError:
        pass  # CC-MAIN-2009-2010 ends in a year
    found = _YEAR.search(name)
    return date(int(found[1]), 12, 31) if found and 1990 <= int(found[1]) <= 2100 else None


def list_files(base: str, crawl: str, kind: Literal["warc", "wet"] = "warc") -> list[str]:
    """Returns the paths of a crawl's files in the order of its manifest, relative to the base.

    Args:
        base: Local folder, ``file://``, ``http(s)://`` or ``s3://`` URL.
        crawl: Crawl id.
        kind: Which manifest: ``crawl-data/CRAWL/warc.paths.gz`` or ``wet.paths.gz``.

    Raises:
        ConfigError: The base has no such crawl; the message names those it has.
        PermanentDataError: The manifest is cut, empty, or no manifest.
        TransientDataError: The manifest could not be fetched now.
    """
    path = f"crawl-data/{crawl}/{kind}.paths.gz"
    try:
        data = _read(base, path)
    except MissingFileError as error:
        raise ConfigError(
            f"crawl={crawl!r} is not under source={base!r}: {path} is missing; known: {_known(base)}"
        ) from error
    return parse_manifest(data, f"{base.rstrip('/')}/{path}")


def _known(base: str) -> str:
    """Returns the names of the known crawls for a message."""
    try:
        names = [release.id for release in list_releases(base)]
    except DataError as error:
        return f"not readable ({error})"
    except ConfigError:
        return "none"
    return ", ".join(names[-10:]) + (f" and {len(names) - 10} older ones" if len(names) > 10 else "")


def parse_manifest(data: bytes, place: str) -> list[str]:
    """Returns the paths of a manifest, one a line, gzip or plain.

    Args:
        data: The manifest as bytes.
        place: Where it came from, for messages.

    Raises:
        PermanentDataError: It is cut, empty, holds something that is no relative path, or a path twice.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise PermanentDataError(f"manifest {place} is cut or corrupt: {error}; fetch it again") from error
    elif place.endswith(".gz"):
        raise PermanentDataError(f"manifest {place} begins with {data[:60]!r}; expected gzip. Is it an error page?")
    paths = [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    for path in paths:
        if not _PATH.fullmatch(path) or ".." in path.split("/"):
            raise PermanentDataError(f"manifest {place} holds {path[:80]!r}; expected relative paths of crawl files")
    if not paths:
        raise PermanentDataError(f"manifest {place} is empty; expected one path a line")
    if len(set(paths)) != len(paths):
        twice = next(path for n, path in enumerate(paths) if path in paths[:n])
        raise PermanentDataError(f"manifest {place} lists {twice!r} twice; expected each path once")
    return paths


def path_list_digest(paths: Iterable[str]) -> str:
    """Returns 32 hex digits over a list of paths in any order; stands for the input in ingestion's commit key."""
    return hashlib.blake2b("\n".join(sorted(paths)).encode(), digest_size=16).hexdigest()


def _read(base: str, path: str) -> bytes:
    """Returns a small file whole."""
    with tempfile.TemporaryDirectory(prefix="corpusmill-") as scratch:
        return read_bytes(base, path, Path(scratch))
