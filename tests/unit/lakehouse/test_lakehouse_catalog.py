import os
from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.errors import ConfigError, Permanent, Transient
from corpusmill.lakehouse.catalog import Lakehouse, LakehouseUnavailableError, NotInitialisedError
from corpusmill.lakehouse.settings import LakehouseSettings
from corpusmill.lakehouse.table import LakeTable
from corpusmill.schema import OPS_TABLES, PAGES, RECIPE_TABLES, STRING, TableSpec, required


@pytest.fixture
def lake(values):
    opened = Lakehouse(LakehouseSettings.load(values))
    yield opened
    opened.close()


def test_opening_a_table_before_init_says_what_to_run_and_creates_nothing(lake, tmp_path):
    with pytest.raises(NotInitialisedError, match="corpusmill init RECIPE") as error:
        lake.table("demo.documents")
    assert isinstance(error.value, Permanent)
    assert not lake.is_initialised("demo")
    assert list(tmp_path.iterdir()) == []


def test_a_catalog_file_without_tables_counts_as_not_initialised(lake, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "catalog.db").touch()
    with pytest.raises(NotInitialisedError, match="the catalog has no tables"):
        lake.table("demo.documents")
    assert not lake.is_initialised("demo")


def test_init_creates_every_table_as_the_schema_says_and_repeats_harmlessly(lake):
    lake.init(["demo"])
    before = lake.load("demo.documents").metadata_location
    lake.init(["demo", "other"])
    assert lake.load("demo.documents").metadata_location == before
    assert lake.is_initialised("demo")
    assert lake.is_initialised("other")
    assert not lake.is_initialised("third")
    expected = [("raw", PAGES), *(("ops", s) for s in OPS_TABLES)]
    expected += [(recipe, s) for recipe in ("demo", "other") for s in RECIPE_TABLES]
    for namespace, spec in expected:
        assert lake.table(f"{namespace}.{spec.name}").spec == spec


def test_init_gives_a_table_of_an_earlier_version_the_columns_that_it_lacks(lake):
    old = pa.schema([required("crawl", STRING), required("doc_id", STRING), pa.field("parts", parts("a"))])
    new = pa.schema([*old.remove(2), pa.field("parts", parts("a", "b")), pa.field("note", STRING)])
    lake.init([])
    lake.create_table("mine.notes", TableSpec("notes", old))
    before = lake.create_table("mine.notes", TableSpec("notes", old)).iceberg.metadata_location
    table = lake.create_table("mine.notes", TableSpec("notes", new))
    assert table.spec.schema == new
    assert table.iceberg.metadata_location != before
    again = lake.create_table("mine.notes", TableSpec("notes", old))
    assert again.iceberg.metadata_location == table.iceberg.metadata_location
    assert again.spec.schema == new


def parts(*names: str) -> pa.DataType:
    return pa.large_list(pa.struct([pa.field(name, STRING) for name in names]))


def test_a_recipe_that_was_not_initialised_is_named(lake):
    lake.init(["demo"])
    with pytest.raises(NotInitialisedError, match=r"'other\.documents'"):
        lake.table("other.documents")


def test_tables_are_created_with_the_protocols_properties(lake):
    lake.init(["demo"])
    properties = lake.load("demo.documents").properties
    assert properties["commit.retry.num-retries"] == "0"
    assert properties["write.metadata.delete-after-commit.enabled"] == "true"
    assert properties["write.metadata.metrics.column.text"] == "none"
    assert lake.load("demo.documents").format_version == 2


@pytest.mark.parametrize("name", ["raw", "ops", "a.b", "", "9x", "a b"])
def test_names_that_cannot_be_namespaces_are_refused(lake, name):
    with pytest.raises(ConfigError, match="namespace"):
        lake.init([name])


def test_a_foreign_table_is_created_once_and_kept(lake, worlds):
    lake.init([])
    first = lake.create_table("mine.notes", worlds.NOTES)
    assert isinstance(first, LakeTable)
    assert lake.create_table("mine.notes", worlds.NOTES).location == first.location
    assert first.spec == worlds.NOTES


def test_a_database_that_does_not_answer_is_a_transient_error_without_its_password():
    settings = LakehouseSettings.load(
        {"catalog_uri": "postgresql://ann:hunter2@127.0.0.1:1/lake", "warehouse": "file:///tmp"}
    )
    with pytest.raises(LakehouseUnavailableError) as error:
        Lakehouse(settings).table("demo.documents")
    assert isinstance(error.value, Transient)
    assert "hunter2" not in str(error.value)
    assert "hunter2" not in repr(Lakehouse(settings))


def test_a_forked_process_opens_a_connection_of_its_own(lake):
    lake.init([])
    catalog = lake.catalog
    lake._pid = os.getpid() + 1  # as it looks to a child
    assert lake.catalog is not catalog
    assert lake.table("ops.epochs").refs() == {}


def test_only_one_module_commits_or_stages_changes_of_tables():
    folder = Path(__file__).parents[3] / "src" / "corpusmill"
    words = ("commit_transaction(", "ManageSnapshots(", "ExpireSnapshots(", "manage_snapshots(", ".add_files(",
             ".append_data_file(", ".update_snapshot(", "dynamic_partition_overwrite(", ".transaction(")  # fmt: skip
    users = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(word in path.read_text() for word in words)
    }
    assert users == {"lakehouse/transactions.py", "lakehouse/catalog.py"}  # the catalog creates tables
