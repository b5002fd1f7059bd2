"""Eight real processes at once; rows are counted exactly."""

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NOTES, BOOKS = "demo.notes", "demo.books"


def answers(replies):
    assert all(r is not None and "answer" in r for r in replies), replies
    return [r["answer"] for r in replies]


def test_eight_processes_commit_different_partitions_and_no_row_is_lost(world, children):
    commands = [
        {
            "world": world.values,
            "do": "stage",
            "crawl": f"c{n}",
            "key": f"k{n}",
            "epoch": 1,
            "sizes": {"0": 5 + n, "1": 5},
        }
        for n in range(8)
    ]
    assert not any(a["already"] for a in answers(children.race(commands)))
    assert [world.count(crawl=f"c{n}") for n in range(8)] == [10 + n for n in range(8)]
    assert world.count() == 80 + 28


def test_eight_retries_of_one_key_make_one_commit(world, children):
    command = {"world": world.values, "do": "stage", "crawl": "A", "key": "k1", "epoch": 1, "sizes": {"0": 10, "1": 10}}
    replies = answers(children.race([command] * 8))
    assert sorted(a["already"] for a in replies) == [False] + [True] * 7
    assert len({a["snapshot_id"] for a in replies}) == 1
    assert (world.count(), len(world.lake.load(NOTES).snapshots())) == (20, 1)


def test_eight_processes_initialise_one_lakehouse(backend, children, worlds):
    answers(children.race([{"world": backend, "do": "init", "recipes": ["demo", f"r{n % 2}"]} for n in range(8)]))
    world = worlds.World(backend)
    assert all(world.lake.is_initialised(recipe) for recipe in ("demo", "r0", "r1"))
    world.create()
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 5})
    assert world.count() == 5
    world.lake.close()


def test_eight_processes_create_one_new_table(world, children):
    table = "fresh.notes"  # the namespace is new as well
    command = {"world": world.values, "do": "create_table", "table": table}
    found = answers(children.race([command] * 8))
    assert set(found) == {str(world.lake.load(table).metadata.table_uuid)}
    assert [name for *_, name in world.lake.catalog.list_tables("fresh")] == ["notes"]
    assert [field.name for field in world.lake.load(table).spec().fields] == ["crawl"]
    assert world.lake.table(table).spec == world.lake.table(NOTES).spec
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 5}, table)
    assert world.count(table) == 5


def test_eight_rivals_get_eight_epochs(world, children):
    replies = children.race(
        [{"world": world.values, "do": "take_epoch", "crawl": "A", "run_id": f"r{n}"} for n in range(8)]
    )
    assert sorted(answers(replies)) == list(range(1, 9))


def test_of_eight_runs_that_supersede_each_other_the_newest_wins(world, children):
    replies = children.race(
        [
            {"world": world.values, "do": "supersede", "crawl": "A", "key": f"k{n}", "sizes": {"0": 5 + n}}
            for n in range(8)
        ]
    )
    winner = next(n for n, r in enumerate(replies) if r.get("answer") == 8)
    assert {r["error"] for r in replies if "error" in r} <= {"SupersededError"}
    assert world.lake.table(NOTES).partition_key({"crawl": "A"}) == f"k{winner}"
    assert world.count() == 5 + winner


def test_eight_crawls_published_at_once_all_survive(world, children):
    replies = children.race(
        [
            {
                "world": world.values,
                "do": "publish",
                "crawl": f"c{n}",
                "key": f"k{n}",
                "epoch": 1,
                "sizes": {"0": 5 + n},
            }
            for n in range(8)
        ]
    )
    assert not any(a["already"] for a in answers(replies))
    assert [world.count(BOOKS, f"c{n}") for n in range(8)] == [5 + n for n in range(8)]
    refs = world.lake.table(BOOKS).refs()
    assert set(refs) == {"main", *(f"demo/c{n}/1" for n in range(8))}
    assert sorted(world.count(BOOKS, ref=ref) for ref in refs if ref != "main")[-1] == world.count(BOOKS) == 68
