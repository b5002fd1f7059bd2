"""Alarms of refinement: which numbers, which bounds, and that they only warn."""

from types import SimpleNamespace

import pytest

from corpusmill.prox.refinement_alarms import MEANINGS, RefinementAlarms, n_outputs, refinement_shares
from corpusmill.recipe import parse_recipe
from corpusmill.report import StageReport, merge_reports
from corpusmill.runner.refinement_alarms import alarm_checks, alarm_metrics, alarm_sentences, shard_line, stage_alarms

METRICS = {
    "chunks": 1990.0,
    "chunks_failed": 10.0,
    "failures": 10.0,
    "chunks_truncated": 199.0,
    "chunks_looped": 0.0,
    "chunks_untouched": 995.0,
    "calls": 3980.0,
    "normalizes": 8.0,
    "normalize_misses": 2.0,
    "words_before": 1000.0,
    "words_removed": 250.0,
    "characters_removed.remove_lines": 1200.0,
    "model_calls": 1500.0,
    "reused_cache": 490.0,
}


def chunk_report(**changes: float) -> StageReport:
    metrics = {**METRICS, **changes}
    return StageReport("refine_chunks", "C", "00001", documents_in=400, documents_kept=300, metrics=metrics)


def test_the_numbers_of_a_chunk_stage():
    assert refinement_shares(chunk_report()) == {
        "kept_share": 0.75,
        "failed_share": 0.01,
        "truncated_share": 0.1,
        "looped_share": 0.0,
        "untouched_share": 0.5,
        "calls_per_program": 2.0,
        "normalize_miss_share": 0.25,
        "words_removed_share": 0.25,
    }
    assert set(refinement_shares(chunk_report())) == set(MEANINGS)


def test_the_numbers_of_a_document_stage():
    metrics = {"calls": 200.0, "unparsed": 3.0, "failures": 1.0, "truncated": 50.0}
    report = StageReport("refine_documents", "C", documents_in=210, documents_kept=21, metrics=metrics)
    assert refinement_shares(report) == {"kept_share": 0.1, "failed_share": 0.02}
    assert n_outputs(report) == 200


def test_the_numbers_of_a_crawl_are_those_of_its_summed_counts():
    one, two = chunk_report(), chunk_report(chunks_failed=1970.0)
    merged = merge_reports("refine_chunks", "C", [one, two])
    assert refinement_shares(merged)["failed_share"] == 2000 / 4000


def test_nothing_is_divided_by_nothing():
    assert refinement_shares(StageReport("refine_chunks", "C")) == {}
    assert alarm_sentences(StageReport("refine_chunks", "C"), RefinementAlarms(min_outputs=1)) == []


def test_a_number_beyond_its_bound_is_a_warning_in_words():
    (sentence,) = alarm_sentences(chunk_report(), RefinementAlarms())
    assert "refine_chunks.truncated_share" in sentence
    assert "observed 0.1, expected at most 0.01" in sentence
    assert all(check.severity == "warning" for check in alarm_checks(chunk_report(), RefinementAlarms()))
    more = chunk_report(chunks_failed=11.0)
    assert len(alarm_sentences(more, RefinementAlarms())) == 2


@pytest.mark.parametrize("name", MEANINGS)
def test_every_number_has_a_bound(name):
    bound = {f"max_{name}": 0.001} if f"max_{name}" in RefinementAlarms.model_fields else {f"min_{name}": 1.0}
    report = chunk_report(chunks_looped=10.0)
    off = dict.fromkeys(("max_failed_share", "max_truncated_share", "max_looped_share"))
    (sentence,) = alarm_sentences(report, RefinementAlarms(**{**off, **bound}))
    assert f"refine_chunks.{name}" in sentence
    assert alarm_sentences(report, RefinementAlarms(**off)) == []


def test_a_handful_of_outputs_raises_no_alarm():
    few = chunk_report(chunks=50.0, chunks_failed=1.0)
    assert alarm_sentences(few, RefinementAlarms()) == []
    assert alarm_sentences(few, RefinementAlarms(min_outputs=50)) != []
    assert alarm_metrics(few)["refine_chunks.failed_share"] == 11 / 60


def test_a_shards_line_names_its_numbers_and_where_outputs_came_from():
    line = shard_line(chunk_report())
    for part in ("C/00001", "failed_share 0.01", "calls_per_program 2", "model_calls 1500", "reused_cache 490",
                 "characters_removed.remove_lines 1200"):  # fmt: skip
        assert part in line


def test_only_refinement_stages_of_the_recipe_have_alarms():
    recipe = parse_recipe({"name": "r", "refine_chunks": {"model": "m", "backend": "scripted"}})
    plan = SimpleNamespace(parsed_recipe=lambda: recipe)
    assert stage_alarms(plan, "refine_documents") is None
    assert stage_alarms(plan, "clean") is None
    assert stage_alarms(plan, "refine_chunks") == RefinementAlarms()
