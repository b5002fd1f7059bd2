"""Write, audit, publish: readers see a whole publication or none, and two publications never lose each other."""

import pytest

from corpusmill.errors import CommitConflict, SupersededError, Transient
from corpusmill.lakehouse import publish as publishing
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.maintenance import compact_partition
from corpusmill.lakehouse.publish import (
    BranchRefusedError,
    MainMovedError,
    create_audit_branch,
    drop_audit_branch,
    publish,
    rebase_audit_branch,
)
from corpusmill.lakehouse.table import UnknownRefError

pytestmark = pytest.mark.integration

BOOKS = "demo.books"


def test_a_publication_appears_at_once_with_its_tag_and_keys(world):
    token = world.token("A", "k1", world.epoch("A"))
    branch = world.audit(token, {"0": 5, "1": 2})
    table = world.lake.table(BOOKS)
    assert branch == "audit_A_1"
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch)) == (0, 7)
    assert table.partition_key({"crawl": "A"}) is None
    result = publish(world.lake, BOOKS, branch, "demo/A/1", {"A": token})
    table = world.lake.table(BOOKS)
    assert table.refs() == {"main": result.snapshot_id, "demo/A/1": result.snapshot_id}
    assert (table.partition_key({"crawl": "A"}), table.partition_epoch({"crawl": "A"}), result.rows) == (
        "k1",
        1,
        {"A": 7},
    )
    assert world.count(BOOKS) == world.count(BOOKS, ref="demo/A/1") == 7
    assert not [name for name in world.lake.load(BOOKS).properties if name.startswith("corpusmill.branch.")]


def test_publishing_the_same_key_twice_is_a_no_op_that_keeps_the_first_tag(world):
    token = world.token("A", "k1", world.epoch("A"))
    first = world.publish(token, {"0": 5})
    before = world.lake.load(BOOKS).metadata_location
    again = publish(world.lake, BOOKS, "audit_A_1", "demo/A/1", {"A": token})
    assert (again.already, again.snapshot_id, again.tag) == (True, first.snapshot_id, "demo/A/1")
    assert world.lake.load(BOOKS).metadata_location == before
    later = world.token("A", "k1", world.epoch("A"))
    branch = world.audit(later, {"0": 5})
    third = publish(world.lake, BOOKS, branch, "demo/A/2", {"A": later})
    assert (third.already, third.tag) == (True, "demo/A/1")
    table = world.lake.table(BOOKS)
    assert set(table.refs()) == {"main", "demo/A/1"}
    assert table.snapshot_id() == first.snapshot_id


def test_a_failed_audit_leaves_main_and_keeps_the_branch_for_inspection(world):
    world.publish(world.token("A", "k1", world.epoch("A")), {"0": 5})
    head = world.lake.table(BOOKS).snapshot_id()
    branch = world.audit(world.token("B", "bad", world.epoch("B")), {"0": 3})
    assert (world.count(BOOKS), world.lake.table(BOOKS).snapshot_id()) == (5, head)
    assert world.lake.table(BOOKS).scan({"crawl": "B"}, columns=["text"], ref=branch).num_rows == 3
    assert drop_audit_branch(world.lake, BOOKS, branch)
    assert not drop_audit_branch(world.lake, BOOKS, branch)
    assert set(world.lake.table(BOOKS).refs()) == {"main", "demo/A/1"}
    with pytest.raises(UnknownRefError, match="no branch or tag 'audit_B_1'"):
        world.lake.table(BOOKS).count(None, ref=branch)


def test_publishing_is_refused_when_main_has_moved_and_succeeds_after_a_rebase(world):
    a, b = (world.token(c, f"k{c}", world.epoch(c)) for c in "AB")
    branch_a, branch_b = world.audit(a, {"0": 5}), world.audit(b, {"0": 3, "1": 1})
    publish(world.lake, BOOKS, branch_a, "demo/A/1", {"A": a})
    with pytest.raises(MainMovedError) as refused:
        publish(world.lake, BOOKS, branch_b, "demo/B/1", {"B": b})
    assert isinstance(refused.value, CommitConflict)
    assert isinstance(refused.value, Transient)
    assert world.count(BOOKS) == 5
    rebase_audit_branch(world.lake, BOOKS, branch_b)
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch_b)) == (5, 9)
    publish(world.lake, BOOKS, branch_b, "demo/B/1", {"B": b})
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (5, 4)
    assert world.count(BOOKS, ref="demo/A/1") == 5


def test_compaction_of_main_only_asks_for_a_rebase(world):
    world.publish(world.token("A", "k1", world.epoch("A")), {"0": 5, "1": 5})
    b = world.token("B", "kb", world.epoch("B"))
    branch = world.audit(b, {"0": 3})
    compact_partition(world.lake, BOOKS, {"crawl": "A"})
    with pytest.raises(MainMovedError):
        publish(world.lake, BOOKS, branch, "demo/B/1", {"B": b})
    world.publish(b, {"0": 3})
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B")) == (10, 3)
    assert len(world.lake.table(BOOKS).data_files({"crawl": "A"})) == 1


