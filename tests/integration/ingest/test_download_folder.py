"""What a killed download leaves on the disk goes with the next one, and what others download at that moment stays."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from corpusmill.ingest.download_folder import download_folder

pytestmark = pytest.mark.integration

DOWNLOAD = """
import sys
from pathlib import Path
from corpusmill.ingest.download_folder import download_folder
with download_folder(Path(sys.argv[1])) as place:
    (place / "a.warc.gz").write_bytes(bytes(1000))
    print(place, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def begin():
    """Starts a process that downloads until a line reaches it; returns it with its folder."""
    started = []

    def begin(scratch):
        command = [sys.executable, "-c", DOWNLOAD, str(scratch)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_download_is_removed_by_the_next_one_and_a_running_one_stays(tmp_path, begin):
    killed, left = begin(tmp_path / "scratch")
    running, used = begin(tmp_path / "scratch")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert os.listdir(left) == ["a.warc.gz"]
    with download_folder(tmp_path / "scratch") as mine:
        assert not os.path.exists(left)
        assert os.listdir(used) == ["a.warc.gz"]
        assert mine.is_dir()
    running.communicate("\n")
    assert running.returncode == 0
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_another_host_or_user_holds_stays_and_stops_no_download(tmp_path):
    with download_folder(tmp_path) as place:
        mine = place.name
    host = mine.partition("@")[2]
    elsewhere = tmp_path / mine.replace(host, f"not-{host}")
    elsewhere.mkdir()
    (elsewhere / "a.warc.gz").write_bytes(b"being written on another machine")
    elsewhere.with_name(f"{elsewhere.name}.lock").touch()
    (tmp_path / f"{mine}.lock").mkdir()  # as little to be opened as another user's file
    with download_folder(tmp_path) as place:
        (place / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [elsewhere.name, f"{elsewhere.name}.lock", f"{mine}.lock"]
    )
    assert os.listdir(elsewhere) == ["a.warc.gz"]


def test_a_lock_stays_while_something_stays_of_what_it_is_for(tmp_path):
    with download_folder(tmp_path) as place:
        name = place.name
    (tmp_path / name).touch()  # a file, so that removing the folder fails
    (tmp_path / f"{name}.lock").touch()
    with download_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name}.lock"]


def test_many_that_begin_and_end_together_keep_their_folders(tmp_path):
    def download(number):
        for turn in range(40):
            with download_folder(tmp_path) as place:
                (place / "file").write_text(f"{number}.{turn}")
                assert (place / "file").read_text() == f"{number}.{turn}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(download, range(8)))
    assert list(tmp_path.iterdir()) == []
