"""One partition, one snapshot, once per content key; older runs are fenced out."""

import datetime as dt

import pytest

from corpusmill.errors import CommitConflict, LakehouseError, SupersededError
from corpusmill.lakehouse import commit, transactions
from corpusmill.lakehouse.commit import (
    FilesRefusedError,
    MissingFilesError,
    MissingShardsError,
    claim_partition,
    commit_partition,
)
from corpusmill.lakehouse.epochs import check_epoch, current_epoch
from corpusmill.lakehouse.maintenance import compact_partition, expire_snapshots
from corpusmill.lakehouse.shards import RunToken, ShardWriter, find_manifest, read_manifests
from corpusmill.lakehouse.storage import delete_file
from corpusmill.lakehouse.transactions import transact
from corpusmill.schema import OPS_TABLES, RECIPE_TABLES

pytestmark = pytest.mark.integration

NOTES = "demo.notes"


def snapshots(world, table=NOTES):
    return [s.snapshot_id for s in world.lake.load(table).snapshots()]


def test_a_commit_shows_all_shards_in_one_snapshot_and_is_found_by_its_key(world):
    token = world.token("A", "k1", world.epoch("A"))
    result = world.stage(token, {"0": 5, "1": 7})
    assert (result.already, result.rows, world.count()) == (False, 12, 12)
    assert snapshots(world) == [result.snapshot_id]
    table = world.lake.table(NOTES)
    assert (table.partition_key({"crawl": "A"}), table.partition_epoch({"crawl": "A"})) == ("k1", 1)
    again = world.stage(token, {"0": 5, "1": 7})
    assert (again.already, again.snapshot_id, again.rows) == (True, result.snapshot_id, 12)
    assert snapshots(world) == [result.snapshot_id]


def test_the_snapshot_says_who_committed_what(world):
    token = world.token("A", "k1", world.epoch("A", "airflow-7"), "airflow-7")
    manifest = world.shard(token, "0", 3)
    commit_partition(
        world.lake, NOTES, {"crawl": "A"}, [manifest], token, expected_shards=["0"], properties={"rows-in": "9"}
    )
    found = world.lake.load(NOTES).current_snapshot().summary.additional_properties
    ours = {name.removeprefix("corpusmill."): v for name, v in found.items() if name.startswith("corpusmill.")}
    assert ours == {
        "stage": "notes", "run-id": "airflow-7", "run-line": "demo/A", "commit-key": "k1", "epoch": "1",
        "partition": "A", "rows": "3", "rows-in": "9", "config-hash": "c0", "code-version": "0.0",
    }  # fmt: skip


def test_configs_one_two_one_commit_three_times(world):
    epoch = world.epoch("A")
    results = [
        world.stage(world.token("A", key, epoch), sizes)
        for key, sizes in (("c1", {"0": 5}), ("c2", {"0": 3, "1": 1}), ("c1", {"0": 5}))
    ]
    assert [r.already for r in results] == [False, False, False]
    assert len(set(snapshots(world))) == 3
    assert world.count() == 5
    assert world.lake.table(NOTES).partition_key({"crawl": "A"}) == "c1"


def test_compaction_and_another_crawls_commit_change_no_key_and_a_rerun_is_a_no_op(world):
    token = world.token("A", "k1", world.epoch("A"))
    sizes = {"0": 5, "1": 7, "2": 2}
    first = world.stage(token, sizes)
    before = world.lake.table(NOTES).scan({"crawl": "A"}).sort_by("doc_id")
    compacted = compact_partition(world.lake, NOTES, {"crawl": "A"})
    assert (compacted.files_before, compacted.files_after) == (3, 1)
    other = world.stage(world.token("B", "kb", world.epoch("B")), {"0": 4})
    assert snapshots(world) == [first.snapshot_id, compacted.snapshot_id, other.snapshot_id]
    rerun = world.stage(world.token("A", "k1", world.epoch("A")), sizes)
    assert rerun.already
    assert len(snapshots(world)) == 3
    assert (world.count(crawl="A"), world.count(crawl="B")) == (14, 4)
    assert world.lake.table(NOTES).scan({"crawl": "A"}).sort_by("doc_id").equals(before)


def test_the_key_is_found_after_the_snapshot_that_set_it_has_expired(world):
    token = world.token("A", "k1", world.epoch("A"))
    world.stage(token, {"0": 5})
    world.stage(world.token("B", "kb", world.epoch("B")), {"0": 4})
    assert expire_snapshots(world.lake, NOTES, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)) == 1
    assert world.stage(token, {"0": 5}).already
    assert world.count() == 9


