"""Opens a crawl's files wherever they stand: a local folder, HTTP(S) or S3.

Local files are opened in place. Others are downloaded to scratch first, because readers seek, and because a download
that is checked whole before reading begins is what keeps error pages and cut files out of the corpus.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.ingest.backoff import FetchPolicy, MissingFileError
from corpusmill.ingest.download_folder import download_folder
from corpusmill.ingest.http_download import download_http
from corpusmill.ingest.s3_download import download_s3, list_s3_folders

__all__ = ["FetchPolicy", "MissingFileError", "list_folders", "local_folder", "open_file", "read_bytes"]

DEFAULT_POLICY = FetchPolicy()


@contextmanager
def open_file(
    base: str,
    path: str,
    scratch: Path,
    *,
    policy: FetchPolicy = DEFAULT_POLICY,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[], float] = random.random,
) -> Iterator[BinaryIO]:
    """Gives a file of a crawl, opened for reading and seekable; a downloaded copy is removed at the end.

    Args:
        base: Local folder, ``file://``, ``http(s)://`` or ``s3://`` URL.
        path: Path relative to the base, as the manifest lists it.
        scratch: Folder for a downloaded copy.
        policy: How often and how long to try.
        sleep: Waits so many seconds.
        jitter: Returns a random number of [0, 1) that spreads waiting times.

    Raises:
        MissingFileError: There is no such file.
        PermanentDataError: The file may not be read, or is an error page instead of a crawl file.
        TransientDataError: The file could not be fetched now.
    """
    folder = local_folder(base)
    if folder is not None:
        with _open_local(folder / path, f"{path!r} under source={base!r}") as file:
            yield file
        return
    with download_folder(scratch) as place:
        target = place / Path(path).name
        if base.startswith("s3://"):
            download_s3(base, path, target, policy=policy, sleep=sleep, jitter=jitter)
        else:
            url = f"{base.rstrip('/')}/{quote(path)}"
            download_http(url, target, policy=policy, sleep=sleep, jitter=jitter)
        with target.open("rb") as file:
            yield file


def local_folder(base: str) -> Path | None:
    """Returns the folder that a base names, None where it is a URL of a server.

    Raises:
        ConfigError: The URL's scheme is not known.
    """
    scheme = base.partition("://")[0] if "://" in base else ""
    if scheme == "":
        return Path(base).expanduser()
    if scheme == "file":
        return Path(unquote(urlsplit(base).path))
    if scheme in ("http", "https", "s3"):
        return None
    raise ConfigError(f"source={base!r}: unknown scheme {scheme!r}; expected a folder, file://, http(s):// or s3://")


def _open_local(place: Path, what: str) -> BinaryIO:
    """Returns a local file, opened."""
    try:
        return place.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{what} does not exist; expected a file") from error
    except (PermissionError, IsADirectoryError) as error:
        raise PermanentDataError(f"{what} cannot be opened: {error.strerror}; expected a readable file") from error


def read_bytes(base: str, path: str, scratch: Path, *, policy: FetchPolicy = DEFAULT_POLICY) -> bytes:
    """Returns a small file whole; raises what `open_file` raises."""
    with open_file(base, path, scratch, policy=policy) as file:
        return file.read()


def list_folders(base: str, path: str) -> list[str]:
    """Returns the names of the folders under a path, sorted; none where the base cannot list (HTTP)."""
    folder = local_folder(base)
    if folder is None:
        return list_s3_folders(base, path) if base.startswith("s3://") else []
    place = folder / path
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else []
