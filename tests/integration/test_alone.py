"""Stages on tables of their user, outside the chain."""

import pytest

from corpusmill.errors import ConfigError
from corpusmill.runner.alone import run_stage
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SCORE = {"model": "bundled:reference_lm", "context": 64}


def test_a_stage_alone_takes_what_an_earlier_one_kept_and_a_second_run_does_nothing(home, recipe):
    refresh(recipe(), "T-2024-10", None, print)
    done = run_stage("score", SCORE, source="tiny.documents", target="t.scores", crawl="T-2024-10", run_id="a")
    table = open_lakehouse().table("t.scores")
    kept = open_lakehouse().table("tiny.documents").scan({"crawl": "T-2024-10"}, filter="kept == true")
    assert done["documents_in"] == table.count({"crawl": "T-2024-10"}) == kept.num_rows == 20
    snapshot = table.snapshot_id()
    again = run_stage("score", SCORE, source="tiny.documents", target="t.scores", crawl="T-2024-10", run_id="b")
    assert again["skipped"]
    assert open_lakehouse().table("t.scores").snapshot_id() == snapshot


def test_a_crawl_that_the_source_does_not_hold_is_an_error_that_names_those_it_holds(home, recipe):
    refresh(recipe(), "T-2024-10", None, print)
    with pytest.raises(ConfigError, match=r"T-2099-01.*T-2024-10"):
        run_stage("score", SCORE, source="tiny.documents", target="t.scores", crawl="T-2099-01", run_id="a")


def test_a_refinement_alone_takes_stored_programs_and_asks_no_model_for_another_policy(home, recipe):
    refresh(recipe(), "T-2024-10", None, print)
    config = {"backend": "labeller", "model": "bundled:line_labeller"}
    place = {"source": "tiny.documents", "target": "t.chunks", "crawl": "T-2024-10"}
    first = run_stage("refine_chunks", config, **place, run_id="a")["metrics"]
    assert first["model_calls"] + first["reused_cache"] == first["chunks"] == 20
    second = run_stage("refine_chunks", {**config, "min_words": 400}, **place, run_id="b")
    assert second["removed"] == {"dropped_min_words": 20}
    assert (second["metrics"]["model_calls"], second["metrics"]["reused_stored"]) == (0, 20)
    apart = run_stage("refine_chunks", {**config, "reuse_stored": False, "min_words": 401}, **place, run_id="c")
    assert apart["metrics"]["model_calls"] == 20
