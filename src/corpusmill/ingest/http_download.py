"""Downloads over HTTP(S): resumes after cuts, waits when the server is busy, checks what it got.

The standard library's client is enough here: one request at a time, and the checks are ours in any case.
"""

import http.client
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from corpusmill import __version__
from corpusmill.errors import PermanentDataError, TransientDataError
from corpusmill.ingest.backoff import FetchPolicy, MissingFileError, is_overloaded, wrong_content
from corpusmill.retry_after import retry_after_seconds

LOG = logging.getLogger(__name__)
READ_SIZE = 256 * 1024
FIRST_READ = 1024
_MISSING = (404, 410)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class _Retry(Exception):  # noqa: N818 - control flow of this module, never leaves it
    """The attempt failed in a way that another one may repair."""

    def __init__(self, message: str, retry_after: float | None = None, *, wrong: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.wrong = wrong


@dataclass
class _Download:
    """The state of one download over its attempts.

    Attributes:
        url: What is downloaded.
        target: Where to.
        timeout: Seconds a connection may be silent.
        n_bytes: Bytes of the current version that stand in the target.
        validator: ETag (strong) or Last-Modified of the current version, ``""`` where the server gave none.
        total: Its length, None where the server did not say.
        wrong: True where the last complete answer was not the file.
    """

    url: str
    target: Path
    timeout: float
    n_bytes: int = 0
    validator: str = ""
    total: int | None = None
    wrong: bool = field(default=False)

    def request(self) -> urllib.request.Request:
        """Returns the next request: the rest where a part of a known version is there, else the whole."""
        headers = {"User-Agent": f"corpusmill/{__version__}", "Accept-Encoding": "identity"}
        if self.n_bytes and self.validator:
            headers |= {"Range": f"bytes={self.n_bytes}-", "If-Range": self.validator}
        return urllib.request.Request(self.url, headers=headers)  # noqa: S310 - callers pass http(s) only

    def restart(self) -> None:
        """Forgets what is there."""
        self.n_bytes, self.validator, self.total = 0, "", None


def download_http(
    url: str,
    target: Path,
    *,
    policy: FetchPolicy,
    sleep: Callable[[float], None],
    jitter: Callable[[], float],
) -> None:
    """Downloads one file whole, or raises; never leaves a part or an error page for the file.

    A cut download goes on with Range and If-Range; a server that ignores them or has a new version is read from the
    start. Waits between attempts as `FetchPolicy` says and as Retry-After asks.

    Args:
        url: An ``http://`` or ``https://`` URL.
        target: Local file; replaced.
        policy: How often and how long to try.
        sleep: Waits so many seconds.
        jitter: Returns a random number of [0, 1).

    Raises:
        MissingFileError: The server says 404 or 410.
        PermanentDataError: The server refuses (401, 403 and other 4xx), or serves an error page as the file every time.
        TransientDataError: The attempts were used up.
    """
    state = _Download(url, target, policy.timeout)
    failures = 0
    for _ in range(policy.max_requests):
        before = state.n_bytes
        try:
            _attempt(state)
            return
        except _Retry as error:
            failures = 1 if state.n_bytes > before else failures + 1
            state.wrong = error.wrong
            reason, retry_after = str(error), error.retry_after
        if failures >= policy.max_attempts:
            break
        delay = policy.delay(failures, jitter, retry_after)
        LOG.info("%s: %s; trying again in %.1f s (attempt %d)", url, reason, delay, failures)
        sleep(delay)
    message = f"{url} could not be downloaded after {failures} attempts without progress: {reason}"
    if state.wrong:
        raise PermanentDataError(f"{message}; the server gives this for the file every time")
    raise TransientDataError(f"{message}; try again later")


def _attempt(state: _Download) -> None:
    """Makes one request and writes what it brings; returns when the file is whole."""
    try:
        with urllib.request.urlopen(state.request(), timeout=state.timeout) as answer:  # noqa: S310 - http(s) only
            _receive(state, answer)
    except urllib.error.HTTPError as error:
        with error:
            _refused(state, error)
    except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut, unreadable answer
        raise _Retry(f"{type(error).__name__}: {error}") from error


def _refused(state: _Download, error: urllib.error.HTTPError) -> None:
    """Sorts an error status into "try again" and "never"."""
    try:
        body = error.read(4096)
    except (OSError, http.client.HTTPException):
        body = b""
    said = f"the server said {error.code} {error.reason}"
    retry_after = retry_after_seconds(error.headers.get("Retry-After"))
    if error.code == 416:
        state.restart()
        raise _Retry(f"{said} to a request for the rest")
    if error.code in _BUSY or is_overloaded(body):
        raise _Retry(said, retry_after)
    if error.code in _MISSING:
        raise MissingFileError(f"{state.url} does not exist: {said}")
    raise PermanentDataError(f"{state.url} may not be read: {said}, {body[:200]!r}")


def _receive(state: _Download, answer: http.client.HTTPResponse) -> None:
    """Writes an answer's body to the target and checks its length."""
    resumed = answer.status == 206 and _continues(state, answer)
    if answer.status == 206 and not resumed:
        state.restart()
        raise _Retry("the server sent another part or another version than was asked for")
    if not resumed:
        state.restart()
        length = answer.headers.get("Content-Length", "")
        state.total = int(length) if length.isdigit() else None
    tag = answer.headers.get("ETag", "")
    state.validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    with state.target.open("ab" if resumed else "wb") as out:
        _copy(state, answer, out)
    if state.total is not None and state.n_bytes != state.total:
        if state.n_bytes > state.total:
            state.restart()
        raise _Retry(f"got {state.n_bytes} of {state.total} bytes")
    if state.n_bytes == 0:
        raise _Retry("the answer is empty", wrong=True)


def _copy(state: _Download, answer: http.client.HTTPResponse, out: BinaryIO) -> None:
    """Copies the body, after a look at its first bytes."""
    data = answer.read(FIRST_READ) if state.n_bytes == 0 else answer.read1(READ_SIZE)
    while data:
        if state.n_bytes == 0 and (problem := wrong_content(state.target.name, data)):
            busy = is_overloaded(data)
            raise _Retry(problem, retry_after_seconds(answer.headers.get("Retry-After")), wrong=not busy)
        out.write(data)
        state.n_bytes += len(data)
        data = answer.read1(READ_SIZE)  # read would wait for the whole of it and lose the part when a server stalls


def _continues(state: _Download, answer: http.client.HTTPResponse) -> bool:
    """Returns whether a partial answer is the rest of the version that is there."""
    found = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != state.n_bytes:
        return False
    if found[3] != "*" and state.total is not None and int(found[3]) != state.total:
        return False
    tag = answer.headers.get("ETag", "")
    return not tag or tag == state.validator or not state.validator.startswith('"')
