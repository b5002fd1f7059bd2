"""Each trap of pyiceberg 0.12 that we know: what the plain call does, and that ours does not.

Where one of the plain halves fails after an upgrade, pyiceberg has been repaired and our guard may be simplified.
"""

import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import EqualTo
from pyiceberg.io.pyarrow import parquet_files_to_data_files
from pyiceberg.manifest import DataFile
from sqlalchemy.exc import IntegrityError

from corpusmill.lakehouse.commit import FilesRefusedError, MissingFilesError, commit_partition
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.lakehouse.publish import MainMovedError, create_audit_branch, publish
from corpusmill.lakehouse.shards import ShardManifest, ShardWriter
from corpusmill.lakehouse.table import UnknownRefError
from corpusmill.lakehouse.transactions import transact

pytestmark = pytest.mark.integration

NOTES, BOOKS = "demo.notes", "demo.books"


@pytest.fixture
def plain(world):
    """A table as pyiceberg makes it, with its own retries."""
    world.lake.create_table("demo.plain", world.lake.table(NOTES).spec)
    with world.lake.load("demo.plain").transaction() as transaction:
        transaction.remove_properties("commit.retry.num-retries")
    return "demo.plain"


def files(world, table, crawl, n=10, shards=2, tag="x"):
    """Returns the paths of data files that no snapshot names yet."""
    token = world.token(crawl, tag, 1)
    return [f.path for s in range(shards) for f in world.shard(token, f"{tag}{s}", n, table).files]


def count(world, table, ref=None):
    scan = world.lake.load(table).scan()
    return (scan.use_ref(ref) if ref else scan).to_arrow().num_rows


def stage_overwrite(world, table, crawl, paths, branch="main"):
    """Returns a transaction, staged on the metadata of now, that replaces a partition."""
    loaded = world.lake.load(table)
    transaction = loaded.transaction()
    with transaction.update_snapshot(branch=branch).overwrite() as overwrite:
        for task in loaded.scan(EqualTo("crawl", crawl)).plan_files():
            overwrite.delete_data_file(task.file)
        for file in parquet_files_to_data_files(loaded.io, loaded.metadata, iter(paths)):
            overwrite.append_data_file(file)
    return transaction


def test_trap_1_add_files_with_its_own_retry_duplicates_rows(world, plain):
    paths = files(world, plain, "A")
    rivals = [world.lake.load(plain).transaction() for _ in range(2)]
    for rival in rivals:
        rival.add_files(paths)
    for rival in rivals:
        rival.commit_transaction()
    assert count(world, plain) == 40  # 20 rows were added, by two committers of the same files

    token = world.token("A", "k1", world.epoch("A"))
    manifests = [world.shard(token, str(s), 10) for s in range(2)]
    rival = stage_overwrite(world, NOTES, "A", [f.path for m in manifests for f in m.files])
    commit_partition(world.lake, NOTES, {"crawl": "A"}, manifests, token, expected_shards=["0", "1"])
    with pytest.raises(CommitFailedException):
        rival.commit_transaction()
    assert world.count() == 20


def test_trap_2_the_duplicate_check_of_add_files_ignores_branches(world, plain):
    loaded = world.lake.load(plain)
    loaded.add_files(files(world, plain, "B"))
    loaded.manage_snapshots().create_branch(loaded.current_snapshot().snapshot_id, "audit").commit()
    paths = files(world, plain, "A", n=5, shards=1)
    for _ in range(2):
        world.lake.load(plain).add_files(paths, branch="audit")
    assert count(world, plain, "audit") == 30  # 25 expected

    token = world.token("A", "k1", world.epoch("A"))
    branch = create_audit_branch(world.lake, BOOKS, "A", 1)
    for _ in range(2):
        world.stage(token, {"0": 5}, BOOKS, branch)
    assert world.count(BOOKS, ref=branch) == 5


