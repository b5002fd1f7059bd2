"""The stage `select` on a real embedded lakehouse: one input file at a time, frozen crawls, drift, what is reported."""

import json

import numpy as np
import pyarrow as pa
import pytest

from corpusmill import cli
from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.order import float_of_key
from corpusmill.pruning.selection import Rows, resolve
from corpusmill.recipe import parse_recipe
from corpusmill.runner import chain
from corpusmill.runner.frozen_selections import pin_cutoffs, stored_cutoffs
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import RunPlan, commit_keys, cut_shards
from corpusmill.runner.score_counts import count_shard
from corpusmill.runner.score_shards import ScoreShards, score_groups
from corpusmill.runner.select import decide_selection, run_select
from corpusmill.runner.selection_record import stored_selection
from corpusmill.runner.selection_summary import epoch_summary, selection_sentences, selection_summary
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import CORPUS, DOCUMENTS, SCORES

FILES = ["a.warc.gz", "b.warc.gz", "c.warc.gz"]
N_ROWS = 600


@pytest.fixture
def lake(home):
    chain.initialise(["tiny"])
    return open_lakehouse()


def recipe(select, **changes):
    return parse_recipe({"name": "tiny", "score": {"model": "bundled:reference_lm"}, "select": select, **changes})


def scores(crawl="C-2024-10", shift=0.0, score_key="k", n=N_ROWS):
    rng = np.random.default_rng(1)
    rows = [
        {
            "crawl": crawl,
            "doc_id": f"{crawl}-{i:04d}",
            "warc_file": FILES[i % 3],
            "language": "de" if i % 5 == 0 else "en",
            "unit": "document",
            "nll_sum": None if i % 50 == 7 else 100 * (shift + rng.lognormal()),
            "n_scored": 0 if i % 50 == 7 else 100,
            "n_bytes": 400,
            "n_tokens": int(rng.integers(1, 300)),
            "score_key": score_key if i else "k",
        }
        for i in range(n)
    ]
    return rows_to_table(rows, SCORES.schema)


def planned(lake, made, crawl="C-2024-10", table=None, max_shards=2):
    """A plan whose scores are committed, as the stages before would have left them."""
    made = pin_cutoffs(lake, made)
    plan = RunPlan(
        recipe=made.model_dump(mode="json"),
        crawl=crawl,
        run_id="run",
        epoch=take_epoch(lake, "tiny", crawl, "run"),
        base_location="/",
        extraction="e",
        shards=cut_shards(FILES, max_shards),
        models={},
        base=(),
        keys=commit_keys(made, crawl, extraction="e", paths_digest="p", models={}, base=()),
        started_at="2024-01-01T00:00:00+00:00",
    )
    rows = scores(crawl) if table is None else table
    commit_rows(lake, "tiny.scores", {"crawl": crawl}, rows, plan.token("score"))
    return plan


@pytest.mark.parametrize(
    "select",
    [
        {"column": "mean_nll", "fraction": "3/10", "which": "middle"},
        {"column": "mean_nll", "fraction": "3/10", "which": "bottom", "weight": "n_tokens", "by": ["language"]},
        {"column": "mean_nll", "fraction": "3/10", "which": "top", "mode": "sample", "temperature": 2.0},
        {"column": "random", "fraction": "1/7", "which": "top", "mode": "threshold"},
    ],
    ids=["rank", "tokens per language", "sample", "threshold"],
)
def test_the_stage_decides_as_a_selection_of_all_rows_at_once_does_and_again_the_same(lake, select):
    plan = planned(lake, recipe(select))
    report = run_select(lake, plan)
    chosen = stored_selection(lake, plan)
    whole = ScoreShards(lake, plan, chosen.config, plan.files)
    assert [rows.values.shape for rows in whole()] == [(200,)] * 3, "a shard is one input file"
    strata = None if whole.config.by == () else [s for rows in whole() for s in rows.strata]
    weights = None if whole.config.weight == "rows" else np.concatenate([rows.weights for rows in whole()])
    ids = [str(i) for rows in whole() for i in rows.doc_ids.to_pylist()]
    together = Rows(np.concatenate([rows.values for rows in whole()]), ids, strata, weights)
    expected = resolve(SelectionConfig.load(select), lambda: [together], "k")
    assert chosen.manifest.to_json() == expected.to_json()
    assert report.documents_in == N_ROWS
    assert report.documents_kept == int(expected.keep(together.values, ids, strata).sum())
    assert sum(report.removed.values()) == N_ROWS - report.documents_kept
    again = run_select(lake, plan)
    assert stored_selection(lake, plan).manifest == chosen.manifest
    assert {**again.to_json(), "seconds": 0} == {**report.to_json(), "seconds": 0}
    row = lake.table("ops.cutoffs").scan({"recipe": "tiny", "crawl": plan.crawl}).to_pylist()
    assert [(r["n_kept"], r["weight"], r["drift_psi"]) for r in row] == [
        (report.documents_kept, select.get("weight", "rows"), None)
    ]


