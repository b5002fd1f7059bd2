"""Asks a JSON server over HTTP, one request at a time per thread: limits, retries, and what a failure means.

Failures are of three kinds. `RefusedError`: the server will say the same again (a wrong key, a request it cannot
take). `ExhaustedError`: every attempt failed in a way that might have passed. A success is whatever the caller's parser
accepts; an answer that it does not accept is asked for again, since a cut or garbled body is a fault of the moment.

Proxies and certificates are taken from the environment, as other clients do (``HTTPS_PROXY``, ``SSL_CERT_FILE``).
"""

import json
import logging
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx

from corpusmill import __version__
from corpusmill.modeling.endpoints import Endpoint
from corpusmill.retry_after import retry_after_seconds

Answer = TypeVar("Answer")

MAX_RESPONSE_BYTES = 16 << 20
"""A longer body is not read on: 256 new tokens with 20 alternatives each are about 0.3 MB."""
FIRST_DELAY = 0.5
"""Seconds before the second attempt at most; doubled for each further one."""
MAX_DELAY = 60.0
"""Longest wait of our own in seconds."""
KEPT_OPEN = 4.0
"""Seconds that an unused connection is kept; servers commonly close theirs after 5 (uvicorn)."""
MAX_RETRY_AFTER = 300.0
"""Longest wait in seconds that a server may ask for."""

_TOO_MANY = 429
_MAY_PASS = frozenset({408, 409, 425, _TOO_MANY})
_SAID = 300


