"""kill -9 of a real process at every step of the protocol; a retry then ends with exact row counts."""

import datetime as dt

import pytest

from corpusmill.errors import SupersededError
from corpusmill.lakehouse.epochs import current_epoch
from corpusmill.lakehouse.maintenance import expire_manifests, expire_snapshots, remove_orphans
from corpusmill.lakehouse.publish import create_audit_branch, publish
from corpusmill.lakehouse.storage import list_files

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SIZES = {"0": 13, "1": 9, "2": 11}
NOTES, BOOKS = "demo.notes", "demo.books"
KILLED = -9


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        ("mid data write", 4),
        ("after data file, before manifest", 4),
        ("after manifest", 4),
        ("between metadata write and catalog swap", 4),
        ("right after swap", 33),
    ],
)
def test_a_stage_killed_at_a_step_is_whole_or_absent_and_its_retry_is_exact(world, children, step, visible):
    world.stage(world.token("A", "before", world.epoch("A")), {"0": 4})
    world.stage(world.token("B", "other", world.epoch("B")), {"0": 6})
    command = {
        "world": world.values,
        "do": "stage",
        "crawl": "A",
        "key": "k1",
        "epoch": world.epoch("A"),
        "sizes": SIZES,
    }
    assert children.kill(command | {"die": step}) == KILLED
    assert (world.count(crawl="A"), world.count(crawl="B")) == (visible, 6)
    reply = children.ask(command)
    assert reply["answer"]["already"] is (step == "right after swap"), reply
    assert (world.count(crawl="A"), world.count(crawl="B")) == (33, 6)
    assert world.lake.table(NOTES).partition_key({"crawl": "A"}) == "k1"
    assert len(world.lake.load(NOTES).snapshots()) == 3


@pytest.mark.parametrize(
    ("step", "visible"),
    [("between audit commit and publish", 4), ("publish before swap", 4), ("publish after swap", 33)],
)
def test_a_publication_killed_at_a_step_is_whole_or_absent_and_its_retry_is_exact(world, children, step, visible):
    world.publish(world.token("A", "before", world.epoch("A")), {"0": 4})
    world.publish(world.token("B", "other", world.epoch("B")), {"0": 6})
    command = {
        "world": world.values,
        "do": "publish",
        "crawl": "A",
        "key": "k1",
        "epoch": world.epoch("A"),
        "sizes": SIZES,
    }
    assert children.kill(command | {"die": step}) == KILLED
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (visible, 6)
    assert ("demo/A/2" in world.lake.table(BOOKS).refs()) is (visible == 33)
    reply = children.ask(command)
    assert reply["answer"]["already"] is (step == "publish after swap"), reply
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (33, 6)
    table = world.lake.table(BOOKS)
    assert table.refs()["demo/A/2"] == table.snapshot_id()
    assert not [ref for ref in table.refs() if ref.startswith("audit_")]


SWAP = ("before swap", "after swap")


@pytest.mark.parametrize("step", SWAP)
def test_a_run_killed_while_it_takes_its_epoch_takes_a_higher_one(world, children, step):
    assert world.epoch("A", "older") == 1
    command = {"world": world.values, "do": "take_epoch", "crawl": "A", "run_id": "killed"}
    assert children.kill(command | {"die": step}) == KILLED
    held = (2, "killed") if step == "after swap" else (1, "older")
    assert current_epoch(world.lake, "demo", "A") == held
    epoch = children.ask(command)["answer"]
    assert epoch == held[0] + 1
    with pytest.raises(SupersededError, match="'killed'"):
        world.stage(world.token("A", "old", 1, "older"), {"0": 4})
    world.stage(world.token("A", "k1", epoch, "killed"), SIZES)
    assert (world.count(), world.epoch("B")) == (33, 1)


@pytest.mark.parametrize("step", SWAP)
@pytest.mark.parametrize("rows", [0, 4], ids=["empty table", "table with rows"])
def test_an_audit_branch_killed_at_its_creation_is_made_once(world, children, rows, step):
    if rows:
        world.publish(world.token("B", "before", world.epoch("B")), {"0": rows})
    refs, n_before = world.lake.table(BOOKS).refs(), len(world.lake.load(BOOKS).snapshots())
    epoch = world.epoch("A")
    command = {"world": world.values, "do": "create_audit_branch", "crawl": "A", "epoch": epoch}
    assert children.kill(command | {"die": step}) == KILLED
    assert ("audit_A_1" in world.lake.table(BOOKS).refs()) is (step == "after swap")
    assert children.ask(command)["answer"] == "audit_A_1"
    table = world.lake.table(BOOKS)
    assert table.refs() == {"main": table.snapshot_id(), **refs, "audit_A_1": table.snapshot_id()}
    assert len(world.lake.load(BOOKS).snapshots()) == max(1, n_before)  # an empty table gets one base snapshot
    world.publish(world.token("A", "k1", epoch), SIZES)
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (33, rows)