@pytest.mark.parametrize("mode", ["rank", "sample"])
def test_counts_of_mapped_tasks_any_cut_of_the_crawl_and_retries_give_the_same_selection(lake, mode):
    select = {"column": "mean_nll", "fraction": "3/10", "which": "top", "mode": mode, "weight": "n_tokens"}
    manifests = set()
    for max_shards in (1, 2, 3):
        plan = planned(lake, recipe(select), max_shards=max_shards)
        for shard in plan.shards[1:]:  # the first one's task was lost: select counts it itself
            counted = count_shard(lake, plan, shard.name)
            assert (counted.documents_in, counted.skipped) == (200 * len(shard.files), False)
            assert count_shard(lake, plan, shard.name).skipped, "a retry finds the counts"
        run_select(lake, plan)
        assert count_shard(lake, plan, plan.shards[0].name).skipped
        manifests.add(stored_selection(lake, plan).manifest.to_json())
    assert len(manifests) == 1


def test_counts_of_scores_that_were_computed_anew_are_not_used(lake):
    select = {"column": "mean_nll", "fraction": "1/2", "which": "bottom"}
    first = planned(lake, recipe(select))
    count_shard(lake, first, "00000")
    again = first.model_copy(update={"epoch": take_epoch(lake, "tiny", first.crawl, "again"), "run_id": "again"})
    other = again.model_copy(update={"keys": {**again.keys, "score": "another"}})
    commit_rows(lake, "tiny.scores", {"crawl": first.crawl}, scores(shift=5.0), other.token("score"))
    commit_rows(lake, "tiny.scores", {"crawl": first.crawl}, scores(shift=1.0), again.token("score"))
    run_select(lake, again)
    cut = stored_selection(lake, again).manifest.strata["*"].hi
    assert 1.5 < float_of_key(cut.key) < 3.0, "half of 1 + lognormal lies below 2"


def test_the_share_holds_in_every_domain(lake):
    plan = planned(lake, recipe({"column": "mean_nll", "fraction": "1/4", "which": "bottom", "by": ["domain"]}))
    hosts = ["www.a.example.co.uk", "b.example.co.uk", "c.org"]
    rows = [
        {"crawl": plan.crawl, "doc_id": r["doc_id"], "url": f"http://{hosts[i % 4 % 3]}/{i}",
         "warc_file": r["warc_file"], "n_chars_raw": 1, "n_chars": 1, "n_pii": 0, "kept": True}
        for i, r in enumerate(reversed(scores().to_pylist()))
    ]  # fmt: skip
    commit_rows(
        lake, "tiny.documents", {"crawl": plan.crawl}, rows_to_table(rows, DOCUMENTS.schema), plan.token("clean")
    )
    run_select(lake, plan)
    manifest = stored_selection(lake, plan).manifest
    assert set(manifest.strata) == {"example.co.uk", "c.org"}
    assert all(abs(cuts.n_kept - cuts.n_scored / 4) <= 0.5 for cuts in manifest.strata.values())
    table = pa.concat_tables(t for _, t in score_groups(lake, plan, plan.files, [*SCORES.schema.names, "domain"]))
    kept = stored_selection(lake, plan).keep(table.select(["doc_id"]), table)
    assert kept.num_rows == manifest.n_kept