class RefusedError(Exception):
    """The server refused a request for good.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class ExhaustedError(Exception):
    """Every attempt of a request failed; the message is the last failure's.

    Attributes:
        busy: True where the last failure was the server's refusal of more work (429).
    """

    def __init__(self, message: str, busy: bool) -> None:
        super().__init__(message, busy)
        self.busy = busy

    def __str__(self) -> str:
        return str(self.args[0])


class StoppedError(Exception):
    """The call was given up while this request waited."""


class MalformedAnswerError(ValueError):
    """An answer is not what the protocol says; raised by parsers."""


class _AttemptError(Exception):
    """One attempt failed in a way that may pass."""

    def __init__(self, message: str, retry_after: float | None = None, *, busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.busy = busy


@dataclass(frozen=True)
class Usage:
    """What was asked and what it cost so far; answers that had to be asked for again are counted too.

    Attributes:
        n_requests: HTTP requests, retries among them.
        n_retries: Requests that repeated an earlier one.
        prompt_tokens: Tokens of prompts, as the server counted them.
        completion_tokens: Tokens written, as the server counted them.
    """

    n_requests: int = 0
    n_retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def retry_delay(attempt: int, jitter: float, retry_after: float | None = None) -> float:
    """Returns the seconds to wait after a failed attempt.

    Spread over half of the wait, so that clients do not come back all at once; never less than what the server asked
    for up to `MAX_RETRY_AFTER`.

    Args:
        attempt: 1 after the first attempt.
        jitter: A number of [0, 1).
        retry_after: Seconds that the server asked for; None where it did not.
    """
    backoff = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(attempt - 1, 30)) * (0.5 + 0.5 * jitter)
    return backoff if retry_after is None else min(MAX_RETRY_AFTER, max(retry_after, 0.0) + backoff)


class Pace:
    """Spreads request starts evenly over each minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._interval = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = -math.inf
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Takes the next free start and returns the seconds until it; thread-safe.

        Args:
            now: Seconds on a clock that never goes back.
        """
        with self._lock:
            start = max(now, self._next)
            self._next = start + self._interval
        return start - now


class JsonServer:
    """Sends requests to one endpoint; thread-safe."""

    def __init__(self, endpoint: Endpoint) -> None:
        # One INFO line per request would fill task logs.
        if logging.getLogger("httpx").level == logging.NOTSET:
            logging.getLogger("httpx").setLevel(logging.WARNING)
        headers = {"User-Agent": f"corpusmill/{__version__}", "Accept-Encoding": "identity"}
        if endpoint.api_key is not None:
            headers["Authorization"] = f"Bearer {endpoint.api_key}"
        self.endpoint = endpoint
        self._headers = headers
        self._tls = httpx.create_ssl_context()
        # One client per request under way, lent out and given back: threads that share a client's connections can
        # close them under each other (httpcore 1.0: an answer that just arrived looks like a hang-up).
        self._clients: queue.LifoQueue[httpx.Client | None] = queue.LifoQueue()
        for _ in range(endpoint.max_concurrency):
            self._clients.put(None)
        self._pace = Pace(endpoint.requests_per_minute)
        self._jitter = random.Random()
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._usage

    def close(self) -> None:
        """Closes the connections, once the requests under way have ended."""
        clients = [self._clients.get() for _ in range(self.endpoint.max_concurrency)]
        for client in clients:
            if client is not None:
                client.close()
            self._clients.put(None)

    def ask(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        parse: Callable[[Any], Answer],
        stop: threading.Event,
        max_retries: int | None = None,
    ) -> Answer:
        """Returns the parsed answer to one request.

        Args:
            path: Place under the endpoint's address, for instance ``/completions``.
            body: Sent as JSON by POST; None sends GET.
            parse: Makes the answer from decoded JSON, or raises `MalformedAnswerError`.
            stop: Ends waiting when it is set.
            max_retries: Further attempts; None takes the endpoint's.

        Raises:
            RefusedError: The server refused the request for good.
            ExhaustedError: The attempts were used up.
            StoppedError: ``stop`` was set.
        """
        content = None if body is None else json.dumps(body).encode()
        retries = self.endpoint.max_retries if max_retries is None else max_retries
        for attempt in range(1, retries + 2):
            self._wait(self._pace.reserve(time.monotonic()), stop)
            self._count(n_requests=1, n_retries=int(attempt > 1))
            try:
                return parse(self._attempt(path, content))
            except MalformedAnswerError as error:
                failed = _AttemptError(f"the answer is not of the protocol: {error}")
            except _AttemptError as error:
                failed = error
            if attempt <= retries:
                self._wait(retry_delay(attempt, self._jitter.random(), failed.retry_after), stop)
        raise ExhaustedError(f"{failed} (attempt {retries + 1} of {retries + 1})", failed.busy)

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if stop.is_set() or (seconds > 0 and stop.wait(seconds)):
            raise StoppedError

    def _count(self, **more: int) -> None:
        with self._lock:
            self._usage = replace(self._usage, **{name: getattr(self._usage, name) + n for name, n in more.items()})

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        """Lends a client that no other thread uses; waits for one where the endpoint's concurrency is used up."""
        client = self._clients.get()
        try:
            if client is None:
                client = httpx.Client(
                    headers=self._headers,
                    timeout=self.endpoint.timeout_seconds,
                    limits=httpx.Limits(max_connections=1, keepalive_expiry=KEPT_OPEN),
                    verify=self._tls,
                )
            yield client
        finally:
            self._clients.put(client)

    def _attempt(self, path: str, content: bytes | None) -> Any:
        try:
            with (
                self._client() as client,
                client.stream(
                    "GET" if content is None else "POST",
                    self.endpoint.base_url + path,
                    content=content,
                    headers={} if content is None else {"Content-Type": "application/json"},
                ) as response,
            ):
                data = self._read(response)
        except httpx.TimeoutException:
            raise _AttemptError(f"no answer within {self.endpoint.timeout_seconds} s") from None
        except httpx.HTTPError as error:  # refused, reset, cut, unreadable
            raise _AttemptError(f"{type(error).__name__}: {self._said(str(error))}") from error
        if response.status_code != 200:
            raise self._failure(response, data)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _AttemptError(f"the answer of {len(data)} bytes is not JSON: {type(error).__name__}") from None
        self._count_tokens(answer)
        return answer

    def _read(self, response: httpx.Response) -> bytes:
        """Returns the body; a server that trickles it is given no more time than one that is silent."""
        data = bytearray()
        deadline = time.monotonic() + self.endpoint.timeout_seconds
        for part in response.iter_bytes():
            data += part
            if len(data) > MAX_RESPONSE_BYTES:
                raise _AttemptError(f"the answer is longer than {MAX_RESPONSE_BYTES} bytes")
            if time.monotonic() > deadline:
                raise _AttemptError(f"no whole answer within {self.endpoint.timeout_seconds} s")
        return bytes(data)

    def _failure(self, response: httpx.Response, data: bytes) -> Exception:
        status = response.status_code
        said = f"HTTP {status} {response.reason_phrase}: {self._said(_error_text(data))}".rstrip(": ")
        if status in _MAY_PASS or status >= 500:
            wanted = retry_after_seconds(response.headers.get("Retry-After"))
            return _AttemptError(said, wanted, busy=status == _TOO_MANY)
        return RefusedError(said, status)

    def _said(self, text: str) -> str:
        """Returns the beginning of what a server said, without the key, should it repeat it."""
        key = self.endpoint.api_key
        return (text if key is None else text.replace(key, "***"))[:_SAID]

    def _count_tokens(self, answer: Any) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        if isinstance(usage, dict):
            counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
            self._count(**{name: n for name, n in counts.items() if isinstance(n, int) and n > 0})


def _error_text(data: bytes) -> str:
    """Returns the message of an OpenAI error object; nothing else, since servers repeat whole requests otherwise."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""
