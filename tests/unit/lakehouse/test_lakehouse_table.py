import pytest

from corpusmill.errors import ConfigError
from corpusmill.lakehouse import table as tables
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.shards import ShardWriter
from corpusmill.lakehouse.table import PartitionState, UnknownRefError

NOTES = "demo.notes"


def commit(world, worlds, crawl, key, sizes_by_file):
    token = world.token(crawl, key, 1)
    with ShardWriter(world.lake.table(NOTES), {"crawl": crawl}, token, "0") as writer:
        for file, n in sizes_by_file.items():
            rows = world.rows(worlds.NOTES, n, f"{file}", crawl=crawl, warc_file=file)
            writer.write(rows.sort_by([("doc_id", "descending")]))
        manifest = writer.finish({})
    commit_partition(world.lake, NOTES, {"crawl": crawl}, [manifest], token, expected_shards=["0"])


def test_scan_selects_partition_columns_and_rows(world, worlds):
    commit(world, worlds, "A", "k", {"f1": 4})
    commit(world, worlds, "B", "k", {"f1": 2})
    table = world.lake.table(NOTES)
    rows = table.scan({"crawl": "A"}, columns=["doc_id", "kept"], filter="kept == true and doc_id > 'f1-00000'")
    assert rows.to_pylist() == [{"doc_id": "f1-00002", "kept": True}]
    assert table.scan(None).num_rows == table.count(None) == 6
    assert table.scan({"crawl": "C"}).schema == worlds.NOTES.schema
    with pytest.raises(ConfigError, match=r"no columns \['nope'\]"):
        table.scan({"crawl": "A"}, columns=["nope"])


def test_a_table_is_one_view_that_later_commits_do_not_change(world, worlds):
    commit(world, worlds, "A", "k1", {"f1": 4})
    table = world.lake.table(NOTES)
    commit(world, worlds, "A", "k2", {"f1": 9})
    assert (table.count({"crawl": "A"}), table.partition_key({"crawl": "A"})) == (4, "k1")
    assert world.lake.table(NOTES).count({"crawl": "A"}) == 9


def test_groups_come_in_the_order_asked_sorted_inside_and_empty_where_there_is_none(world, worlds):
    names = [f"crawl-data/CC-MAIN-2024-10/segments/170/warc/CC-MAIN-{n:05d}.warc.gz" for n in range(3)]
    commit(world, worlds, "A", "k", dict(zip(names, (5, 0, 3), strict=True)))
    table = world.lake.table(NOTES)
    groups = list(
        table.iter_groups({"crawl": "A"}, groups=[names[2], names[1], "nope", names[0]], columns=["text", "kept"])
    )
    assert [name for name, _ in groups] == [names[2], names[1], "nope", names[0]]
    assert [rows.num_rows for _, rows in groups] == [3, 0, 0, 5]
    assert all(rows.column_names == ["text", "kept"] for _, rows in groups)
    [(_, rows)] = table.iter_groups({"crawl": "A"}, groups=[names[0]])
    assert rows.schema == worlds.NOTES.schema
    assert rows["language"].to_pylist() == sorted(rows["language"].to_pylist())


def test_groups_of_an_empty_table_are_empty(world):
    [(name, rows)] = world.lake.table(NOTES).iter_groups({"crawl": "A"}, groups=["f"], columns=["doc_id"])
    assert (name, rows.num_rows, rows.column_names) == ("f", 0, ["doc_id"])


def test_a_group_reads_only_the_files_whose_statistics_admit_it(world, monkeypatch):
    world.stage(world.token("A", "k", 1), {str(n): 4 for n in range(5)})
    table, read = world.lake.table(NOTES), []
    scan = tables.ArrowScan.to_table

    def counted(self, tasks):
        tasks = list(tasks)
        read.append(len(tasks))
        return scan(self, tasks)

    plans = []
    plan = tables.LakeTable._plan
    monkeypatch.setattr(tables.LakeTable, "_plan", lambda *a: plans.append(1) or plan(*a))
    monkeypatch.setattr(tables.ArrowScan, "to_table", counted)
    groups = list(table.iter_groups({"crawl": "A"}, groups=[f"file-{n}" for n in range(5)]))
    assert [rows.num_rows for _, rows in groups] == [4] * 5
    assert (read, plans) == ([1] * 5, [1])


def test_an_unknown_ref_is_named_with_those_there_are(world, worlds):
    table = world.lake.table(NOTES)
    assert (table.snapshot_id(), table.snapshot_id("main"), table.count(None), table.data_files(None)) == (
        None,
        None,
        0,
        [],
    )
    commit(world, worlds, "A", "k1", {"f1": 4})
    with pytest.raises(UnknownRefError, match="'v9'; it has \\['main'\\]"):
        world.lake.table(NOTES).scan(None, ref="v9")


def test_partition_state_survives_its_properties():
    state = PartitionState("k", 3, 10, 99, "t", "demo/A/run", {"demo/A": (3, "run"), "other/A": (1, "x")})
    properties = state.to_properties("A/b%2Fc")
    assert PartitionState.from_properties(properties, "A/b%2Fc") == state
    assert PartitionState.from_properties(properties, "A") is None
    assert properties["corpusmill.partition.A/b%2Fc.key"] == "k"
    assert properties["corpusmill.partition.A/b%2Fc.epoch"] == "3"
    assert properties["corpusmill.partition.A/b%2Fc.rows"] == "10"
