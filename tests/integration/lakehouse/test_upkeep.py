"""Upkeep changes nothing that a reader, a branch, a tag or a run in flight relies on."""

import datetime as dt

import pytest

from corpusmill.errors import CommitConflict, ConfigError
from corpusmill.lakehouse import maintenance
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.maintenance import (
    compact_partition,
    expire_audit_branches,
    expire_manifests,
    expire_snapshots,
    expired_snapshots,
    remove_orphans,
)
from corpusmill.lakehouse.publish import publish, rebase_audit_branch
from corpusmill.lakehouse.shards import find_manifest
from corpusmill.lakehouse.storage import list_files

pytestmark = pytest.mark.integration

NOTES, BOOKS = "demo.notes", "demo.books"
NO_GRACE = dt.timedelta(0)


def future():
    return dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)


def test_expiry_keeps_tags_branches_and_their_rows(world):
    for n, key in enumerate(("k1", "k2", "k3"), 1):
        world.publish(world.token("A", key, world.epoch("A")), {"0": n})
    b = world.token("B", "kb", world.epoch("B"))
    branch = world.audit(b, {"0": 7})
    world.stage(world.token("C", "kc", 1), {"0": 2}, BOOKS, branch)
    before = {ref: world.count(BOOKS, ref=ref) for ref in world.lake.table(BOOKS).refs()}
    assert before == {"main": 3, "demo/A/1": 1, "demo/A/2": 2, "demo/A/3": 3, branch: 12}
    assert expire_snapshots(world.lake, BOOKS, dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)) == 0
    expired = expire_snapshots(world.lake, BOOKS, future())
    assert expired == 1  # the empty first one; every other is tagged, or on a branch
    remove_orphans(world.lake, BOOKS, NO_GRACE, force=True)
    assert {ref: world.count(BOOKS, ref=ref) for ref in world.lake.table(BOOKS).refs()} == before
    publish(world.lake, BOOKS, branch, "demo/B/1", {"B": b, "C": world.token("C", "kc", 1)})
    assert world.count(BOOKS) == 12


def test_expiry_makes_replaced_files_orphans_and_cleaning_spares_all_that_is_read(world):
    epoch = world.epoch("A")
    for key in ("k1", "k2", "k3"):
        world.stage(world.token("A", key, epoch), {"0": 5, "1": 5})
    files = {f.location for f in list_files(world.lake.io, world.lake.table(NOTES).location + "/data")}
    assert len(files) == 6
    assert remove_orphans(world.lake, NOTES, NO_GRACE, force=True) == []
    assert expire_snapshots(world.lake, NOTES, future()) == 2
    removed = remove_orphans(world.lake, NOTES, NO_GRACE, force=True)
    assert not [f for f in removed if f.endswith(".parquet")], "a manifest still names them"
    assert len(expire_manifests(world.lake, NOTES, days=-1)) == 6
    removed = remove_orphans(world.lake, NOTES, NO_GRACE, force=True)
    assert len([f for f in removed if f.endswith(".parquet")]) == 4
    assert (world.count(), world.stage(world.token("A", "k3", epoch), {"0": 5, "1": 5}).already) == (10, True)
    assert find_manifest(world.lake, NOTES, world.token("A", "k1", epoch), "0") is None


def test_a_file_in_flight_survives_the_grace_and_an_old_orphan_goes(world):
    token = world.token("A", "k1", world.epoch("A"))
    manifest = world.shard(token, "0", 5)
    assert remove_orphans(world.lake, NOTES, dt.timedelta(hours=24)) == []
    world.stage(token, {"0": 5})
    assert world.count() == 5
    stray = world.lake.table(NOTES).location + "/data/crawl=A/9-0-deadbeef.parquet"
    with world.lake.io.new_output(stray).create() as stream:
        stream.write(b"half a file")
    assert remove_orphans(world.lake, NOTES, dt.timedelta(hours=24)) == []
    assert remove_orphans(world.lake, NOTES, NO_GRACE, force=True) == [stray]
    assert world.lake.table(NOTES).data_files({"crawl": "A"}) == [f.path for f in manifest.files]


def test_files_that_a_manifest_names_are_spared_however_old_they_are(world, monkeypatch):
    token = world.token("A", "k1", world.epoch("A"))
    manifest = world.shard(token, "0", 5)
    listed = [maintenance.list_files]

    def aged(io, folder):
        for stored in listed[0](io, folder):
            yield type(stored)(stored.location, stored.size, stored.modified - dt.timedelta(days=40))

    monkeypatch.setattr(maintenance, "list_files", aged)
    assert remove_orphans(world.lake, NOTES, dt.timedelta(hours=24)) == []
    assert find_manifest(world.lake, NOTES, token, "0") == manifest