def test_trap_3_set_current_snapshot_is_no_fast_forward(world, plain):
    loaded = world.lake.load(plain)
    loaded.add_files(files(world, plain, "A"))
    loaded.manage_snapshots().create_branch(loaded.current_snapshot().snapshot_id, "audit").commit()
    world.lake.load(plain).add_files(files(world, plain, "B"), branch="audit")
    world.lake.load(plain).add_files(files(world, plain, "C"))
    world.lake.load(plain).manage_snapshots().set_current_snapshot(ref_name="audit").commit()
    assert world.lake.load(plain).scan(EqualTo("crawl", "C")).to_arrow().num_rows == 0  # committed, and lost

    a, b = (world.token(c, "k", world.epoch(c)) for c in "AB")
    branch_a, branch_b = world.audit(a, {"0": 5}), world.audit(b, {"0": 4})
    publish(world.lake, BOOKS, branch_a, "demo/A/1", {"A": a})
    with pytest.raises(MainMovedError):
        publish(world.lake, BOOKS, branch_b, "demo/B/1", {"B": b})
    assert world.count(BOOKS) == 5


@pytest.mark.parametrize("tag_first", [True, False])
def test_trap_4_a_tag_staged_first_disables_the_assertion_on_main(world, tag_first):
    loaded = world.lake.create_table("demo.chain", world.lake.table(NOTES).spec).iceberg
    loaded.add_files(files(world, "demo.chain", "A"))
    head = loaded.current_snapshot().snapshot_id
    loaded.manage_snapshots().create_branch(head, "audit").commit()
    world.lake.load("demo.chain").add_files(files(world, "demo.chain", "B"), branch="audit")
    stale = world.lake.load("demo.chain")
    audited = stale.refs()["audit"].snapshot_id
    world.lake.load("demo.chain").add_files(files(world, "demo.chain", "C"))
    chain = stale.manage_snapshots()
    if tag_first:
        chain.create_tag(audited, "v1").set_current_snapshot(ref_name="audit").commit()
        assert world.lake.load("demo.chain").scan(EqualTo("crawl", "C")).to_arrow().num_rows == 0  # lost
    else:
        with pytest.raises(CommitFailedException, match="main has changed"):
            chain.set_current_snapshot(ref_name="audit").create_tag(audited, "v1").commit()
        assert world.lake.load("demo.chain").scan(EqualTo("crawl", "C")).to_arrow().num_rows == 20


def test_trap_4_our_publication_keeps_the_assertion_when_main_moves_under_it(world, monkeypatch):
    from corpusmill.lakehouse import publish as publishing

    a, c = (world.token(crawl, "k", world.epoch(crawl)) for crawl in "AC")
    branch = world.audit(a, {"0": 5})
    branch_c = world.audit(c, {"0": 3})
    stage, interfered = publishing.stage_fast_forward, []

    def fast_forward(transaction, branch, tag):
        head = stage(transaction, branch, tag)
        if not interfered:
            interfered.append(1)
            publish(world.lake, BOOKS, branch_c, "demo/C/1", {"C": c})
        return head

    monkeypatch.setattr(publishing, "stage_fast_forward", fast_forward)
    with pytest.raises(MainMovedError):
        publish(world.lake, BOOKS, branch, "demo/A/1", {"A": a})
    assert (world.count(BOOKS, "C"), world.count(BOOKS, "A")) == (3, 0)
    assert "demo/A/1" not in world.lake.table(BOOKS).refs()


def test_trap_5_writing_to_a_branch_that_does_not_exist_makes_one_without_parent(world, plain):
    world.lake.load(plain).add_files(files(world, plain, "A"))
    world.lake.load(plain).add_files(files(world, plain, "B", n=5, shards=1), branch="fresh")
    loaded = world.lake.load(plain)
    assert loaded.snapshot_by_id(loaded.refs()["fresh"].snapshot_id).parent_snapshot_id is None
    assert count(world, plain, "fresh") == 5  # main's 20 rows are not in it

    world.publish(world.token("A", "k", world.epoch("A")), {"0": 5})
    with pytest.raises(UnknownRefError):
        world.stage(world.token("B", "k", world.epoch("B")), {"0": 4}, BOOKS, "fresh")
    branch = world.audit(world.token("B", "k", 1), {"0": 4})
    assert world.count(BOOKS, ref=branch) == 9