def test_an_earlier_crawls_cutoffs_are_pinned_in_the_plan_and_drift_is_told(lake, caplog):
    old = planned(lake, recipe({"column": "mean_nll", "fraction": "1/2", "which": "bottom"}))
    run_select(lake, old)
    frozen = {"column": "mean_nll", "mode": "cutoffs", "cutoffs": "crawl:C-2024-10"}
    crawl = "C-2024-33"
    new = planned(lake, recipe(frozen), crawl, scores(crawl, shift=1.0))
    assert new.recipe["select"]["cutoffs"]["profile"]["counts"], "the plan holds the cut-offs themselves"
    report = run_select(lake, new)
    assert report.metrics["drift_kept_share"] < 0.2
    summary = selection_summary(lake, new)
    assert summary["drift"]["psi"] > 0.25
    assert summary["drift"]["frozen_share"] == 0.5
    assert 0.3 < summary["drift"]["ks"] <= 1
    assert len(summary["warnings"]) == 2
    assert "the scores drifted since it was frozen" in summary["warnings"][0]
    assert "resolve new cut-offs" in summary["warnings"][1]
    (first, *rest) = selection_sentences({"selection": summary})
    assert first.startswith(f"frozen cut-offs keep {report.metrics['drift_kept_share']:.1%} (frozen at 50.0%); drift")
    assert len(rest) == 2
    (row,) = lake.table("ops.cutoffs").scan({"recipe": "tiny", "crawl": crawl}).to_pylist()
    assert row["drift_psi"] == summary["drift"]["psi"]
    assert row["warnings"] == summary["warnings"]
    # a run of the frozen crawl itself, or of the new one by the row that it left, has the same plan
    again = pin_cutoffs(lake, recipe({**frozen, "cutoffs": f"crawl:{crawl}"}))
    assert again.select.cutoffs == new.recipe["select"]["cutoffs"]


def test_a_crawl_without_cutoffs_is_named_with_those_that_have_some(lake):
    run_select(lake, planned(lake, recipe({"column": "mean_nll"})))
    absent = recipe({"column": "mean_nll", "mode": "cutoffs", "cutoffs": "crawl:C-2023-01"})
    with pytest.raises(ConfigError, match=r"no selection of recipe 'tiny' for that crawl; it has \['C-2024-10'\]"):
        pin_cutoffs(lake, absent)
    text = stored_cutoffs(lake, "tiny", "C-2024-10").to_json()
    inline = pin_cutoffs(lake, recipe({"column": "mean_nll", "mode": "cutoffs", "cutoffs": text}))
    assert Manifest.from_json(inline.select.cutoffs).to_json() == text


def test_documents_that_a_new_base_removes_do_not_count(lake):
    plan = planned(lake, recipe({"column": "mean_nll", "fraction": "1/2", "which": "bottom"}))
    gone = scores()["doc_id"].slice(0, 300)
    assert decide_selection(lake, plan, gone).manifest.n_scored == 294
    assert decide_selection(lake, plan).manifest.n_scored == 588


def test_scores_of_two_models_and_columns_that_are_not_there_are_refused(lake):
    made = recipe({"column": "mean_nll"})
    with pytest.raises(PermanentDataError, match=r"2 different keys \(\['k', 'other'\]\)"):
        run_select(lake, planned(lake, made, table=scores(score_key="other")))
    for wrong, message in (
        ({"column": "quality"}, "column='quality' is not a score of this table"),
        ({"column": "mean_nll", "by": ["planet"]}, r"\['planet'\] are not columns of the scores"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_select(lake, planned(lake, recipe(wrong)))


def test_no_scores_at_all_select_nothing(lake):
    plan = planned(lake, recipe({"column": "mean_nll"}), table=SCORES.schema.empty_table())
    report = run_select(lake, plan)
    assert (report.documents_in, report.documents_kept, report.removed) == (0, 0, {})


def test_a_token_budget_is_held_against_the_published_corpus(lake, capsys):
    made = recipe({"column": "mean_nll"}, token_budget=10_000)
    plan = planned(lake, made)
    assert made.method_fingerprint() == recipe({"column": "mean_nll"}).method_fingerprint(), "it decides no content"
    assert epoch_summary(lake, plan)["epochs"] is None
    assert "no token counts" in selection_sentences({"epochs": epoch_summary(lake, plan)})[0]
    assert cli.main(["plan-epochs", "--budget", "10k", "--recipe", "tiny"]) == 2
    assert "give --kept-tokens" in capsys.readouterr().err
    rows = [
        {"crawl": plan.crawl, "doc_id": f"d{i}", "url": "u", "text": "t", "n_chars": 1, "n_tokens": 500,
         "dedup_digest": "x", "warc_file": FILES[0], "warc_offset": 0, "warc_length": 1, "recipe_fingerprint": "f"}
        for i in range(4)
    ]  # fmt: skip
    commit_rows(lake, "tiny.corpus", {"crawl": plan.crawl}, rows_to_table(rows, CORPUS.schema), plan.token("corpus"))
    summary = epoch_summary(open_lakehouse(), plan)
    assert (summary["kept_tokens"], summary["epochs"]) == (2000, 5.0)
    assert "keep at least 2,500 tokens" in summary["warning"]
    assert "5.00 times" in selection_sentences({"epochs": summary})[0]
    assert cli.main(["plan-epochs", "--budget", "10k", "--recipe", "tiny"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == summary
    assert "warning: " in told.err