def test_a_manifest_expires_when_nobody_relied_on_it_for_long_and_its_files_go_with_the_next_upkeep(world):
    token = world.token("A", "k1", world.epoch("A"))
    world.shard(token, "0", 5)
    world.stage(world.token("B", "kb", world.epoch("B")), {"0": 3}, BOOKS)
    assert expire_manifests(world.lake, NOTES, days=30) == []
    (gone,) = expire_manifests(world.lake, NOTES, days=-1)
    assert gone.endswith("/A/k1/demo.notes/0.json")
    assert find_manifest(world.lake, NOTES, token, "0") is None
    assert find_manifest(world.lake, BOOKS, world.token("B", "kb", 1), "0") is not None, "of another table"
    (orphan,) = remove_orphans(world.lake, NOTES, NO_GRACE, force=True)
    assert orphan.endswith(".parquet")
    assert world.stage(token, {"0": 5}).rows == 5, "the shard is simply made again"


def test_the_age_of_a_snapshot_counts_from_when_it_was_replaced(world):
    """Who opened the table a moment ago holds a snapshot that may be years old."""
    epoch = world.epoch("A")
    for key in ("k1", "k2", "k3"):
        world.stage(world.token("A", key, epoch), {"0": 5})
    metadata = world.lake.load(NOTES).metadata
    hours = dict(zip([entry.snapshot_id for entry in metadata.snapshot_log], (50, 40, 1), strict=True))

    def earlier(entry):
        return entry.model_copy(update={"timestamp_ms": entry.timestamp_ms - hours[entry.snapshot_id] * 3_600_000})

    aged = {name: [earlier(e) for e in getattr(metadata, name)] for name in ("snapshots", "snapshot_log")}
    metadata = metadata.model_copy(update=aged)
    day_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=24)
    first, *_ = hours
    assert expired_snapshots(metadata, day_ago) == [first], "the second was read until an hour ago"


def test_a_branch_can_be_rebased_after_main_moved_on_and_was_cleaned(world):
    for n, crawl in enumerate("ABC", 1):
        world.publish(world.token(crawl, f"k{crawl}", world.epoch(crawl)), {"0": n})
    d = world.token("D", "kd", world.epoch("D"))
    branch = world.audit(d, {"0": 9})
    for key in ("k2", "k3"):
        world.stage(world.token("A", key, world.epoch("A")), {"0": 4}, BOOKS)
    expire_snapshots(world.lake, BOOKS, future())
    rebase_audit_branch(world.lake, BOOKS, branch)
    publish(world.lake, BOOKS, branch, "demo/D/1", {"D": d})
    assert world.count(BOOKS) == 4 + 2 + 3 + 9


def test_a_grace_shorter_than_a_stage_is_refused(world):
    with pytest.raises(ConfigError, match="grace"):
        remove_orphans(world.lake, NOTES, dt.timedelta(hours=1))


def test_compaction_keeps_rows_key_epoch_and_groups(world):
    epoch = world.epoch("A")
    sizes = {str(n): 6 + n for n in range(4)}
    world.stage(world.token("A", "k1", epoch), sizes)
    table = world.lake.table(NOTES)
    names = [f"file-{n}" for n in sizes]
    groups = {name: rows.to_pylist() for name, rows in table.iter_groups({"crawl": "A"}, groups=names)}
    state = table.partition_state({"crawl": "A"})
    result = compact_partition(world.lake, NOTES, {"crawl": "A"})
    table = world.lake.table(NOTES)
    assert (result.files_before, result.files_after) == (4, 1)
    assert table.partition_state({"crawl": "A"}) == state
    assert {name: rows.to_pylist() for name, rows in table.iter_groups({"crawl": "A"}, groups=names)} == groups
    assert world.count() == 30
    assert compact_partition(world.lake, NOTES, {"crawl": "A"}).snapshot_id is None


def test_compaction_that_meets_a_newer_commit_gives_way(world, monkeypatch):
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 5, "1": 5})
    swap = maintenance.swap_files

    def late(*arguments):
        world.stage(world.token("A", "k2", world.epoch("A")), {"0": 2, "1": 1})
        return swap(*arguments)

    monkeypatch.setattr(maintenance, "swap_files", late)
    with pytest.raises(CommitConflict, match="compact it again"):
        compact_partition(world.lake, NOTES, {"crawl": "A"})
    assert world.count() == 3


def test_old_audit_branches_are_dropped_and_young_ones_kept(world):
    world.publish(world.token("A", "k1", world.epoch("A")), {"0": 5})
    world.audit(world.token("B", "kb", world.epoch("B")), {"0": 3})
    assert expire_audit_branches(world.lake, BOOKS, days=1) == []
    assert expire_audit_branches(world.lake, BOOKS, days=-1) == ["audit_B_1"]
    assert set(world.lake.table(BOOKS).refs()) == {"main", "demo/A/1"}
    assert world.count(BOOKS) == 5


def test_a_time_without_zone_is_refused(world):
    with pytest.raises(ConfigError, match="time zone"):
        expire_snapshots(world.lake, NOTES, dt.datetime(2030, 1, 1))


def test_a_partition_is_emptied_after_its_files_were_compacted(world):
    token = world.token("A", "k1", world.epoch("A"))
    world.stage(token, {"0": 5, "1": 5})
    compact_partition(world.lake, NOTES, {"crawl": "A"})
    commit_partition(world.lake, NOTES, {"crawl": "A"}, [], world.token("A", "k2", token.epoch), expected_shards=[])
    assert world.count() == 0
