"""A folder for one download, which is gone at the end, and after a kill with the next download on the machine.

A killed task leaves up to a gigabyte behind. A lock that the kernel frees with the process tells what is left behind
from what somebody downloads now.
"""

import fcntl
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PREFIX = "download-"
LOCK = ".lock"


@contextmanager
def download_folder(scratch: Path) -> Iterator[Path]:
    """Gives a new folder and removes it at the end; first removes those whose process was killed.

    Args:
        scratch: Where the folder is made, on a disk of this machine; made itself where it is missing.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for lock in scratch.glob(f"{PREFIX}*{LOCK}"):
        _remove_if_abandoned(lock)
    with _new_lock(scratch) as held:
        folder = _folder_of(Path(held.name))
        try:
            folder.mkdir()
            yield folder
        finally:
            _remove(Path(held.name))


def _new_lock(scratch: Path) -> BinaryIO:
    """Returns a new lock file, held until it is closed."""
    while True:
        lock = scratch / f"{PREFIX}{secrets.token_hex(8)}{LOCK}"
        held = lock.open("xb")
        fcntl.flock(held, fcntl.LOCK_EX)
        if lock.exists():  # else a neighbour locked it a moment earlier and took it for abandoned
            return held
        held.close()


def _remove_if_abandoned(lock: Path) -> None:
    try:
        held = lock.open("rb")
    except FileNotFoundError:  # its owner has just ended
        return
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(lock)


def _remove(lock: Path) -> None:
    shutil.rmtree(_folder_of(lock), ignore_errors=True)
    lock.unlink(missing_ok=True)


def _folder_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(LOCK))