def test_new_content_without_rows_empties_the_partition_and_only_it(world):
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 5})
    world.stage(world.token("B", "kb", world.epoch("B")), {"0": 4})
    result = world.stage(world.token("A", "k2", world.epoch("A")), {"0": 0, "1": 0})
    assert (result.already, result.rows) == (False, 0)
    assert (world.count(crawl="A"), world.count(crawl="B"), len(snapshots(world))) == (0, 4, 3)
    assert world.stage(world.token("A", "k2", world.epoch("A")), {"0": 0, "1": 0}).already
    assert world.lake.table(NOTES).partitions() == [{"crawl": "A"}, {"crawl": "B"}]


def test_an_empty_first_commit_leaves_a_key(world):
    token = world.token("A", "k1", world.epoch("A"))
    assert not world.stage(token, {"0": 0}).already
    assert world.stage(token, {"0": 0}).already
    assert world.count() == 0


def test_fewer_shards_on_a_new_key_drop_the_files_of_the_old_one(world):
    world.stage(world.token("A", "k1", world.epoch("A")), {str(n): 10 for n in range(4)})
    world.stage(world.token("A", "k2", world.epoch("A")), {str(n): 7 for n in range(3)})
    assert world.count() == 21


def test_a_missing_shard_is_named_and_nothing_is_committed(world):
    token = world.token("A", "k1", world.epoch("A"))
    manifests = [world.shard(token, name, 3) for name in ("0", "2")]
    with pytest.raises(MissingShardsError, match=r"missing \['1', '3'\]"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, manifests, token, expected_shards=["0", "1", "2", "3"])
    with pytest.raises(MissingShardsError, match=r"unknown \['2'\]"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, manifests, token, expected_shards=["0"])
    with pytest.raises(MissingShardsError, match=r"given twice \['0'\]"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, manifests[:1] * 2, token, expected_shards=["0"])
    other = world.token("A", "k2", 1)
    with pytest.raises(MissingShardsError, match="another commit"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, manifests, other, expected_shards=["0", "2"])
    assert (world.count(), snapshots(world)) == (0, [])


def test_a_retried_shard_is_skipped_by_its_manifest_while_its_files_are_there(world):
    token = world.token("A", "k1", world.epoch("A"))
    manifest = world.shard(token, "0", 5)
    assert find_manifest(world.lake, NOTES, token, "0") == manifest
    assert find_manifest(world.lake, NOTES, token, "1") is None
    assert find_manifest(world.lake, NOTES, world.token("A", "k2", 1), "0") is None
    later = world.token("A", "k1", world.epoch("A"))
    assert find_manifest(world.lake, NOTES, later, "0") == manifest
    assert read_manifests(world.lake, NOTES, later) == [manifest]
    delete_file(world.lake.io, manifest.files[0].path)
    assert find_manifest(world.lake, NOTES, token, "0") is None
    with pytest.raises(MissingFilesError, match="run its shard again"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, [manifest], later, expected_shards=["0"])


def test_a_file_of_another_partition_is_refused(world):
    token = world.token("A", "k1", world.epoch("A"))
    manifest = world.shard(token, "0", 5)
    with pytest.raises(FilesRefusedError, match="holds partition"):
        commit_partition(world.lake, NOTES, {"crawl": "B"}, [f.path for f in manifest.files], world.token("B", "k", 1))
    assert world.count() == 0


def test_a_superseded_run_is_refused_and_the_newer_run_is_named(world):
    old = world.token("A", "old", world.epoch("A", "first"), "first")
    manifest = world.shard(old, "0", 5)
    epoch = world.epoch("A", "second")
    with pytest.raises(SupersededError, match="'second' \\(epoch 2\\)"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, [manifest], old, expected_shards=["0"])
    with pytest.raises(SupersededError, match="'second'"):
        check_epoch(world.lake, old)
    assert world.count() == 0
    assert current_epoch(world.lake, "demo", "A") == (epoch, "second")


def test_a_zombie_that_wakes_after_the_newer_commit_is_refused_by_the_partition_alone(world, monkeypatch):
    old = world.token("A", "old", world.epoch("A", "first"), "first")
    manifest = world.shard(old, "0", 5)
    world.stage(world.token("A", "new", world.epoch("A", "second"), "second"), {"0": 3})
    monkeypatch.setattr(commit, "check_epoch", lambda *_: None)  # it looked at the catalog before it fell asleep
    with pytest.raises(SupersededError, match="'second' \\(epoch 2\\)"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, [manifest], old, expected_shards=["0"])
    assert (world.count(), world.lake.table(NOTES).partition_key({"crawl": "A"})) == (3, "new")


def paused(world, monkeypatch, meanwhile):
    """Lets something happen once, between a run's look at the epoch and its commit."""
    happened = []

    def check_then_sleep(lake, token):
        check_epoch(lake, token)
        if not happened:
            happened.append(1)
            meanwhile()

    monkeypatch.setattr(commit, "check_epoch", check_then_sleep)


