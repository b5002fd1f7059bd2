"""Retry-After, as servers send it and as they should not."""

from datetime import UTC, datetime

import pytest

from corpusmill.retry_after import retry_after_seconds

NOW = datetime(2026, 9, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12", 12.0),
        ("0.5", 0.5),
        (" 7 ", 7.0),
        ("Tue, 01 Sep 2026 00:01:00 GMT", 60.0),
        ("Tue, 01 Sep 2026 00:01:00 -0000", 60.0),
        ("Mon, 31 Aug 2026 00:00:00 GMT", 0.0),
        ("nan", None),
        ("1e999", None),
        ("-3", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", None),
    ],
)
def test_it_is_a_number_a_date_or_nothing(value, seconds):
    assert retry_after_seconds(value, NOW) == seconds


def test_a_date_is_held_against_the_clock():
    assert retry_after_seconds("Wed, 01 Jan 2020 00:00:00 GMT") == 0.0
