"""Whole runs of the chain on small real WARC files: idempotence, order of backfills, faults, publication."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from corpusmill.errors import SupersededError, ValidationFailedError
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.shards import ShardWriter
from corpusmill.runner import audit as audit_module
from corpusmill.runner import chain
from corpusmill.runner import publish as publish_module
from corpusmill.runner.audit import stored_branch
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import load_plan
from corpusmill.runner.refresh import refresh

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def quiet(line: str) -> None:
    assert line


def snapshots(recipe: str) -> dict[str, int | None]:
    lake = open_lakehouse()
    names = [f"{recipe}.{t}" for t in ("documents", "duplicates", "scores", "corpus")] + ["raw.pages", "ops.quarantine"]
    return {name: lake.table(name).snapshot_id() for name in names}


def test_a_second_run_of_the_same_crawl_changes_no_table(home, recipe, corpus_of):
    made = recipe()
    first = refresh(made, "T-2024-10", None, quiet)
    before, rows = snapshots("tiny"), corpus_of("tiny")
    assert first["published"] == 20
    second = refresh(made, "T-2024-10", None, quiet)
    assert second["published"] == 20
    assert snapshots("tiny") == before
    assert corpus_of("tiny").equals(rows)


def test_the_shard_count_changes_no_row(home, recipe, corpus_of):
    refresh(recipe("one", shards={"max_shards": 1}), "T-2024-10", None, quiet)
    refresh(recipe("two", shards={"max_shards": 2}), "T-2024-10", None, quiet)
    one, two = (corpus_of(n).drop_columns(["recipe_fingerprint"]) for n in ("one", "two"))
    assert one.num_rows == 20
    assert one.equals(two)


@pytest.mark.parametrize("selecting", [False, True], ids=["without selection", "with fresh quantiles"])
def test_any_order_of_backfills_ends_in_the_same_corpus(home, recipe, corpus_of, scored, selecting):
    parts = scored if selecting else {}
    forward, backward = recipe("forward", **parts), recipe("backward", **parts)
    for crawl in ("T-2024-10", "T-2024-33"):
        refresh(forward, crawl, None, quiet)
    newer_alone = refresh(backward, "T-2024-33", None, quiet)["published"]
    report = refresh(backward, "T-2024-10", None, quiet)
    expected, found = (corpus_of(n).drop_columns(["recipe_fingerprint"]) for n in ("forward", "backward"))
    rounded = ["mean_nll", "perplexity", "bits_per_byte", "el2n"]  # other documents in a batch move the last digits
    assert found.drop_columns(rounded).equals(expected.drop_columns(rounded))
    if selecting:
        for name in rounded:
            np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=1e-6)
    else:
        assert newer_alone == 20
        assert report["retracted"] == {"T-2024-33": 6}
        assert found.num_rows == 34
    # the newer crawl's content key is what a run of it would now compute: running it again does nothing
    before = snapshots("backward")
    refresh(backward, "T-2024-33", None, quiet)
    assert snapshots("backward") == before


def test_configs_one_two_one_run_three_times(home, recipe):
    one = recipe(rules={"preset": "fineweb", "languages": ["en"]})
    two = recipe(rules={"preset": "fineweb", "languages": ["en"], "pii": True, "min_language_score": 0.7})
    seen = []
    for made in (one, two, one):
        refresh(made, "T-2024-10", None, quiet)
        lake = open_lakehouse()
        seen.append(
            (lake.table("tiny.corpus").snapshot_id(), lake.table("tiny.corpus").partition_key({"crawl": "T-2024-10"}))
        )
    assert len({snapshot for snapshot, _ in seen}) == 3
    assert seen[0][1] == seen[2][1] != seen[1][1]


def test_two_recipes_stand_side_by_side(home, recipe, corpus_of):
    refresh(recipe("first"), "T-2024-10", None, quiet)
    rows, before = corpus_of("first"), snapshots("first")
    refresh(recipe("second", rules={"preset": "c4", "languages": ["en"]}), "T-2024-10", None, quiet)
    assert corpus_of("first").equals(rows)
    after = snapshots("first")
    assert {k: v for k, v in after.items() if k.startswith("first")} == {
        k: v for k, v in before.items() if k.startswith("first")
    }
    assert after["raw.pages"] == before["raw.pages"]  # the second recipe found the pages


def test_a_failed_check_publishes_nothing_and_keeps_the_branch(home, recipe, corpus_of):
    refresh(recipe(), "T-2024-10", None, quiet)
    rows = corpus_of("tiny")
    impossible = {
        "name": "my.at_least_a_million",
        "kind": "metric_between",
        "subject": "n_documents",
        "minimum": 1000000,
        "why": "the test wants it",
    }
    strict = recipe(validation={"extra_checks": [impossible]})
    with pytest.raises(ValidationFailedError, match=r"n_documents.*observed 14.*at least 1000000") as caught:
        refresh(strict, "T-2024-33", None, quiet)
    assert "audit_T-2024-33_1" in str(caught.value)
    assert corpus_of("tiny").equals(rows)
    branch = open_lakehouse().table("tiny.corpus").scan({"crawl": "T-2024-33"}, ref="audit_T-2024-33_1")
    assert branch.num_rows == 14
    runs = open_lakehouse().table("ops.runs").scan(None).to_pylist()
    failed = next(r for r in runs if r["crawl"] == "T-2024-33")
    assert failed["state"] == "failed"
    assert "at least 1000000" in failed["message"]
    assert Path(caught.value.data_docs or "").is_file()
    # with the check gone the same crawl goes through
    assert refresh(recipe(), "T-2024-33", None, quiet)["published"] == 14


def test_a_corrupt_member_costs_its_page_and_becomes_a_quarantine_row(home, crawls, recipe):
    path = next(crawls.rglob("T-2024-10-00000.warc.gz"))
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\x1f\x8b\x08"]
    middle = (starts[4] + starts[5]) // 2
    data[middle : middle + 40] = b"\x00" * 40
    path.write_bytes(bytes(data))
    lenient = recipe(ingest={"max_error_fraction": 0.2})
    lines: list[str] = []
    report = refresh(lenient, "T-2024-10", None, lines.append)
    assert report["published"] == 19
    assert any(line.startswith("quarantined") and "T-2024-10-00000" in line for line in lines)
    rows = open_lakehouse().table("ops.quarantine").scan(None).to_pylist()
    assert len(rows) == 1
    assert rows[0]["warc_file"].endswith("T-2024-10-00000.warc.gz")
    assert rows[0]["n_bytes_lost"] > 0
    assert rows[0]["reason"].startswith("ingest.")


def test_too_many_faults_fail_the_shard_with_the_worst_examples(home, crawls, recipe):
    path = next(crawls.rglob("T-2024-10-00000.warc.gz"))
    path.write_bytes(b"<html><body>Service unavailable</body></html>")
    from corpusmill.errors import PermanentDataError

    with pytest.raises(PermanentDataError, match=r"T-2024-10-00000"):
        refresh(recipe(), "T-2024-10", None, quiet)
    assert open_lakehouse().table("tiny.corpus").partitions() == []


def test_an_older_run_cannot_commit_after_a_newer_one_has_started(home, recipe):
    made = recipe().model_dump(mode="json")
    chain.initialise(["tiny"])
    old = chain.plan(made, "T-2024-10", "old")
    for shard in old["shards"]:
        chain.run_shard(old["plan"], "ingest", shard)
    new = chain.plan(made, "T-2024-10", "new")
    with pytest.raises(SupersededError, match="'new'"):
        chain.commit(old["plan"], "ingest")
    for shard in new["shards"]:
        assert chain.run_shard(new["plan"], "ingest", shard)["skipped"]  # the old run's shards are as good
    assert chain.commit(new["plan"], "ingest")["documents_kept"] == 20


def run_until(uri: str, shards: list[str], *, last: str) -> None:
    """Runs the stages of a rules-only recipe up to and with ``last``."""
    steps = [
        ("ingest", lambda: [chain.run_shard(uri, "ingest", s) for s in shards]),
        ("commit ingest", lambda: chain.commit(uri, "ingest")),
        ("clean", lambda: [chain.run_shard(uri, "clean", s) for s in shards]),
        ("commit clean", lambda: chain.commit(uri, "clean")),
        ("deduplicate", lambda: chain.deduplicate(uri)),
        ("select", lambda: chain.select(uri)),
        ("assemble", lambda: [chain.run_shard(uri, "assemble", s) for s in shards]),
        ("commit assemble", lambda: chain.commit(uri, "assemble")),
        ("validate", lambda: chain.validate(uri)),
    ]
    for name, step in steps:
        step()
        if name == last:
            return


def test_two_crawls_published_at_the_same_time_both_survive_without_a_duplicate(home, recipe, corpus_of):
    made = recipe().model_dump(mode="json")
    chain.initialise(["tiny"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in ("T-2024-10", "T-2024-33")}
    for planned in plans.values():
        run_until(planned["plan"], planned["shards"], last="validate")
    older = chain.publish(plans["T-2024-10"]["plan"])
    newer = chain.publish(plans["T-2024-33"]["plan"])
    assert (older["published"], older["rebases"]) == (20, 0)
    assert (newer["published"], newer["rebases"]) == (14, 1)
    digests = corpus_of("tiny")["dedup_digest"].to_pylist()
    assert len(digests) == len(set(digests)) == 34


def test_the_older_of_two_overlapping_crawls_may_publish_last(home, recipe, corpus_of):
    made = recipe().model_dump(mode="json")
    chain.initialise(["tiny"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in ("T-2024-10", "T-2024-33")}
    for planned in plans.values():
        run_until(planned["plan"], planned["shards"], last="validate")
    assert chain.publish(plans["T-2024-33"]["plan"])["published"] == 20
    older = chain.publish(plans["T-2024-10"]["plan"])
    assert (older["published"], older["retracted"]) == (20, {"T-2024-33": 6})
    assert corpus_of("tiny").num_rows == 34


def test_a_newer_crawl_that_gives_documents_up_is_audited_on_the_same_branch(home, recipe):
    made = recipe().model_dump(mode="json")
    refresh(recipe(), "T-2024-33", None, quiet)
    planned = chain.plan(made, "T-2024-10", "older")
    run_until(planned["plan"], planned["shards"], last="commit assemble")
    lake = open_lakehouse()
    branch = stored_branch(lake, load_plan(lake, planned["plan"]))
    assert branch.rows == {"T-2024-10": 20, "T-2024-33": 14}
    rows = lake.table("tiny.corpus").scan({"crawl": "T-2024-33"}, ref=branch.name)
    token = replace(branch.tokens["T-2024-33"], key="doubled")
    with ShardWriter(lake.table("tiny.corpus"), {"crawl": "T-2024-33"}, token, "doubled") as writer:
        writer.write(rows)
        writer.write(rows)
        manifest = writer.finish({})
    commit_partition(lake, "tiny.corpus", {"crawl": "T-2024-33"}, [manifest], token, branch=branch.name)
    with pytest.raises(ValidationFailedError, match=r"T-2024-33, assembled again.*n_duplicate_doc_ids.*observed 14"):
        chain.validate(planned["plan"])
    with pytest.raises(ValidationFailedError, match="failed its audit"):
        chain.publish(planned["plan"])
    assert lake.table("tiny.corpus").count({"crawl": "T-2024-33"}) == 20


def test_another_shard_count_after_a_failed_run_neither_loses_nor_doubles_rows(home, recipe):
    one, four = (recipe(shards={"max_shards": n}).model_dump(mode="json") for n in (2, 1))
    chain.initialise(["tiny"])
    first = chain.plan(one, "T-2024-10", "dies after ingest")
    for shard in first["shards"]:
        chain.run_shard(first["plan"], "ingest", shard)
    second = chain.plan(four, "T-2024-10", "other shards")
    run_until(second["plan"], second["shards"], last="validate")
    assert chain.publish(second["plan"])["published"] == 20


def test_a_crawl_published_while_the_branch_is_built_leaves_no_duplicate(home, recipe, corpus_of, monkeypatch):
    made = recipe().model_dump(mode="json")
    chain.initialise(["tiny"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in ("T-2024-10", "T-2024-33")}
    run_until(plans["T-2024-10"]["plan"], plans["T-2024-10"]["shards"], last="validate")
    run_until(plans["T-2024-33"]["plan"], plans["T-2024-33"]["shards"], last="assemble")
    create = audit_module.create_audit_branch

    def create_and_be_overtaken(*arguments):
        monkeypatch.setattr(audit_module, "create_audit_branch", create)
        name = create(*arguments)
        chain.publish(plans["T-2024-10"]["plan"])
        return name

    monkeypatch.setattr(audit_module, "create_audit_branch", create_and_be_overtaken)
    chain.commit(plans["T-2024-33"]["plan"], "assemble")
    chain.validate(plans["T-2024-33"]["plan"])
    assert chain.publish(plans["T-2024-33"]["plan"])["published"] == 14
    digests = corpus_of("tiny")["dedup_digest"].to_pylist()
    assert len(digests) == len(set(digests)) == 34


def test_a_rebased_branch_is_audited_even_if_the_first_attempt_died(home, recipe, monkeypatch):
    made = recipe().model_dump(mode="json")
    chain.initialise(["tiny"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in ("T-2024-10", "T-2024-33")}
    for planned in plans.values():
        run_until(planned["plan"], planned["shards"], last="validate")
    chain.publish(plans["T-2024-10"]["plan"])
    real, audits = publish_module.audit, []

    def dies_once(lake, plan):
        audits.append(plan.crawl)
        if len(audits) == 1:
            raise OSError("no space left on device")
        return real(lake, plan)

    monkeypatch.setattr(publish_module, "audit", dies_once)
    with pytest.raises(OSError, match="no space"):
        chain.publish(plans["T-2024-33"]["plan"])
    assert open_lakehouse().table("tiny.corpus").count({"crawl": "T-2024-33"}) == 0
    assert chain.publish(plans["T-2024-33"]["plan"])["published"] == 14
    assert len(audits) == 2


def test_an_unpublished_rerun_of_a_newer_crawl_does_not_block_an_older_one(home, recipe, corpus_of):
    refresh(recipe(), "T-2024-33", None, quiet)
    impossible = {"name": "my.no", "kind": "metric_between", "subject": "n_documents", "maximum": 0, "why": "a test"}
    other = recipe(rules={"preset": "c4", "languages": ["en"]}, validation={"extra_checks": [impossible]})
    with pytest.raises(ValidationFailedError):
        refresh(other, "T-2024-33", None, quiet)
    report = refresh(recipe(), "T-2024-10", None, quiet)
    assert (report["published"], report["retracted"]) == (20, {"T-2024-33": 6})
    assert corpus_of("tiny").num_rows == 34
    # the newer crawl's own settings again: its stage tables are brought back, and its corpus is whole
    assert refresh(recipe(), "T-2024-33", None, quiet)["published"] == 14
    before = snapshots("tiny")
    refresh(recipe(), "T-2024-33", None, quiet)
    assert snapshots("tiny") == before


def test_documents_that_are_given_back_wait_for_a_run_of_their_crawl(home, recipe, corpus_of, scored):
    parts = {"score": scored["score"]}
    for crawl in ("T-2024-10", "T-2024-33"):
        refresh(recipe(**parts), crawl, None, quiet)
    # the older crawl is published again with fewer documents: its first file only
    refresh(recipe(**parts, ingest={"max_files": 1}), "T-2024-10", None, quiet)
    rows = corpus_of("tiny").to_pylist()
    assert sum(r["crawl"] == "T-2024-10" for r in rows) == 10
    assert all(r["mean_nll"] is not None for r in rows), "a document was published that was never scored"
    assert sum(r["crawl"] == "T-2024-33" for r in rows) == 14
    assert refresh(recipe(**parts), "T-2024-33", None, quiet)["published"] == 20


def test_the_row_of_a_run_keeps_its_last_state(home, recipe):
    chain.initialise(["tiny"])
    planned = chain.plan(recipe().model_dump(mode="json"), "T-2024-10", "r")
    chain.report(planned["plan"], "failed", "a shard was lost")
    run_until(planned["plan"], planned["shards"], last="validate")
    chain.publish(planned["plan"])
    chain.report(planned["plan"], "success")
    newer = chain.plan(recipe().model_dump(mode="json"), "T-2024-10", "newer")
    assert newer["already_published"]
    chain.report(planned["plan"], "success", "told again by a superseded run")
    rows = open_lakehouse().table("ops.runs").scan(None).to_pylist()
    assert [(r["state"], r["message"], r["n_published"]) for r in rows] == [
        ("success", "told again by a superseded run", 20)
    ]


@pytest.mark.parametrize("moment", ["ingest", "clean", "assemble", "validate"])
def test_a_killed_refresh_run_again_gives_the_same_tables(home, crawls, recipe, corpus_of, tmp_path, moment):
    expected = recipe("expected")
    refresh(expected, "T-2024-10", None, quiet)
    recipe_file = tmp_path / "killed.yaml"
    recipe_file.write_text(yaml.safe_dump(recipe("killed").model_dump(mode="json")))
    command = [sys.executable, "-m", "corpusmill.cli", "refresh", str(recipe_file), "T-2024-10"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(moment):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(again.stdout.splitlines()[-1])["published"] == 20
    one, two = (corpus_of(n).drop_columns(["recipe_fingerprint"]) for n in ("expected", "killed"))
    assert two.equals(one)


def test_an_unknown_crawl_is_a_clear_error(home, recipe):
    from corpusmill.errors import ConfigError

    with pytest.raises(ConfigError, match=r"T-2099-01.*T-2024-10"):
        refresh(recipe(), "T-2099-01", None, quiet)


def test_an_uninitialised_lakehouse_says_what_to_do(home, recipe):
    with pytest.raises(Exception, match="corpusmill init"):
        chain.plan(recipe().model_dump(mode="json"), "T-2024-10", "r")
