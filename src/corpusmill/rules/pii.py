"""Masking of e-mail addresses and public IPv4 addresses.

The patterns are datatrove 0.10.1's (FineWeb), the replacements its constants. Differs: the replacement is chosen by a
hash of what is replaced, not by a counter, so that the output depends on nothing seen before. An e-mail address is
looked for within `WINDOW` characters around its "@", which keeps hostile text from costing quadratic time.
"""

import hashlib
import ipaddress
import re

EMAIL_REPLACEMENTS = ("email@example.com", "firstname.lastname@example.org")
"""Addresses of reserved example domains."""
IP_REPLACEMENTS = (
    "22.214.171.124",
    "126.96.36.199",
    "188.8.131.52",
    "184.108.40.206",
    "220.127.116.11",
    "18.104.22.168",
)
"""Addresses that answered no ping when datatrove's authors drew them."""
WINDOW = 400
"""Longest local part and longest domain found, in characters; RFC 5321 allows 64 and 255."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_LITERAL = rf"\[(?:{_OCTET}\.){{3}}(?:{_OCTET}|[A-Za-z0-9-]*[A-Za-z0-9]:)]"
_LOCAL_PART = re.compile(rf"\b{_ATOM}(?:\.{_ATOM})*")
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+{_LABEL}|{_LITERAL}")
_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_LOCAL_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~-.")


def mask(text: str) -> tuple[str, int]:
    """Returns the text with e-mail and public IPv4 addresses replaced, and how many were."""
    text, n_emails = _replace(text, email_spans(text), EMAIL_REPLACEMENTS)
    text, n_addresses = _replace(text, ip_spans(text), IP_REPLACEMENTS)
    return text, n_emails + n_addresses


def email_spans(text: str) -> list[tuple[int, int]]:
    """Returns the spans (start, end) of e-mail addresses, from left to right, not overlapping."""
    spans: list[tuple[int, int]] = []
    end = 0
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1, at + 1 + WINDOW)
        start = None if domain is None else _local_start(text, max(end, at - WINDOW), at)
        if domain is not None and start is not None:
            end = domain.end()
            spans.append((start, end))
        at = text.find("@", max(end, at + 1))
    return spans


def _local_start(text: str, first: int, at: int) -> int | None:
    """Returns the leftmost position from which everything up to the "@" is a local part, None if there is none."""
    start = at
    while start > first and text[start - 1] in _LOCAL_CHARS:
        start -= 1
    return next((place for place in range(start, at) if _LOCAL_PART.fullmatch(text, place, at)), None)


def ip_spans(text: str) -> list[tuple[int, int]]:
    """Returns the spans (start, end) of IPv4 addresses that are globally routable."""
    if "." not in text:
        return []
    return [match.span() for match in _IPV4.finditer(text) if _is_public(match.group())]


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _replace(text: str, spans: list[tuple[int, int]], replacements: tuple[str, ...]) -> tuple[str, int]:
    """Returns the text with each span replaced; equal addresses get equal replacements."""
    parts: list[str] = []
    done = 0
    for start, end in spans:
        digest = hashlib.blake2b(text[start:end].encode("utf-8", "surrogatepass"), digest_size=8).digest()
        parts += [text[done:start], replacements[int.from_bytes(digest, "little") % len(replacements)]]
        done = end
    return "".join([*parts, text[done:]]), len(spans)