def test_a_backfilled_crawl_and_its_retractions_appear_together(world):
    newer = world.token("B", "b1", world.epoch("B"))
    world.publish(newer, {"0": 6})
    older = world.token("A", "a1", world.epoch("A"))
    retracted = world.token("B", "b2", newer.epoch)
    branch = world.audit(older, {"0": 4})
    world.stage(retracted, {"0": 2}, BOOKS, branch)
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch)) == (6, 6)
    publish(world.lake, BOOKS, branch, "demo/A/1", {"A": older, "B": retracted})
    assert (world.count(BOOKS, "A"), world.count(BOOKS, "B"), world.count(BOOKS, ref="demo/B/1")) == (4, 2, 6)
    table = world.lake.table(BOOKS)
    assert [table.partition_key({"crawl": c}) for c in "AB"] == ["a1", "b2"]


def test_a_retraction_is_not_rebased_over_newer_content_of_that_crawl(world):
    newer = world.token("B", "b1", world.epoch("B"))
    world.publish(newer, {"0": 6})
    branch = world.audit(world.token("A", "a1", world.epoch("A")), {"0": 4})
    world.stage(world.token("B", "b2", newer.epoch), {"0": 2}, BOOKS, branch)
    world.publish(world.token("B", "b3", world.epoch("B")), {"0": 9})
    with pytest.raises(BranchRefusedError, match=r"\['B'\] changed"):
        rebase_audit_branch(world.lake, BOOKS, branch)
    assert (world.count(BOOKS), world.count(BOOKS, ref=branch)) == (9, 6)


def test_a_run_of_the_newer_crawl_that_is_under_way_does_not_stop_a_retraction(world):
    newer = world.token("B", "b1", world.epoch("B"))
    world.publish(newer, {"0": 6})
    older = world.token("A", "a1", world.epoch("A"))
    branch = world.audit(older, {"0": 4})
    world.epoch("B", "under way")
    retracted = world.token("B", "b2", newer.epoch)
    world.stage(retracted, {"0": 2}, BOOKS, branch)
    publish(world.lake, BOOKS, branch, "demo/A/1", {"A": older, "B": retracted})
    assert world.count(BOOKS) == 6


def test_a_superseded_run_neither_commits_to_its_branch_nor_publishes(world):
    old = world.token("A", "old", world.epoch("A", "first"), "first")
    branch = world.audit(old, {"0": 5})
    world.epoch("A", "second")
    with pytest.raises(SupersededError, match="'second'"):
        publish(world.lake, BOOKS, branch, "demo/A/1", {"A": old})
    with pytest.raises(SupersededError, match="'second'"):
        world.stage(world.token("A", "old2", old.epoch), {"0": 5}, BOOKS, branch)
    assert world.count(BOOKS) == 0


def test_a_zombie_publication_after_the_newer_one_is_refused(world, monkeypatch):
    old = world.token("A", "old", world.epoch("A", "first"), "first")
    branch = world.audit(old, {"0": 5})
    world.publish(world.token("A", "new", world.epoch("A", "second"), "second"), {"0": 3})
    monkeypatch.setattr(publishing, "check_epoch", lambda *_: None)
    with pytest.raises(SupersededError, match="'second'"):
        publish(world.lake, BOOKS, branch, "demo/A/1", {"A": old})
    assert world.count(BOOKS) == 3


def test_a_branch_is_published_only_with_exactly_its_commits(world):
    a = world.token("A", "k1", world.epoch("A"))
    branch = world.audit(a, {"0": 5})
    b = world.token("B", "kb", world.epoch("B"))
    for tokens in ({"A": world.token("A", "k2", a.epoch)}, {"A": a, "B": b}, {"B": b}):
        with pytest.raises(BranchRefusedError, match="holds commits"):
            publish(world.lake, BOOKS, branch, "demo/A/1", tokens)
    with pytest.raises(UnknownRefError, match="audit_X_1"):
        publish(world.lake, BOOKS, "audit_X_1", "demo/A/1", {"A": a})
    assert world.count(BOOKS) == 0


def test_a_commit_to_a_branch_that_does_not_exist_is_refused(world):
    token = world.token("A", "k1", world.epoch("A"))
    with pytest.raises(UnknownRefError, match="create_audit_branch"):
        commit_partition(world.lake, BOOKS, {"crawl": "A"}, [], token, branch="audit_A_1")
    assert world.lake.table(BOOKS).refs() == {}


def test_an_audit_branch_stands_on_mains_head_even_on_an_empty_table(world):
    branch = create_audit_branch(world.lake, BOOKS, "A", 1)
    table = world.lake.table(BOOKS)
    assert table.snapshot_id(branch) == table.snapshot_id() is not None
    assert create_audit_branch(world.lake, BOOKS, "A", 1) == branch
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 1}, BOOKS, branch)
    with pytest.raises(BranchRefusedError, match="drop_audit_branch"):
        create_audit_branch(world.lake, BOOKS, "A", 1)


def test_the_last_commit_of_a_partition_on_a_branch_counts(world):
    epoch = world.epoch("A")
    tokens = [world.token("A", key, epoch) for key in ("k1", "k2", "k1")]
    branch = create_audit_branch(world.lake, BOOKS, "A", epoch)
    for token, n in zip(tokens, (5, 3, 5), strict=True):
        assert not world.stage(token, {"0": n}, BOOKS, branch).already
    assert world.stage(tokens[2], {"0": 5}, BOOKS, branch).already
    publish(world.lake, BOOKS, branch, "demo/A/1", {"A": tokens[2]})
    assert world.count(BOOKS) == 5
