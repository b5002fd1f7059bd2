"""The cache of refiner outputs: races, kills, damage, bounds."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from corpusmill.modeling.output_cache import SqliteOutputCache


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def value(n: int) -> str:
    return f'{{"output": "remove_lines(start={n}, end={n})", "note": "{"x" * (n % 50)}"}}'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "programs.sqlite"


def test_what_is_stored_is_found_by_another_opening_of_the_file(path):
    with SqliteOutputCache(path) as cache:
        assert cache.find([key(1)]) == {}
        cache.store({key(n): value(n) for n in range(1200)})
    with SqliteOutputCache(path) as cache:
        assert cache.find([key(n) for n in range(1300)]) == {key(n): value(n) for n in range(1200)}


WRITE_AND_READ = """
import sys
from pathlib import Path
from corpusmill.modeling.output_cache import SqliteOutputCache
first = int(sys.argv[2])
with SqliteOutputCache(Path(sys.argv[1])) as cache:
    for n in range(first, first + 200, 10):
        mine = {m.to_bytes(16, "big"): str(m) * 50 for m in range(n, n + 10)}
        cache.store(mine)
        assert cache.find(list(mine)) == mine, n
"""


def test_processes_that_write_at_the_same_time_lose_nothing(path):
    commands = [[sys.executable, "-c", WRITE_AND_READ, str(path), str(first)] for first in (0, 0, 100, 1000)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    assert [(worker.communicate()[1], worker.returncode) for worker in workers] == [("", 0)] * 4
    with SqliteOutputCache(path) as cache:
        wanted = [*range(300), *range(1000, 1200)]
        assert cache.find([key(n) for n in wanted]) == {key(n): str(n) * 50 for n in wanted}


WRITER = """
import sys
from pathlib import Path
from corpusmill.modeling.output_cache import SqliteOutputCache
cache = SqliteOutputCache(Path(sys.argv[1]))
for n in range(10 ** 6):
    cache.store({n.to_bytes(16, "big"): str(n) * 100})
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_file_with_all_it_had_stored(path):
    command = [sys.executable, "-c", WRITER, str(path)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stored = next(int(line) for line in process.stdout if int(line) >= 30)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        with SqliteOutputCache(path) as cache:
            found = cache.find([key(n) for n in range(stored + 1)])
        assert found == {key(n): str(n) * 100 for n in range(stored + 1)}
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("rubbish", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_moved_aside_and_rebuilt(path, rubbish):
    path.parent.mkdir()
    path.write_bytes(rubbish)
    with SqliteOutputCache(path) as cache:
        assert cache.find([key(1)]) == {}
        cache.store({key(1): value(1)})
        assert cache.find([key(1)]) == {key(1): value(1)}
    damaged = path.with_name(path.name + ".damaged")
    assert (damaged.read_bytes() if damaged.exists() else b"") == rubbish


def test_pages_damaged_in_the_middle_cost_hits_and_no_error(path):
    with SqliteOutputCache(path) as cache:
        cache.store({key(n): value(n) for n in range(3000)})
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = os.urandom(3 * len(data) // 4 - len(data) // 4)
    path.write_bytes(data)
    with SqliteOutputCache(path) as cache:
        found = cache.find([key(n) for n in range(3000)])
        assert all(found[k] == value(int.from_bytes(k, "big")) for k in found)
        assert len(found) < 3000
        cache.store({key(9): value(9)})
        assert cache.find([key(9)]) == {key(9): value(9)}


def test_a_damaged_file_that_another_task_has_open_is_left_to_it(path, caplog):
    with SqliteOutputCache(path) as first, SqliteOutputCache(path) as second:
        first.store({key(1): value(1)})
        sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.write_bytes(b"rubbish" * 1000)
        assert second.find([key(1)]) == {}
        second.store({key(2): value(2)})
        assert "does not serve" in caplog.text
        assert path.read_bytes().startswith(b"rubbish")
    with SqliteOutputCache(path) as third:
        assert third.find([key(1)]) == {}
        third.store({key(3): value(3)})
        assert third.find([key(3)]) == {key(3): value(3)}


@pytest.mark.parametrize(
    "change", ['value = CAST(\'{"output": "drop_doc()"}\' AS BLOB)', "value = x'ff00'", "value = 'text'"]
)
def test_a_poisoned_entry_is_no_hit_and_is_thrown_away(path, change, caplog):
    with SqliteOutputCache(path) as cache:
        cache.store({key(1): value(1), key(2): value(2)})
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(f"UPDATE outputs SET {change} WHERE key = ?", (key(1),))
        assert cache.find([key(1), key(2)]) == {key(2): value(2)}
        assert "1 damaged entries" in caplog.text
        assert other.execute("SELECT count(*) FROM outputs").fetchone() == (1,)


def test_an_entry_under_another_key_is_no_hit(path):
    with SqliteOutputCache(path) as cache:
        cache.store({key(1): value(1)})
        sqlite3.connect(path, isolation_level=None).execute("UPDATE outputs SET key = ?", (key(2),))
        assert cache.find([key(2)]) == {}


def test_a_full_file_forgets_the_least_recently_used_entries_and_stops_growing(path):
    limit = 400_000
    with SqliteOutputCache(path, limit) as cache:
        cache.store({key(n): value(n) for n in range(50)})
    sizes = []
    for session in range(1, 60):
        with SqliteOutputCache(path, limit) as cache:
            assert len(cache.find([key(n) for n in range(50)])) == 50, "entries in use were evicted"
            cache.store({key(1000 * session + n): value(n) for n in range(100)})
        sizes.append(path.stat().st_size)
    assert max(sizes) < 1.2 * limit
    with SqliteOutputCache(path, limit) as cache:
        assert cache.find([key(1000)]) == {}
        assert len(cache.find([key(59_000 + n) for n in range(100)])) == 100


def test_a_place_that_cannot_be_written_costs_hits_and_no_error(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with SqliteOutputCache(tmp_path / "cache" / "programs.sqlite") as cache:
        cache.store({key(1): value(1)})
        assert cache.find([key(1)]) == {}
    assert caplog.text.count("does not serve") == 1
