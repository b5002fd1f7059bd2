"""Whole runs that score packed sequences: what is published, and what decides it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from corpusmill.errors import ConfigError, ValidationFailedError
from corpusmill.modeling.load import load_tokenizer
from corpusmill.recipe import BUNDLED_CRAWLS, parse_recipe
from corpusmill.runner import chain
from corpusmill.runner import publish as publish_module
from corpusmill.runner.explain import explain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh
from corpusmill.runner.show import print_report

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OLD, NEW = "T-2024-10", "T-2024-33"
TABLES = ("sequences", "scores", "corpus_sequences", "corpus")
LENGTH = 64


@pytest.fixture
def sequenced() -> dict[str, Any]:
    """Recipe parts that make sequences the unit of scoring and selection."""
    return {
        "score": {"unit": "sequence", "model": "bundled:reference_lm", "context": LENGTH},
        "select": {"column": "perplexity", "which": "middle", "fraction": "1/2"},
    }


def quiet(line: str) -> None:
    assert line


def rows_of(recipe: str, table: str, crawl: str | None = None) -> pa.Table:
    rows = open_lakehouse().table(f"{recipe}.{table}").scan({"crawl": crawl} if crawl else None)
    names = {"sequences": "sequence_id", "corpus_sequences": "sequence_id"}
    rows = rows.sort_by([("crawl", "ascending"), (names.get(table, "doc_id"), "ascending")])
    return rows.drop_columns([c for c in ("recipe_fingerprint",) if c in rows.column_names])


def snapshots(recipe: str) -> dict[str, int | None]:
    lake = open_lakehouse()
    return {name: lake.table(f"{recipe}.{name}").snapshot_id() for name in (*TABLES, "documents", "duplicates")}


def owners(sequences: pa.Table) -> set[str]:
    return {span["doc_id"] for spans in sequences["spans"].to_pylist() for span in spans}


def same_tables(one: str, two: str) -> None:
    for table in TABLES:
        first, second = rows_of(one, table), rows_of(two, table)
        assert first.num_rows > 0
        if table == "scores":  # batches differ with the shards, and with them the last bits of a sum
            first, second = (t.drop_columns(["nll_sum", "el2n_sum"]) for t in (first, second))
        assert second.equals(first), table


def test_a_crawl_is_published_in_sequences_and_a_second_run_changes_no_table(home):
    crawl = "MILL-DEMO-2024-10"
    made = parse_recipe(
        {
            "name": "paper",
            "source": {"base": BUNDLED_CRAWLS},
            "shards": {"max_shards": 2},
            "ingest": {"max_error_fraction": 0.2, "max_files": 2},
            "rules": {"preset": "fineweb", "languages": ["en"]},
            "score": {
                "unit": "sequence", "model": "bundled:reference_lm", "context": 256,
                "metrics": ["perplexity", "el2n", "memorization"],
            },
            "select": {"column": "perplexity", "which": "middle", "fraction": "1/2"},
        }
    )  # fmt: skip
    report = refresh(made, crawl, None, quiet)
    packed, scores, kept, corpus = (rows_of("paper", table) for table in TABLES)
    assert scores["doc_id"].equals(packed["sequence_id"])
    assert set(scores["unit"].to_pylist()) == {"sequence"}
    assert scores["n_tokens"].to_pylist() == [256] * packed.num_rows
    assert scores["memorization"].null_count == 0
    assert kept.num_rows == (packed.num_rows + 1) // 2 == report["published_sequences"] > 50
    assert report["published"] == corpus.num_rows > 0
    assert owners(kept) == set(corpus["doc_id"].to_pylist())
    assert pc.sum(corpus["n_tokens"]).as_py() == kept.num_rows * 256
    mean_nll = sorted(kept["mean_nll"].to_pylist())
    all_means = sorted((pc.divide(scores["nll_sum"], pc.cast(scores["n_scored"], pa.float64()))).to_pylist())
    assert all_means[packed.num_rows // 4 - 1] <= mean_nll[0]
    assert mean_nll[-1] <= all_means[-(packed.num_rows // 4) + 1]
    _the_tokens_are_the_documents(corpus, kept)
    _the_report_counts_them(report, packed.num_rows, kept.num_rows)
    lake = open_lakehouse()
    for table in ("corpus", "corpus_sequences"):
        assert f"paper/{crawl}/1" in lake.table(f"paper.{table}").refs()
        assert not [ref for ref in lake.table(f"paper.{table}").refs() if ref.startswith("audit")]
    before = snapshots("paper")
    again = refresh(made, crawl, None, quiet)
    assert (again["published"], again["published_sequences"]) == (report["published"], report["published_sequences"])
    assert snapshots("paper") == before
    doc_id = corpus["doc_id"][0].as_py()
    found = explain(lake, "paper", doc_id, None)
    assert found["corpus_sequences"]
    spans = [span for row in found["sequences"] for span in row["spans"]]
    assert {span["doc_id"] for span in spans} == {doc_id}
    assert sum(s["end"] - s["start"] for s in spans) <= spans[0]["document_tokens"]
    assert {row["doc_id"] for row in found["scores"]} == {row["sequence_id"] for row in found["sequences"]}


def _the_tokens_are_the_documents(corpus: pa.Table, kept: pa.Table) -> None:
    from corpusmill.modeling.load import model_folder

    tokenizer = load_tokenizer(str(model_folder("bundled:reference_lm")))
    texts = dict(zip(corpus["doc_id"].to_pylist(), corpus["text"].to_pylist(), strict=True))
    for row in kept.to_pylist()[::20]:
        assert row["tokenizer_sha256"] == tokenizer.sha256
        for span in row["spans"]:
            whole = [*tokenizer.encode_batch([texts[span["doc_id"]]])[0], tokenizer.eod_id]
            assert len(whole) == span["document_tokens"]
            first, n = span["first_token"], span["end"] - span["start"]
            assert row["tokens"][span["start"] : span["end"]] == whole[first : first + n]


def _the_report_counts_them(report: dict[str, Any], n_packed: int, n_kept: int) -> None:
    steps = {step["stage"]: step for step in report["funnel"]}
    packing = steps["pack"]
    assert packing["metrics"]["sequences"] == n_packed
    assert packing["metrics"]["sequence_tokens"] == n_packed * 256
    assert 0 < packing["metrics"]["remainder_tokens"] < 2 * 256
    assert packing["documents_in"] == steps["deduplicate"]["documents_kept"]
    assert steps["score"]["unit"] == steps["select"]["unit"] == "sequence"
    assert steps["select"]["documents_kept"] == steps["assemble_sequences"]["documents_kept"] == n_kept
    lines: list[str] = []
    print_report(report, lines.append)
    page = "\n".join(lines)
    assert f"{n_packed:,} sequences of {n_packed * 256:,} tokens" in page
    assert "fill none and are dropped" in page
    assert f"published in sequences: {n_kept:,} sequences of {n_kept * 256:,} tokens" in page


def test_neither_the_shard_count_nor_a_kill_between_commits_changes_a_row(home, recipe, sequenced, tmp_path):
    refresh(recipe("expected", **sequenced), OLD, None, quiet)
    killed = recipe("killed", **sequenced, shards={"max_shards": 1})
    recipe_file = tmp_path / "killed.yaml"
    recipe_file.write_text(yaml.safe_dump(killed.model_dump(mode="json")))
    command = [sys.executable, "-m", "corpusmill.cli", "refresh", str(recipe_file), OLD]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("pack:"):  # sequences are committed, scores are not
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert rows_of("killed", "sequences").num_rows > 0
    assert rows_of("killed", "scores").num_rows == 0
    refresh(killed, OLD, None, quiet)
    same_tables("expected", "killed")


def test_an_older_crawl_takes_whole_sequences_back_and_a_run_of_the_newer_one_repacks(home, recipe, sequenced):
    forward, backward = recipe("forward", **sequenced), recipe("backward", **sequenced)
    for crawl in (OLD, NEW):
        refresh(forward, crawl, None, quiet)
    refresh(backward, NEW, None, quiet)
    report = refresh(backward, OLD, None, quiet)
    older, newer = (rows_of("backward", "corpus", crawl) for crawl in (OLD, NEW))
    assert report["retracted"][NEW] > 0
    assert newer.num_rows > 0
    assert not set(older["dedup_digest"].to_pylist()) & set(newer["dedup_digest"].to_pylist())
    taken = rows_of("backward", "duplicates", NEW)["doc_id"].to_pylist()
    assert taken == [], "the stage tables are those of the newer crawl's own run"
    left = rows_of("backward", "corpus_sequences", NEW)
    assert owners(left) == set(newer["doc_id"].to_pylist())
    refresh(backward, NEW, None, quiet)
    same_tables("forward", "backward")
    before = snapshots("backward")
    refresh(backward, NEW, None, quiet)
    assert snapshots("backward") == before


def test_sequences_are_retracted_without_the_tables_that_they_were_made_of(home, recipe, sequenced):
    refresh(recipe(**sequenced), NEW, None, quiet)
    impossible = {"name": "my.no", "kind": "metric_between", "subject": "n_documents", "maximum": 0, "why": "a test"}
    other = recipe(**sequenced, rules={"preset": "c4", "languages": ["en"]}, validation={"extra_checks": [impossible]})
    with pytest.raises(ValidationFailedError):
        refresh(other, NEW, None, quiet)  # its stage tables replace those behind the published sequences
    before = rows_of("tiny", "corpus_sequences", NEW)
    report = refresh(recipe(**sequenced), OLD, None, quiet)
    assert report["retracted"][NEW] > 0
    left, newer, older = (rows_of("tiny", *place) for place in
                          (("corpus_sequences", NEW), ("corpus", NEW), ("corpus", OLD)))  # fmt: skip
    assert 0 < left.num_rows < before.num_rows
    assert set(left["sequence_id"].to_pylist()) < set(before["sequence_id"].to_pylist())
    assert owners(left) == set(newer["doc_id"].to_pylist())
    assert not set(older["dedup_digest"].to_pylist()) & set(newer["dedup_digest"].to_pylist())


def run_stages(uri: str, shards: list[str]) -> None:
    """Runs a plan up to the audit."""

    def mapped(stage: str) -> None:
        for shard in shards:
            chain.run_shard(uri, stage, shard)
        chain.commit(uri, stage)

    mapped("ingest")
    mapped("clean")
    chain.deduplicate(uri)
    mapped("pack")
    mapped("score")
    chain.select(uri)
    mapped("assemble")
    chain.validate(uri)


@pytest.fixture
def dies_before_sequences(monkeypatch) -> Callable[[str], None]:
    """Publishes a plan in a process that dies after the corpus and before the sequences."""

    def publish(uri: str) -> None:
        def die(*_: object) -> int:
            raise OSError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(publish_module, "publish_sequences", die)
            with pytest.raises(OSError, match="no space"):
                chain.publish(uri)

    return publish


def test_sequences_follow_the_corpus_after_a_death_in_between(home, recipe, sequenced, dies_before_sequences):
    made = recipe(**sequenced).model_dump(mode="json")
    chain.initialise(["tiny"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in (OLD, NEW)}
    for planned in plans.values():
        run_stages(planned["plan"], planned["shards"])
    dies_before_sequences(plans[OLD]["plan"])
    assert rows_of("tiny", "corpus", OLD).num_rows > 0
    assert rows_of("tiny", "corpus_sequences").num_rows == 0
    assert not chain.plan(made, OLD, "asks whether there is work left")["already_published"]
    # the newer crawl is published meanwhile, on what the corpus holds
    assert chain.publish(plans[NEW]["plan"])["rebases"] == 1
    again = chain.plan(made, OLD, "again")
    run_stages(again["plan"], again["shards"])
    outcome = chain.publish(again["plan"])
    for crawl in (OLD, NEW):
        documents, sequences = rows_of("tiny", "corpus", crawl), rows_of("tiny", "corpus_sequences", crawl)
        assert owners(sequences) == set(documents["doc_id"].to_pylist())
    digests = rows_of("tiny", "corpus")["dedup_digest"].to_pylist()
    assert len(digests) == len(set(digests))
    assert outcome["sequences"] == rows_of("tiny", "corpus_sequences", OLD).num_rows > 0
    assert chain.plan(made, OLD, "later")["already_published"]


def test_a_retry_of_publishing_puts_the_sequences_on_a_head_that_moved(home, recipe, sequenced, dies_before_sequences):
    made = recipe(**sequenced, deduplication={"across_crawls": False}).model_dump(mode="json")
    chain.initialise(["tiny"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in (OLD, NEW)}
    for planned in plans.values():
        run_stages(planned["plan"], planned["shards"])
    dies_before_sequences(plans[OLD]["plan"])
    chain.publish(plans[NEW]["plan"])
    newer = rows_of("tiny", "corpus_sequences", NEW)
    outcome = chain.publish(plans[OLD]["plan"])
    assert outcome["sequences"] == rows_of("tiny", "corpus_sequences", OLD).num_rows > 0
    assert rows_of("tiny", "corpus_sequences", NEW).equals(newer)


def test_a_failed_audit_publishes_neither_table(home, recipe, sequenced):
    too_many = {
        "name": "my.sequences", "kind": "metric_between", "subject": "n_sequences", "minimum": 10**9, "why": "a test",
    }  # fmt: skip
    strict = recipe(**sequenced, validation={"extra_checks": [too_many]})
    with pytest.raises(ValidationFailedError, match="n_sequences"):
        refresh(strict, OLD, None, quiet)
    for table in ("corpus", "corpus_sequences"):
        assert rows_of("tiny", table).num_rows == 0
        branch = open_lakehouse().table(f"tiny.{table}").scan(None, ref=f"audit_{OLD}_1")
        assert branch.num_rows > 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"score": {"unit": "sequence"}}, "set context"),
        (
            {"score": {"unit": "sequence", "context": 64}, "select": {"by": ["language"]}},
            "'language'.*several languages",
        ),
    ],
)
def test_what_sequences_cannot_do_is_refused_when_the_recipe_is_read(parts, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe({"name": "x", **parts})