@pytest.mark.parametrize("step", SWAP)
def test_a_commit_to_an_audit_branch_killed_at_a_step_is_whole_or_absent(world, children, step):
    world.publish(world.token("A", "before", world.epoch("A")), {"0": 4})
    epoch = world.epoch("A")
    branch = create_audit_branch(world.lake, BOOKS, "A", epoch)
    command = {
        "world": world.values, "do": "stage", "crawl": "A", "key": "k1", "epoch": epoch, "sizes": SIZES,
        "table": BOOKS, "branch": branch,
    }  # fmt: skip
    n_before = len(world.lake.load(BOOKS).snapshots())
    assert children.kill(command | {"die": step}) == KILLED
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch)) == (4, 33 if step == "after swap" else 4)
    reply = children.ask(command)
    assert reply["answer"]["already"] is (step == "after swap"), reply
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch)) == (4, 33)
    assert len(world.lake.load(BOOKS).snapshots()) == n_before + 1
    publish(world.lake, BOOKS, branch, "demo/A/2", {"A": world.token("A", "k1", epoch)})
    assert world.count(BOOKS) == 33


@pytest.mark.parametrize("step", SWAP)
def test_a_rebase_killed_at_a_step_is_repeated_and_publishes_exact_rows(world, children, step):
    world.publish(world.token("A", "before", world.epoch("A")), {"0": 4})
    token = world.token("A", "k1", world.epoch("A"))
    branch = world.audit(token, SIZES)
    world.publish(world.token("B", "other", world.epoch("B")), {"0": 6})
    command = {"world": world.values, "do": "rebase_audit_branch", "branch": branch}
    assert children.kill(command | {"die": step}) == KILLED
    on_branch = {"before swap": (33, 0), "after swap": (33, 6)}[step]
    assert tuple(world.count(BOOKS, crawl, branch) for crawl in "AB") == on_branch
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (4, 6)
    assert children.ask(command)["answer"] == branch
    assert tuple(world.count(BOOKS, crawl, branch) for crawl in "AB") == (33, 6)
    publish(world.lake, BOOKS, branch, "demo/A/2", {"A": token})
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (33, 6)


@pytest.mark.parametrize("step", ["mid data write", *SWAP])
def test_a_compaction_killed_at_a_step_changes_no_row_key_or_epoch(world, children, step):
    world.stage(world.token("A", "k1", world.epoch("A")), SIZES)
    world.stage(world.token("B", "other", world.epoch("B")), {"0": 6})
    partition = {"crawl": "A"}
    table = world.lake.table(NOTES)
    rows, state = table.scan(partition).sort_by("doc_id"), table.partition_state(partition)
    command = {"world": world.values, "do": "compact", "crawl": "A"}
    assert children.kill(command | {"die": step}) == KILLED
    n_files = 1 if step == "after swap" else 3
    assert (world.count(crawl="A"), len(world.lake.table(NOTES).data_files(partition))) == (33, n_files)
    reply = children.ask(command)["answer"]
    assert (reply["files_before"], reply["files_after"]) == (n_files, 1)
    table = world.lake.table(NOTES)
    assert table.scan(partition).sort_by("doc_id").equals(rows)
    assert table.partition_state(partition) == state
    assert (world.count(crawl="B"), len(world.lake.load(NOTES).snapshots())) == (6, 3)
    expire_snapshots(world.lake, NOTES, dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5))
    expire_manifests(world.lake, NOTES, days=-1)  # as long as they are there, a run may come back for their files
    remove_orphans(world.lake, NOTES, dt.timedelta(0), force=True)  # what the killed process left behind goes as well
    left = {f.location for f in list_files(world.lake.io, f"{table.location}/data")}
    assert left == set(world.lake.table(NOTES).data_files(None))
    assert (len(left), world.count()) == (2, 39)


@pytest.mark.parametrize("step", ["before the first deletion", "after the first deletion"])
def test_an_orphan_removal_killed_at_a_step_leaves_the_rest_to_its_retry(world, children, step):
    epoch = world.epoch("A")
    for key in ("k1", "k2"):
        world.stage(world.token("A", key, epoch), SIZES)
    expire_snapshots(world.lake, NOTES, dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5))
    expire_manifests(world.lake, NOTES, days=-1)

    def files() -> set[str]:
        return {f.location for f in list_files(world.lake.io, world.lake.table(NOTES).location)}

    before, n_deleted = files(), int(step == "after the first deletion")
    command = {"world": world.values, "do": "remove_orphans"}
    assert children.kill(command | {"die": step}) == KILLED
    gone = before - files()
    assert (len(gone), world.count()) == (n_deleted, 33)
    removed = set(children.ask(command)["answer"])
    assert removed & gone == set()
    assert before - files() == removed | gone
    assert len([f for f in removed | gone if f.endswith(".parquet")]) == 3
    assert set(world.lake.table(NOTES).data_files(None)) <= files()
    assert world.count() == 33
    assert children.ask(command)["answer"] == []
