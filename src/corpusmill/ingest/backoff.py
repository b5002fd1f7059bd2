"""How downloads wait and how often they try, and what tells a crawl file from an error page."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from corpusmill.errors import PermanentDataError

_OVERLOADED = re.compile(rb"SlowDown|RequestLimitExceeded|Throttling|ServiceUnavailable|InternalError|RequestTimeout")
_MARKUP = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|error|body|title)", re.IGNORECASE)


class MissingFileError(PermanentDataError):
    """A file does not exist."""


@dataclass(frozen=True)
class FetchPolicy:
    """How often and how long a download tries.

    Attributes:
        max_attempts: Requests without any new byte after which it gives up; a request that brings bytes starts the
            count anew.
        max_requests: Requests in all.
        first_delay: Seconds before the second attempt; doubled for each further one.
        max_delay: Longest wait in seconds; also bounds Retry-After.
        timeout: Seconds a connection may be silent.
    """

    max_attempts: int = 8
    max_requests: int = 100
    first_delay: float = 1.0
    max_delay: float = 300.0
    timeout: float = 60.0

    def delay(self, attempt: int, jitter: Callable[[], float], retry_after: float | None = None) -> float:
        """Returns the seconds to wait after a failed attempt.

        Spread at random, so that the workers of a crawl do not come back all at once; never less than Retry-After.

        Args:
            attempt: 1 after the first attempt.
            jitter: Returns a random number of [0, 1).
            retry_after: Seconds that the server asked for, None where it did not.
        """
        backoff = min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1)) * (0.5 + 0.5 * jitter())
        return backoff if retry_after is None else min(self.max_delay, max(retry_after, 0.0) + backoff)


def is_overloaded(body: bytes) -> bool:
    """Returns whether an error body says that the server is busy (S3's ``SlowDown`` and its kin)."""
    return _OVERLOADED.search(body) is not None


def wrong_content(name: str, first: bytes) -> str | None:
    """Returns what is wrong with the first bytes of a downloaded file, None where they may be its own.

    Args:
        name: File name; its ending says what is expected.
        first: The first bytes of the body.
    """
    if name.endswith(".gz"):
        if not first.startswith(b"\x1f\x8b"):
            return f"it begins with {first[:60]!r}, not with gzip's magic bytes"
    elif name.endswith((".warc", ".arc", ".wet", ".parquet", ".paths")) and (_MARKUP.match(first) or not first):
        return f"it begins with {first[:60]!r}: an error page, not {name!r}"
    elif name.endswith(".json") and not first.lstrip().startswith((b"[", b"{")):
        return f"it begins with {first[:60]!r}, not with JSON"
    return None
