"""The upkeep DAG on a real lakehouse: what it does, what it only says, what it leaves."""

import datetime as dt

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def upkeep(airflow_db, load_dags, home):
    """Returns a function that runs the DAG and returns the run and the reports by namespace."""

    def run(**conf):
        made = load_dags()["maintain_lakehouse"].test(logical_date=None, run_conf=conf)
        reports = {}
        for task in made.get_task_instances():
            value = task.xcom_pull(task_ids="maintain", map_indexes=task.map_index, run_id=made.run_id)
            reports[task.rendered_map_index] = value if task.state == "success" else str(task.state)
        return made, reports

    return run


@pytest.fixture
def cleaned(home):
    """Fills the demo's table of documents with a replaced partition of scattered files, all of it 40 days old."""
    import pyarrow as pa

    from corpusmill.lakehouse.commit import commit_partition
    from corpusmill.lakehouse.epochs import take_epoch
    from corpusmill.lakehouse.shards import RunToken, ShardWriter
    from corpusmill.runner.open_lakehouse import open_lakehouse

    lake = open_lakehouse()
    name, at = "demo.minhash", {"crawl": "A"}
    schema = lake.table(name).spec.schema
    assert schema.names, "the table has columns"
    for key in ("k1", "k2"):
        token = RunToken("demo", "A", "run", take_epoch(lake, "demo", "A", "run"), key)
        manifests = []
        for shard in ("0", "1"):
            values = {f.name: [value_of(f, shard)] for f in schema}
            with ShardWriter(lake.table(name), at, token, shard) as writer:
                writer.write(pa.table(values, schema=schema))
                manifests.append(writer.finish({}))
        commit_partition(lake, name, at, manifests, token, expected_shards=["0", "1"])
    return lake, name


def value_of(field, shard):
    import pyarrow as pa

    if field.name == "crawl":
        return "A"
    if pa.types.is_integer(field.type):
        return 1
    if pa.types.is_fixed_size_binary(field.type):
        return shard.encode() * field.type.byte_width
    if pa.types.is_large_list(field.type) or pa.types.is_list(field.type):
        return []
    return f"{field.name} {shard}"


def test_it_says_first_and_does_then_and_nobody_reads_other_rows(upkeep, cleaned, monkeypatch):
    lake, name = cleaned
    before = lake.table(name).scan({"crawl": "A"}).sort_by("doc_id").to_pylist()
    files = len(lake.table(name).data_files({"crawl": "A"}))
    run, said = upkeep(dry_run=True)
    assert run.state == "success"
    assert said["demo"]["dry_run"] is True
    assert said["demo"]["tables"]["minhash"]["partitions_compacted"] == 1
    assert len(lake.table(name).data_files({"crawl": "A"})) == files == 2

    run, done = upkeep()
    assert set(done) == {"raw", "ops", "demo", "pruning_paper"}
    assert done["pruning_paper"] == "skipped", "a recipe that never ran has no tables"
    assert done["demo"]["partitions_compacted"] == 1
    assert len(lake.table(name).data_files({"crawl": "A"})) == 1
    assert lake.table(name).scan({"crawl": "A"}).sort_by("doc_id").to_pylist() == before

    monkeypatch.setattr("corpusmill.runner.maintain.dt", LaterClock)
    monkeypatch.setattr("corpusmill.lakehouse.maintenance.dt", LaterClock)
    _, later = upkeep()
    assert later["demo"]["tables"]["minhash"]["snapshots_expired"] == 2
    assert later["demo"]["tables"]["minhash"]["manifests_deleted"] == 4
    _, last = upkeep()
    assert last["demo"]["tables"]["minhash"]["files_deleted"] >= 2, "the files go after the manifests that named them"
    assert lake.table(name).scan({"crawl": "A"}).sort_by("doc_id").to_pylist() == before


class LaterClock:
    """The module ``datetime`` forty days from now."""

    UTC, timedelta = dt.UTC, dt.timedelta

    class datetime(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + dt.timedelta(days=40)


@pytest.mark.parametrize("ages", [{"days": 0.5}, {"grace_hours": 1}], ids=["days", "grace"])
def test_ages_that_would_hurt_what_runs_are_refused(load_dags, upkeep, ages):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError), match="minimum"):
        upkeep(**ages)
