"""The whole chain on PostgreSQL and an S3 server gives the rows that an embedded lakehouse gives."""

import pyarrow as pa
import pytest

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import LakehouseSettings, corpusmill_home
from corpusmill.recipe import Recipe
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh
from corpusmill.schema import RECIPE_TABLES

pytestmark = [pytest.mark.integration, pytest.mark.slow]

OLD, NEW = "T-2024-10", "T-2024-33"
LOGGED = ("ops.runs", "ops.epochs")
"""Tables that get a row or a snapshot from every run, also from one that finds its result there."""


def quiet(line: str) -> None:
    assert line


@pytest.fixture
def on_servers(home, server_lakehouse, monkeypatch) -> LakehouseSettings:
    """Points the environment, as an operator would, to an empty lakehouse on the servers."""
    monkeypatch.setenv("CORPUSMILL_CATALOG_URI", server_lakehouse["catalog_uri"])
    monkeypatch.setenv("CORPUSMILL_WAREHOUSE", server_lakehouse["warehouse"])
    monkeypatch.setenv("CORPUSMILL_S3_ENDPOINT", server_lakehouse["s3_endpoint"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server_lakehouse["s3_credentials"]["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server_lakehouse["s3_credentials"]["secret_key"])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return LakehouseSettings.from_environment(corpusmill_home())


@pytest.fixture
def embedded(home) -> Lakehouse:
    """The embedded lakehouse below the same home, which the servers must equal; the environment is left alone."""
    return Lakehouse(LakehouseSettings.from_environment(corpusmill_home(), environ={}))


def published(recipe: Recipe, *crawls: str) -> list[int]:
    return [refresh(recipe, crawl, None, quiet)["published"] for crawl in crawls]


def rows_of(lake: Lakehouse, table: str) -> pa.Table:
    rows = lake.table(table).scan(None)
    keys = [name for name in ("crawl", "doc_id") if name in rows.column_names]
    return rows.sort_by([(key, "ascending") for key in keys])


def content(lake: Lakehouse, recipe: str) -> dict[str, pa.Table]:
    """Returns every table of a recipe, in a canonical order, without what names the recipe itself."""
    tables = {spec.name: rows_of(lake, f"{recipe}.{spec.name}") for spec in RECIPE_TABLES}
    tables["corpus"] = tables["corpus"].drop_columns(["recipe_fingerprint"])
    return tables


def states(lake: Lakehouse, recipe: str) -> dict[str, tuple[int | None, int]]:
    """Returns head and number of snapshots of every table that holds data."""
    names = ["raw.pages", "ops.quarantine", *(f"{recipe}.{spec.name}" for spec in RECIPE_TABLES)]
    assert not set(names) & set(LOGGED)
    return {name: (lake.table(name).snapshot_id(), len(lake.load(name).snapshots())) for name in names}


def test_both_crawls_get_the_rows_of_an_embedded_lakehouse_and_a_second_run_changes_no_table(
    home, recipe, scored, embedded, request
):
    made = recipe(**scored)
    counts = published(made, OLD, NEW)
    expected = content(embedded, "tiny")
    settings = request.getfixturevalue("on_servers")  # only now: the runs above belong to the embedded lakehouse
    assert published(made, OLD, NEW) == counts
    lake = open_lakehouse()
    assert lake.settings == settings
    found = content(lake, "tiny")
    assert [name for name in expected if not found[name].equals(expected[name])] == []
    assert (found["documents"].num_rows, found["corpus"].num_rows) == (40, sum(counts))
    assert all(path.startswith("s3://") for path in lake.table("tiny.corpus").data_files(None))
    assert set(lake.table("tiny.corpus").refs()) == {"main", f"tiny/{OLD}/1", f"tiny/{NEW}/1"}

    before = states(lake, "tiny")
    assert published(made, OLD, NEW) == counts
    assert states(lake, "tiny") == before
    assert content(lake, "tiny")["corpus"].equals(found["corpus"])
    runs = lake.table("ops.runs").scan(None).to_pylist()
    assert sorted((r["crawl"], r["epoch"], r["state"]) for r in runs) == [
        (crawl, epoch, "success") for crawl in (OLD, NEW) for epoch in (1, 2)
    ]


def test_the_newer_crawl_first_ends_in_the_same_rows(home, recipe, embedded, request):
    made = recipe()
    assert published(made, OLD, NEW) == [20, 14]
    expected = content(embedded, "tiny")["corpus"]
    request.getfixturevalue("on_servers")
    assert published(made, NEW) == [20]
    late = refresh(made, OLD, None, quiet)
    assert (late["published"], late["retracted"]) == (20, {NEW: 6})
    lake = open_lakehouse()
    found = content(lake, "tiny")["corpus"]
    assert found.num_rows == len(set(found["dedup_digest"].to_pylist())) == 34
    assert found.equals(expected)
    assert not [ref for ref in lake.table("tiny.corpus").refs() if ref.startswith("audit_")]
