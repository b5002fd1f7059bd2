"""Stages outside our chain: another team's DAG uses two operators on a table of its own."""

from pathlib import Path

import pyarrow as pa
import pytest

FOREIGN = Path(__file__).parent / "foreign"
CRAWL = "TEAM-B-1"
TEXTS = {
    "story": "The harbour was quiet in the morning, and the boats lay still on the water. " * 12,
    "german": "Der Hafen war am Morgen ruhig, und die Boote lagen still auf dem Wasser. " * 12,
}

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """A lakehouse with the other team's table: our stages' input columns and one that only that team knows."""
    from corpusmill.lakehouse.commit import commit_partition
    from corpusmill.lakehouse.epochs import take_epoch
    from corpusmill.lakehouse.shards import RunToken, ShardWriter
    from corpusmill.runner import chain
    from corpusmill.schema import TableSpec

    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    chain.initialise([])
    opened = chain.open_lakehouse()
    columns = ("crawl", "doc_id", "url", "warc_file", "language", "text", "editor")
    spec = TableSpec("pages", pa.schema([pa.field(name, pa.string(), nullable=False) for name in columns]))
    made = opened.create_table("team_b.pages", spec)
    rows = [(CRAWL, name, f"https://b.example/{name}", "b.jsonl", "en", text, "B") for name, text in TEXTS.items()]
    table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows])
    token = RunToken("team_b", CRAWL, "by-hand", take_epoch(opened, "team_b", CRAWL, "by-hand"), "v1", {})
    with ShardWriter(made, {"crawl": CRAWL}, token, "all") as writer:
        writer.write(table)
        manifest = writer.finish({})
    commit_partition(opened, "team_b.pages", {"crawl": CRAWL}, [manifest], token, expected_shards=["all"])
    return opened


def test_a_foreign_dag_of_25_lines_runs_two_stages_on_its_own_table(airflow_db, load_dags, lake):
    assert len((FOREIGN / "foreign_dag.py").read_text().splitlines()) <= 25
    dag = load_dags(FOREIGN)["team_b_pages"]
    run = dag.test(logical_date=None)
    assert run.state == "success"
    clean = {r["doc_id"]: r for r in lake.table("team_b.clean").scan({"crawl": CRAWL}).to_pylist()}
    assert clean["german"]["drop_reason"] == "language.not_wanted"
    assert clean["german"]["language"] == "de"
    assert clean["story"]["language"] == "en"
    scores = {r["doc_id"]: r for r in lake.table("team_b.scores").scan({"crawl": CRAWL}).to_pylist()}
    assert set(scores) == set(TEXTS)
    assert all(row["n_scored"] > 0 and row["nll_sum"] > 0 for row in scores.values())

    before = [lake.table(name).snapshot_id() for name in ("team_b.clean", "team_b.scores")]
    assert dag.test(logical_date=None).state == "success"
    assert [lake.table(name).snapshot_id() for name in ("team_b.clean", "team_b.scores")] == before