def test_a_zombie_paused_between_its_epoch_check_and_its_commit_is_refused(world, monkeypatch):
    old = world.token("A", "old", world.epoch("A", "first"), "first")
    manifest = world.shard(old, "0", 5)
    paused(world, monkeypatch, lambda: world.stage(world.token("A", "new", world.epoch("A", "second")), {"0": 3}))
    with pytest.raises(SupersededError):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, [manifest], old, expected_shards=["0"])
    assert (world.count(), world.lake.table(NOTES).partition_key({"crawl": "A"})) == (3, "new")


def test_a_zombie_cannot_replace_content_that_a_newer_run_found_and_claimed(world, monkeypatch):
    world.stage(world.token("A", "good", world.epoch("A")), {"0": 3})
    old = world.token("A", "old", world.epoch("A", "first"), "first")
    manifest = world.shard(old, "0", 5)

    def newer_run_finds_its_result():
        token = world.token("A", "good", world.epoch("A", "second"), "second")
        assert claim_partition(world.lake, NOTES, {"crawl": "A"}, token).rows == 3

    paused(world, monkeypatch, newer_run_finds_its_result)
    with pytest.raises(SupersededError, match="'second'"):
        commit_partition(world.lake, NOTES, {"crawl": "A"}, [manifest], old, expected_shards=["0"])
    assert (world.count(), len(snapshots(world))) == (3, 1)


def test_a_claim_of_other_content_changes_nothing(world):
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 3})
    assert claim_partition(world.lake, NOTES, {"crawl": "A"}, world.token("A", "k2", 1)) is None
    assert claim_partition(world.lake, NOTES, {"crawl": "B"}, world.token("B", "k2", 1)) is None


def test_runs_of_two_recipes_on_a_shared_table_do_not_supersede_each_other(world):
    for _ in range(5):
        world.epoch("A")
    demo = world.token("A", "k1", 5)
    world.stage(demo, {"0": 3})
    other = RunToken("other", "A", "run", 1, "k2")
    world.stage(other, {"0": 4})
    assert world.count() == 4
    world.stage(demo, {"0": 3})
    assert world.count() == 3


def test_two_recipes_live_side_by_side(world):
    world.lake.init(["demo", "other"])
    spec = next(s for s in RECIPE_TABLES if s.name == "documents")
    for recipe, n in (("demo", 6), ("other", 9)):
        token = RunToken(recipe, "A", "run", 1, f"key-{recipe}")
        with ShardWriter(world.lake.table(f"{recipe}.documents"), {"crawl": "A"}, token, "0") as writer:
            writer.write(world.rows(spec, n, recipe, crawl="A"))
            manifest = writer.finish({})
        commit_partition(world.lake, f"{recipe}.documents", {"crawl": "A"}, [manifest], token, expected_shards=["0"])
    assert (world.count("demo.documents"), world.count("other.documents")) == (6, 9)
    token = RunToken("demo", "A", "run", 1, "key-2")
    commit_partition(world.lake, "demo.documents", {"crawl": "A"}, [], token, expected_shards=[])
    assert (world.count("demo.documents"), world.count("other.documents")) == (0, 9)


@pytest.mark.parametrize("spec", [*RECIPE_TABLES, *OPS_TABLES], ids=lambda s: s.name)
def test_every_table_of_the_product_takes_and_returns_rows(world, spec):
    table = world.lake.create_table(f"mine.{spec.name}", spec)
    partition = {c: "3" if c == "epoch" else f"{c}: a/b" for c in spec.partition}
    rows = world.rows(spec, 7, **{c: 3 if c == "epoch" else v for c, v in partition.items()})
    token = RunToken("demo", "A", "run", 1, "k")
    with ShardWriter(table, partition, token, "0") as writer:
        writer.write(rows)
        manifest = writer.finish({})
    commit_partition(world.lake, f"mine.{spec.name}", partition, [manifest], token, expected_shards=["0"])
    table = world.lake.table(f"mine.{spec.name}")
    assert table.partitions() == [partition]
    keys = [(c, "ascending") for c in spec.sort]
    assert table.scan(partition).sort_by(keys).equals(rows.sort_by(keys))


def test_a_loop_that_always_loses_gives_up_with_a_conflict(world, monkeypatch):
    monkeypatch.setattr(transactions, "FIRST_WAIT_SECONDS", 0.0)
    rivals = iter(range(100))

    def change(table, transaction):
        world.stage(world.token(f"rival{next(rivals)}", "k", 1), {"0": 1})
        transaction.set_properties({"mine": "1"})

    with pytest.raises(CommitConflict, match="not committed in 3 attempts"):
        transact(world.lake, NOTES, change, attempts=3)
    assert "mine" not in world.lake.load(NOTES).properties


def test_a_table_with_pyicebergs_own_retries_is_refused(world):
    world.lake.catalog.create_table("demo.foreign", world.lake.table(NOTES).spec.schema)
    with pytest.raises(LakehouseError, match="create_table"):
        transact(world.lake, "demo.foreign", lambda table, transaction: None)