def test_trap_6_two_first_users_of_a_namespace_collide(world, monkeypatch):
    catalog = world.lake.catalog
    exists = type(catalog).namespace_exists
    stale = [False, False]

    def looked_before_the_rival_created_it(self, namespace):
        return stale.pop() if stale else exists(self, namespace)

    catalog.create_namespace("fresh")
    monkeypatch.setattr(type(catalog), "namespace_exists", looked_before_the_rival_created_it)
    with pytest.raises(IntegrityError):
        catalog.create_namespace_if_not_exists("fresh")

    stale[:] = [False, False]
    world.lake.init(["fresh"])
    assert world.lake.is_initialised("fresh")


def test_trap_7_the_plain_overwrites_make_two_snapshots_or_leave_old_rows(world, plain):
    loaded = world.lake.load(plain)
    loaded.add_files(files(world, plain, "A"))
    empty = world.lake.table(plain).spec.schema.empty_table()
    world.lake.load(plain).dynamic_partition_overwrite(empty)
    assert count(world, plain) == 20  # everything was dropped, and the old rows are still there
    rows = world.lake.table(plain).scan({"crawl": "A"}).slice(0, 3)
    before = len(world.lake.load(plain).snapshots())
    world.lake.load(plain).dynamic_partition_overwrite(rows)
    assert len(world.lake.load(plain).snapshots()) == before + 2

    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 5})
    world.stage(world.token("A", "k2", 1), {"0": 0})
    assert (world.count(), len(world.lake.load(NOTES).snapshots())) == (0, 2)


def test_trap_8_the_built_in_retry_takes_another_partition_for_a_conflict(world, plain):
    world.lake.load(plain).add_files(files(world, plain, "A", tag="old"))
    rivals = [stage_overwrite(world, plain, crawl, files(world, plain, crawl, tag="new")) for crawl in "AB"]
    rivals[0].commit_transaction()
    with pytest.raises(ValidationException):
        rivals[1].commit_transaction()

    a, b = (world.token(c, "k", world.epoch(c)) for c in "AB")
    interfered = []

    def change(table, transaction):
        if not interfered:
            interfered.append(world.stage(a, {"0": 4}))
        transaction.set_properties({"mine": "1"})

    assert transact(world.lake, NOTES, change)[1] == 2
    world.stage(b, {"0": 3})
    assert (world.count(crawl="A"), world.count(crawl="B")) == (4, 3)


def test_trap_9_equal_data_files_may_differ_so_manifests_are_checked_json(world):
    token = world.token("A", "k1", world.epoch("A"))
    manifest = world.shard(token, "0", 5)
    loaded = world.lake.load(NOTES)
    [one] = parquet_files_to_data_files(loaded.io, loaded.metadata, iter([manifest.files[0].path]))
    other = DataFile.from_args(
        content=one.content, file_path=one.file_path, file_format=one.file_format, partition=one.partition,
        record_count=999, file_size_in_bytes=1,
    )  # fmt: skip
    assert one == other  # equality looks at the path only

    assert ShardManifest.from_json(json.loads(json.dumps(asdict(manifest)))) == manifest
    for wrong, error in (({"rows": 999}, FilesRefusedError), ({"bytes": 1}, MissingFilesError)):
        tampered = replace(manifest, files=(replace(manifest.files[0], **wrong),))
        with pytest.raises(error):
            commit_partition(world.lake, NOTES, {"crawl": "A"}, [tampered], token, expected_shards=["0"])
    assert world.count() == 0


def test_trap_10_a_stream_cannot_be_appended_to_a_partitioned_table(world, plain):
    rows = world.rows(world.lake.table(plain).spec, 6, crawl="A")
    with pytest.raises(NotImplementedError):
        world.lake.load(plain).append(rows.to_reader())

    token = world.token("A", "k1", world.epoch("A"))
    with ShardWriter(world.lake.table(NOTES), {"crawl": "A"}, token, "0") as writer:
        for batch in rows.to_batches(max_chunksize=2):
            writer.write(pa.Table.from_batches([batch]))
        manifest = writer.finish({})
    commit_partition(world.lake, NOTES, {"crawl": "A"}, [manifest], token, expected_shards=["0"])
    assert world.count() == 6


