"""A run's report stays within its size, whatever the crawl held."""

import json

import pytest

from corpusmill.runner.report_bounds import MAX_BYTES, MAX_REASONS, REST, bounded, shortened, size_of


def report(**changes):
    step = {"stage": "clean", "removed": {"r.a": 1}, "quarantined": {}}
    given = {
        "crawl": "C-2024-10", "message": "", "funnel": [step], "validation": None, "examples": [],
    }  # fmt: skip
    return given | changes


def example(n, text):
    return {"doc_id": str(n), "before": text, "program": "keep_all()", "after": text}


def test_a_small_report_stays_as_it_is():
    given = report(examples=[example(1, "a")])
    assert bounded(given) == given | {"examples_left_out": 0}


@pytest.mark.parametrize("text", ["a" * 6000, "\u4e2d" * 6000, "\U0001f600" * 6000], ids=["ascii", "cjk", "emoji"])
def test_examples_that_do_not_fit_are_left_out_and_counted(text):
    kept = bounded(report(examples=[example(n, text) for n in range(400)]))
    stored = len(json.dumps(kept, sort_keys=True, ensure_ascii=True).encode())
    assert stored <= MAX_BYTES
    assert stored > MAX_BYTES - size_of(example(0, text)) - 100
    assert len(kept["examples"]) + kept["examples_left_out"] == 400
    assert [e["doc_id"] for e in kept["examples"]] == [str(n) for n in range(len(kept["examples"]))]


def test_many_reasons_are_summed_and_none_is_lost():
    removed = {f"rule.{n:04d}": n + 1 for n in range(1000)}
    kept = bounded(report(funnel=[{"stage": "clean", "removed": removed, "quarantined": {}}]))["funnel"][0]["removed"]
    assert len(kept) == MAX_REASONS
    assert sum(kept.values()) == sum(removed.values())
    assert kept["rule.0999"] == 1000
    assert kept[REST] == sum(range(1, 1000 - MAX_REASONS + 2))


def test_messages_and_sentences_are_bounded_and_say_so():
    validation = {"passed": False, "failed": ["f" * 5000] * 500, "warnings": ["w"], "n_checks": 501}
    kept = bounded(report(message="m" * 100_000, validation=validation))
    assert kept["message"].endswith("(100,000 characters in all; the task's log has the rest)")
    assert kept["validation"]["failed"][-1] == "... and 400 more; see the Data Docs"
    assert kept["validation"]["warnings"] == ["w"]
    assert size_of(kept) < MAX_BYTES / 2


def test_a_text_is_shortened_to_its_length_only_where_it_is_longer():
    assert shortened("abc", 3) == "abc"
    assert len(shortened("x" * 5000, 1000)) == 1000
