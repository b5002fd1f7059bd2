"""Upkeep beside real processes that commit and publish: nothing of theirs is lost, and every tag stays readable."""

import contextlib
import datetime as dt
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from corpusmill.errors import CommitConflict
from corpusmill.lakehouse.maintenance import compact_partition, expire_manifests, expire_snapshots, remove_orphans

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NOTES, BOOKS = "demo.notes", "demo.books"
ROUNDS = 5
GRACE = dt.timedelta(minutes=30)
LONG_AGO = dt.timedelta(hours=1)


@pytest.fixture
def world(tmp_path, worlds):
    """A lakehouse in a folder, where files can be made to look old."""
    made = worlds.World(
        {"catalog_uri": f"sqlite:///{tmp_path}/home/catalog.db", "warehouse": f"file://{tmp_path}/home/warehouse"}
    ).create()
    yield made
    made.lake.close()


def age(world, folder):
    """Makes every file that is there now look an hour old: what is written from here on is in flight."""
    then = (dt.datetime.now() - LONG_AGO).timestamp()
    for path in (Path(urlsplit(world.settings.warehouse).path) / folder).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def upkeep(world, table):
    """One pass over a table with ages under which everything that no run relies on goes."""
    n_compacted = 0
    for partition in world.lake.table(table).partitions():
        with contextlib.suppress(CommitConflict):  # the partition is being replaced at this moment
            n_compacted += compact_partition(world.lake, table, partition).snapshot_id is not None
    n_expired = expire_snapshots(world.lake, table, dt.datetime.now(dt.UTC))
    n_removed = len(remove_orphans(world.lake, table, GRACE, force=True))
    n_manifests = len(expire_manifests(world.lake, table, GRACE / dt.timedelta(days=1)))
    return n_compacted, n_expired, n_removed, n_manifests


def test_upkeep_beside_processes_that_commit_and_publish_loses_nothing(world, children):
    passes = []
    for round_ in range(1, ROUNDS + 1):
        age(world, "")
        work = [("stage", f"n{n}", {"0": 3 + n, "1": round_}) for n in range(4)]
        work += [("publish", f"p{n}", {"0": 4 + n + round_, "1": 2}) for n in range(4)]
        for child, (do, crawl, sizes) in zip(children.ready, work, strict=True):
            command = {"do": do, "crawl": crawl, "key": f"k{round_}", "epoch": round_, "sizes": sizes}
            child.connection.send({"world": world.values, **command})
        passes += [upkeep(world, table) for _ in range(2) for table in (NOTES, BOOKS)]
        replies = [child.receive() for child in children.ready]
        assert all(reply is not None and "answer" in reply for reply in replies), replies
    assert all(sum(done) > 0 for done in zip(*passes, strict=True)), f"some step never had anything to do: {passes}"

    assert [world.count(crawl=f"n{n}") for n in range(4)] == [3 + n + ROUNDS for n in range(4)]
    assert [world.count(BOOKS, f"p{n}") for n in range(4)] == [6 + n + ROUNDS for n in range(4)]
    tags = {ref for ref in world.lake.table(BOOKS).refs() if ref != "main"}
    assert tags == {f"demo/p{n}/{epoch}" for n in range(4) for epoch in range(1, ROUNDS + 1)}
    for n in range(4):
        for epoch in range(1, ROUNDS + 1):
            assert world.count(BOOKS, f"p{n}", f"demo/p{n}/{epoch}") == 6 + n + epoch
