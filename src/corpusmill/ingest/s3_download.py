"""Downloads from S3 through pyarrow's client, which needs no further dependency.

Credentials and region come from the environment, as with every AWS client; options may stand in the base, as pyarrow
reads them: ``s3://bucket/prefix?endpoint_override=...&scheme=http&region=...``. ``?anonymous=true`` reads without
credentials.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from corpusmill.errors import PermanentDataError, TransientDataError
from corpusmill.ingest.backoff import FetchPolicy, MissingFileError, wrong_content

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

LOG = logging.getLogger(__name__)
READ_SIZE = 8 * 1024 * 1024
_REFUSED = (
    "ACCESS_DENIED",
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "NoSuchBucket",
    "HTTP status 403",
)


def open_s3(base: str) -> tuple["FileSystem", str]:
    """Returns pyarrow's file system and the path of the base inside it (bucket and prefix)."""
    from pyarrow.fs import FileSystem, S3FileSystem

    parts = urlsplit(base)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if options.pop("anonymous", "").lower() in ("1", "true"):
        place = f"{parts.netloc}{parts.path}".rstrip("/")
        return S3FileSystem(anonymous=True, **options), place
    query = f"?{urlencode(options)}" if options else ""
    system, place = FileSystem.from_uri(f"s3://{parts.netloc}{parts.path.rstrip('/')}{query}")
    return system, place


def download_s3(
    base: str,
    path: str,
    target: Path,
    *,
    policy: FetchPolicy,
    sleep: Callable[[float], None],
    jitter: Callable[[], float],
) -> None:
    """Downloads one object whole, or raises; goes on where a broken stream ended, if the object is still the same.

    Raises:
        MissingFileError: There is no such object.
        PermanentDataError: The object may not be read, or its first bytes are those of an error page.
        TransientDataError: The attempts were used up.
    """
    failures, n_bytes, version = 0, 0, None
    reason = ""
    target.unlink(missing_ok=True)
    for _ in range(policy.max_requests):
        before = n_bytes
        try:
            system, place = open_s3(base)
            info = system.get_file_info(f"{place}/{path}")
            if info.type.name == "NotFound":
                raise MissingFileError(f"{path!r} under source={base!r} does not exist; expected an object")
            if (info.size, info.mtime) != version:
                n_bytes, version = 0, (info.size, info.mtime)
            n_bytes = _copy(system, f"{place}/{path}", target, n_bytes)
            if n_bytes == info.size:
                break
            reason = f"got {n_bytes} of {info.size} bytes"
        except OSError as error:
            if any(word in str(error) for word in _REFUSED):
                raise PermanentDataError(f"{path!r} under source={base!r} may not be read: {error}") from error
            n_bytes = target.stat().st_size if target.exists() and version else 0
            reason = str(error)
        failures = 1 if n_bytes > before else failures + 1
        if failures >= policy.max_attempts:
            raise TransientDataError(
                f"{path!r} under source={base!r} could not be downloaded: {reason}; try again later"
            )
        delay = policy.delay(failures, jitter)
        LOG.info("%s: %s; trying again in %.1f s (attempt %d)", path, reason, delay, failures)
        sleep(delay)
    with target.open("rb") as file:
        if problem := wrong_content(target.name, file.read(1024)):
            raise PermanentDataError(f"{path!r} under source={base!r} is not a crawl file: {problem}")


def _copy(system: "FileSystem", place: str, target: Path, start: int) -> int:
    """Writes an object from ``start`` on to the target; returns the bytes that stand there then."""
    with system.open_input_file(place) as source, target.open("ab" if start else "wb") as out:
        source.seek(start)
        while data := source.read(READ_SIZE):
            out.write(data)
        return out.tell()


def list_s3_folders(base: str, path: str) -> list[str]:
    """Returns the names of the folders under a path, sorted.

    Raises:
        TransientDataError: The bucket could not be listed.
    """
    from pyarrow.fs import FileSelector

    try:
        system, place = open_s3(base)
        entries = system.get_file_info(FileSelector(f"{place}/{path}", allow_not_found=True))
    except OSError as error:
        raise TransientDataError(f"source={base!r} cannot be listed: {error}") from error
    return sorted(entry.base_name for entry in entries if entry.type.name == "Directory")