def test_trap_11_reading_a_partitioned_folder_infers_another_type(tmp_path, worlds):
    world = worlds.World({"catalog_uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}).create()
    world.stage(world.token("2024", "k1", world.epoch("2024")), {"0": 5})
    [path] = world.lake.table(NOTES).data_files({"crawl": "2024"})
    folder = path.removeprefix("file://").split("/crawl=")[0]
    with pytest.raises(pa.ArrowTypeError, match="incompatible types"):
        pq.read_table(folder)
    assert pq.read_table(folder, partitioning=None).num_rows == 5
    assert world.lake.table(NOTES).scan({"crawl": "2024"})["crawl"].to_pylist() == ["2024"] * 5
    assert world.count(crawl="2024") == 5
    world.lake.close()


def test_trap_12_properties_alone_are_no_compare_and_set(world):
    stale = [world.lake.load(NOTES) for _ in range(2)]
    for n, table in enumerate(stale):
        with table.transaction() as transaction:
            transaction.set_properties({"epoch": f"taken by {n}"})
    assert world.lake.load(NOTES).properties["epoch"] == "taken by 1"  # both succeeded, the last one won

    attempts = []

    def change(table, transaction):
        attempts.append(table.properties.get("mine"))
        if len(attempts) == 1:
            with world.lake.load(NOTES).transaction() as rival:
                rival.set_properties({"mine": "rival"})
        transaction.set_properties({"mine": f"after {attempts[-1]}"})

    transact(world.lake, NOTES, change)
    assert attempts == [None, "rival"]
    assert world.lake.load(NOTES).properties["mine"] == "after rival"


def test_trap_12_an_epoch_is_taken_once_by_stale_rivals(world, monkeypatch):
    from corpusmill.lakehouse import epochs

    stage, taken = epochs.stage_empty_snapshot, []

    def rival_is_faster(transaction, summary):
        if not taken:
            taken.append(0)
            taken.append(take_epoch(world.lake, "demo", "A", "rival"))
        return stage(transaction, summary)

    monkeypatch.setattr(epochs, "stage_empty_snapshot", rival_is_faster)
    assert (take_epoch(world.lake, "demo", "A", "slow"), taken[1]) == (2, 1)


def test_trap_13_a_commit_to_another_branch_outdates_the_sequence_number(world, plain):
    loaded = world.lake.load(plain)
    loaded.add_files(files(world, plain, "A"))
    loaded.manage_snapshots().create_branch(loaded.current_snapshot().snapshot_id, "audit").commit()
    staged = stage_overwrite(world, plain, "B", files(world, plain, "B"))
    world.lake.load(plain).add_files(files(world, plain, "C"), branch="audit")
    with pytest.raises(ValueError, match="older than last sequence number"):
        staged.commit_transaction()  # not a conflict that any retry knows

    a, b = (world.token(c, "k", world.epoch(c)) for c in "AB")
    world.publish(a, {"0": 2})
    branch = create_audit_branch(world.lake, BOOKS, "B", 1)
    interfered = []

    def change(table, transaction):
        from corpusmill.lakehouse.transactions import stage_replacement

        if not interfered:
            interfered.append(world.stage(b, {"0": 3}, BOOKS, branch))
        return stage_replacement(transaction, [], [], {"corpusmill.stage": "test"})

    assert transact(world.lake, BOOKS, change)[1] == 2
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch)) == (2, 5)


def test_a_change_whose_files_went_with_a_newer_commit_is_tried_again_and_a_missing_file_is_told(world):
    """Upkeep may expire what a slow writer reads, once another commit has replaced it."""
    seen = []

    def change(table, transaction):
        seen.append(table.metadata_location)
        if len(seen) == 1:
            transact(world.lake, NOTES, lambda _, other: other.set_properties({"rival": "first"}))
            raise FileNotFoundError("snap-1.avro")
        transaction.set_properties({"mine": "second"})

    assert transact(world.lake, NOTES, change)[1] == 2
    assert len(set(seen)) == 2
    assert {"rival", "mine"} <= world.lake.load(NOTES).properties.keys()

    def missing(table, transaction):
        raise FileNotFoundError("snap-2.avro")

    with pytest.raises(FileNotFoundError, match=r"snap-2\.avro"):
        transact(world.lake, NOTES, missing)
