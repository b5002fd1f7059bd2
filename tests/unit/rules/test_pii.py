"""Addresses are masked; the replacement depends on the address alone."""

import ipaddress
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.rules.pii import EMAIL_REPLACEMENTS, IP_REPLACEMENTS, email_spans, ip_spans, mask


def _found(text):
    return [text[a:b] for a, b in email_spans(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to john.doe+x@mail.example.org.", ["john.doe+x@mail.example.org"]),
        ("a@b", []),
        ("@user and user@", []),
        ("a@b.c@d.ef", ["a@b.c"]),
        ("ends.@x.org", []),
        ("UPPER@CASE.ORG", ["UPPER@CASE.ORG"]),
        ("me@[8.8.8.8]", ["me@[8.8.8.8]"]),
        ("a b@c.de,f@g.hi", ["b@c.de", "f@g.hi"]),
    ],
)
def test_email_addresses_are_found(text, found):
    assert _found(text) == found


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("8.8.8.8", 1),
        ("192.168.0.1", 0),
        ("127.0.0.1", 0),
        ("1.2.3", 0),
        ("1234.8.8.8", 1),
        ("300.8.8.8.8", 0),
        ("01.2.3.4", 0),
    ],
)
def test_only_public_addresses_are_masked(text, n):
    assert len(ip_spans(text)) == n


def test_equal_addresses_get_equal_replacements_wherever_they_stand():
    first, n = mask("a@x.org 8.8.8.8 b@y.org")
    second, _ = mask("c@z.org 9.9.9.9 a@x.org 8.8.8.8")
    assert n == 3
    assert first.split()[0] == second.split()[2]
    assert first.split()[1] == second.split()[3]
    assert first.split()[0] in EMAIL_REPLACEMENTS
    assert first.split()[1] in IP_REPLACEMENTS


def test_hostile_text_costs_bounded_time():
    started = time.process_time()
    for text in ("a-" * 500_000 + "@", "a@" * 200_000, "a." * 500_000, "x@" + "a-" * 500_000, "1." * 500_000):
        mask(text)
    assert time.process_time() - started < 60  # a bound on the kind (not quadratic), not on the speed


ATOM, LABEL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+", r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
WHOLE = rf"\b{ATOM}(?:\.{ATOM})*@(?:(?:{LABEL}\.)+{LABEL}|\[(?:{OCTET}\.){{3}}(?:{OCTET}|[A-Za-z0-9-]*[A-Za-z0-9]:)])"


@given(st.text(alphabet="ab.-@ [1]8+\u00e9", max_size=60))
@settings(max_examples=500, deadline=None)
def test_addresses_are_those_of_the_reference_pattern(text):
    assert email_spans(text) == [m.span() for m in re.finditer(WHOLE, text)]


def test_replacement_addresses_are_valid():
    assert all(ipaddress.ip_address(a) for a in IP_REPLACEMENTS)
