import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.errors import ConfigError
from corpusmill.lakehouse import shards
from corpusmill.lakehouse.shards import RowsRefusedError, RunToken, ShardWriter, find_manifest
from corpusmill.lakehouse.storage import list_files

NOTES = "demo.notes"


@pytest.fixture
def token(world):
    return world.token("A", "k1", 7)


def files_on_disk(world):
    return list(list_files(world.lake.io, world.lake.table(NOTES).location + "/data"))


def test_a_shard_is_one_file_at_an_attempt_unique_path_with_field_ids_and_few_dictionaries(world, worlds, token):
    manifests = []
    for _ in range(2):
        with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "00001") as writer:
            writer.write(world.rows(worlds.NOTES, 5, crawl="A"))
            manifests.append(writer.finish({"documents": 5}))
    one, other = (m.files[0] for m in manifests)
    assert one.path != other.path
    assert "/demo/notes/data/crawl=A/7-00001-" in one.path
    parquet = pq.ParquetFile(one.path.removeprefix("file://"))
    assert parquet.schema_arrow.field("doc_id").metadata[b"PARQUET:field_id"] == b"2"
    columns = {parquet.metadata.row_group(0).column(i).path_in_schema: parquet.metadata.row_group(0).column(i)
               for i in range(parquet.metadata.num_columns)}  # fmt: skip
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    dictionaries = {name for name, c in columns.items() if c.has_dictionary_page}
    assert dictionaries == {"crawl", "warc_file", "language"}
    assert (manifests[0].rows, manifests[0].report) == (5, {"documents": 5})
    assert find_manifest(world.lake, NOTES, token, "00001") == manifests[1]  # the last attempt's is the winner


def test_small_writes_become_row_groups_sorted_by_input_file_and_sort_columns(world, worlds, token, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 6)
    rows = pa.concat_tables([world.rows(worlds.NOTES, 4, f"d{f}", crawl="A", warc_file=f"f{f}") for f in (2, 1, 0)])
    with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0") as writer:
        for start in range(0, 12, 2):
            writer.write(rows.slice(start, 2))
        manifest = writer.finish({})
    parquet = pq.ParquetFile(manifest.files[0].path.removeprefix("file://"))
    groups = [parquet.read_row_group(i) for i in range(parquet.num_row_groups)]
    assert [g.num_rows for g in groups] == [6, 6]
    assert [g["warc_file"].to_pylist() for g in groups] == [["f1"] * 2 + ["f2"] * 4, ["f0"] * 4 + ["f1"] * 2]
    assert sorted(pa.concat_tables(groups)["doc_id"].to_pylist()) == sorted(rows["doc_id"].to_pylist())


def test_a_large_shard_rolls_to_further_files(world, worlds, token, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 10)
    with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0", file_bytes=1500) as writer:
        for n in range(8):
            writer.write(world.rows(worlds.NOTES, 10, f"d{n}", crawl="A"))
        manifest = writer.finish({})
    assert len(manifest.files) > 2
    assert manifest.rows == 80
    for file in manifest.files:
        assert pq.ParquetFile(file.path.removeprefix("file://")).metadata.num_rows == file.rows


def test_a_shard_without_rows_has_a_manifest_and_no_file(world, worlds, token):
    with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0") as writer:
        writer.write(world.rows(worlds.NOTES, 0, crawl="A"))
        manifest = writer.finish({})
    assert (manifest.files, manifest.rows) == ((), 0)
    assert find_manifest(world.lake, NOTES, token, "0") == manifest


def test_a_shard_that_fails_leaves_neither_files_nor_a_manifest(world, worlds, token, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 3)

    def failing():
        with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0", file_bytes=10) as writer:
            writer.write(world.rows(worlds.NOTES, 10, crawl="A"))
            assert files_on_disk(world)
            raise RuntimeError("too many errors")

    with pytest.raises(RuntimeError):
        failing()
    assert files_on_disk(world) == []
    assert find_manifest(world.lake, NOTES, token, "0") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop_columns(["text"]), r"missing \['text'\]"),
        (lambda rows: rows.append_column("more", pa.nulls(2, pa.string())), r"unknown \['more'\]"),
        (lambda rows: rows.set_column(0, "crawl", pa.array(["A", "B"])), r"crawl=\['A', 'B'\], expected 'A'"),
        (lambda rows: rows.set_column(1, "doc_id", pa.array(["a", None])), "do not fit"),
        (lambda rows: rows.set_column(4, "kept", pa.array(["yes", "perhaps"])), "do not fit"),
    ],
    ids=["missing column", "unknown column", "other partition", "null in a required column", "other type"],
)
def test_rows_that_do_not_fit_are_refused(world, worlds, token, change, message):
    with (
        pytest.raises(RowsRefusedError, match=message),
        ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0") as writer,
    ):
        writer.write(change(world.rows(worlds.NOTES, 2, crawl="A")))


def test_columns_may_come_in_any_order_and_small_strings(world, worlds, token):
    rows = world.rows(worlds.NOTES, 3, crawl="A")
    small = rows.cast(pa.schema([f.with_type(pa.string()) if f.name == "text" else f for f in rows.schema]))
    with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0") as writer:
        writer.write(small.select(rows.column_names[::-1]))
        assert writer.finish({}).rows == 3


def test_a_partition_must_name_exactly_the_partition_columns(world, token):
    with pytest.raises(ConfigError, match="must give exactly"):
        ShardWriter(world.lake.table(NOTES), {"crawl": "A", "lang": "en"}, token, "0")


def test_names_that_no_path_can_carry_are_quoted(world, worlds):
    crawl = "a/b c=%?#é"
    token = world.token(crawl, "k/1", 1)
    with ShardWriter(world.lake.table(NOTES), {"crawl": crawl}, token, "s/0") as writer:
        writer.write(world.rows(worlds.NOTES, 3, crawl=crawl))
        manifest = writer.finish({})
    assert find_manifest(world.lake, NOTES, token, "s/0") == manifest
    world.stage(token, {"0": 4})
    assert world.lake.table(NOTES).partitions() == [{"crawl": crawl}]
    assert world.count(crawl=crawl) == 4


def test_tokens_survive_pickling_and_hash_without_their_versions():
    token = RunToken("demo", "A", "run", 1, "k", {"config": "c"})
    assert pickle.loads(pickle.dumps(token)) == token
    assert hash(token) == hash(RunToken("demo", "A", "run", 1, "k"))
    assert RunToken(**(vars(token) | {"versions": dict(token.versions)})) == token
