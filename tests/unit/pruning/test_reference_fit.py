"""Which pools a reference model may score, decided from the facts that are registered with it."""

from fractions import Fraction

import pytest

from corpusmill.pruning.corpus_split import CorpusSplit
from corpusmill.pruning.reference_fit import pool_conflicts, trained_on

SPLIT = CorpusSplit(Fraction(1, 4), 2)


def facts(part, crawls=("A",), **more):
    split = None if part == "all" else SPLIT.to_json()
    return {"part": part, "crawls": list(crawls), "split": split, "epochs": 2.0, **more}


def severities(data, metrics, crawl="A", **options):
    return {c.metric: c.severity for c in pool_conflicts(data, crawl, metrics, **options)}


@pytest.mark.parametrize(
    ("part", "crawl", "metric", "expected"),
    [
        ("all", "A", "perplexity", "error"),
        ("pool", "A", "perplexity", "error"),
        ("reserved", "A", "perplexity", "warning"),
        ("all", "B", "perplexity", None),
        ("all", "A", "memorization", None),
        ("pool", "A", "memorization", None),
        ("reserved", "A", "memorization", "error"),
        ("pool", "B", "memorization", "error"),
        ("all", "A", "el2n", None),
    ],
)
def test_perplexity_wants_what_was_not_seen_and_memorization_what_was(part, crawl, metric, expected):
    assert severities(facts(part), [metric], crawl).get(metric) == expected


def test_a_pool_without_the_reserved_part_is_fine_and_one_without_another_part_is_not():
    assert severities(facts("reserved"), ["perplexity"], pool_split=SPLIT) == {}
    other = CorpusSplit(Fraction(1, 4), 3)
    assert severities(facts("reserved"), ["perplexity"], pool_split=other) == {"perplexity": "warning"}


def test_an_early_checkpoint_cannot_have_memorized_the_pool():
    (conflict,) = pool_conflicts(facts("pool", epochs=0.14), "A", ["memorization"])
    assert conflict.severity == "warning"
    assert "saw 14% of its text" in conflict.message


def test_files_are_another_corpus_and_models_without_facts_pass():
    files = {"part": "all", "files": {"wiki.jsonl": "sha"}, "split": None}
    (conflict,) = pool_conflicts(files, "A", ["perplexity", "memorization"])
    assert (conflict.metric, conflict.severity) == ("memorization", "warning")
    assert "wiki.jsonl" in conflict.message
    assert pool_conflicts({}, "A", ["perplexity", "memorization"]) == []


def test_documents_that_were_trained_on_are_told_one_by_one():
    ids = [f"d{i}" for i in range(40)]
    reserved = [SPLIT.part_of(i) == "reserved" for i in ids]
    assert trained_on(facts("reserved"), "A", ids) == reserved
    assert trained_on(facts("pool"), "A", ids) == [not r for r in reserved]
    assert trained_on(facts("all"), "A", ids) == [True] * 40
    assert trained_on(facts("all"), "B", ids) == [False] * 40
    assert 3 < sum(reserved) < 20
