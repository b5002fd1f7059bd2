"""kill -9 of a real process at every step of the protocol; a retry then ends with exact row counts."""

import pytest

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
