"""Where a model server is and how gently it is asked: addresses, keys and limits, none of which stands in a recipe."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from corpusmill.errors import ConfigError

VARIABLE = "CORPUSMILL_ENDPOINT_"
"""Prefix of the environment variables that describe a named endpoint."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LIMITS: dict[str, tuple[str, type[int] | type[float]]] = {
    "TIMEOUT_SECONDS": ("timeout_seconds", float),
    "MAX_RETRIES": ("max_retries", int),
    "REQUESTS_PER_MINUTE": ("requests_per_minute", float),
    "MAX_CONCURRENCY": ("max_concurrency", int),
}


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks the OpenAI completions protocol.

    Attributes:
        base_url: Address up to and including the version, for instance ``http://host:8000/v1``.
        api_key: Sent as a bearer token; None sends none. Never part of ``repr`` or of a message.
        timeout_seconds: Seconds that one request may take from its first byte sent to its last byte received.
        max_retries: Further attempts of a request that failed in a way that may pass.
        requests_per_minute: Requests started per minute at most, retries counted; None: no limit.
        max_concurrency: Requests under way at once.

    Raises:
        ConfigError: The URL is no plain http(s) address, the key could not be sent, or a limit is out of range.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 120.0
    max_retries: int = 5
    requests_per_minute: float | None = None
    max_concurrency: int = 8

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        # An HTTP library names an illegal header's value in its error, so such a key must not reach it.
        if self.api_key is not None and not re.fullmatch(r"[\x21-\x7e]+", self.api_key):
            raise ConfigError(
                f"the key of endpoint {self.base_url!r} is empty or holds spaces, line breaks or characters beyond "
                "ASCII; expected the key alone"
            )
        for name, least in (("timeout_seconds", 0.001), ("max_retries", 0), ("max_concurrency", 1)):
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} of endpoint {self.base_url!r}; expected {least} or more"
                )
        if self.requests_per_minute is not None and not 0 < self.requests_per_minute < float("inf"):
            raise ConfigError(
                f"requests_per_minute={self.requests_per_minute!r} of endpoint {self.base_url!r}; expected more than "
                "0, or None for no limit"
            )


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        usable = False
    if usable and (parts.username or parts.password or parts.query or parts.fragment):
        raise ConfigError(
            f"the URL of the endpoint at {parts.hostname!r} holds a user, a password or a query; expected the plain "
            "address, with the key apart from it"
        )
    if not usable:
        raise ConfigError(f"endpoint {url!r} is no address; expected for instance 'http://host:8000/v1'")


def resolve_endpoint(name_or_url: str, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Returns an endpoint from its address, or from its name through environment variables.

    ``CORPUSMILL_ENDPOINT_<NAME>`` holds the address and ``CORPUSMILL_ENDPOINT_<NAME>_KEY`` the key, with the name in
    capitals and ``-`` as ``_``. ``_TIMEOUT_SECONDS``, ``_MAX_RETRIES``, ``_REQUESTS_PER_MINUTE`` and
    ``_MAX_CONCURRENCY`` behind the name set limits. An address given as it is has no key and the usual limits.

    Args:
        name_or_url: ``http(s)://...``, or a name of letters, digits, ``-`` and ``_``.
        environ: Variables; None takes those of the process.

    Raises:
        ConfigError: The name has no variable, or a variable holds no usable value.
    """
    if "://" in name_or_url:
        return Endpoint(name_or_url.rstrip("/"))
    if not _NAME.fullmatch(name_or_url):
        raise ConfigError(
            f"endpoint={name_or_url!r} is neither an address such as 'http://host:8000/v1' nor a name of letters, "
            "digits, '-' and '_'"
        )
    given = os.environ if environ is None else environ
    variable = VARIABLE + name_or_url.upper().replace("-", "_")
    url = given.get(variable, "").strip()
    if not url:
        raise ConfigError(
            f"endpoint={name_or_url!r} needs {variable} in the environment, the server's address such as "
            f"'http://host:8000/v1', and {variable}_KEY where it asks for a key"
        )
    key = given.get(f"{variable}_KEY", "").strip() or None
    limits: dict[str, Any] = {
        attribute: _number(f"{variable}_{suffix}", given[f"{variable}_{suffix}"], kind)
        for suffix, (attribute, kind) in _LIMITS.items()
        if given.get(f"{variable}_{suffix}", "").strip()
    }
    return Endpoint(url.rstrip("/"), key, **limits)


def _number(variable: str, value: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{variable}={value!r} is no {'whole ' if kind is int else ''}number") from None
