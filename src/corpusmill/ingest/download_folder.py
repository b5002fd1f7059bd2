"""A folder for one download, which is gone at the end, and after a kill with the next download on the machine.

A killed task leaves up to a gigabyte behind. A lock that the kernel frees with the process tells what is left behind
from what somebody downloads now. The folders of several machines may stand side by side on a shared disk. A lock may
be known on one machine only, so its name holds that of its host, and each host cleans up behind itself; what a host
that never comes back has left is removed by hand, or with the volume.
"""

import fcntl
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PREFIX = "download-"
LOCK = ".lock"


@contextmanager
def download_folder(scratch: Path) -> Iterator[Path]:
    """Gives a new folder and removes it at the end; first removes those of this host whose process was killed.

    Args:
        scratch: Where the folder is made, perhaps on a disk that machines of different names share; made itself where
            it is missing.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for lock in scratch.glob(f"{PREFIX}*{_host()}{LOCK}"):
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
        lock = scratch / f"{PREFIX}{secrets.token_hex(8)}{_host()}{LOCK}"
        held = lock.open("xb")
        fcntl.flock(held, fcntl.LOCK_EX)
        if lock.exists():  # else a neighbour locked it a moment earlier and took it for abandoned
            return held
        held.close()


def _host() -> str:
    """Returns the end of the names that belong to this host; no name of another host ends so."""
    return "@" + re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())


def _remove_if_abandoned(lock: Path) -> None:
    # its owner has just ended (no file), works on (BlockingIOError), or is another user: not ours to remove
    with suppress(OSError), lock.open("r+b") as held:  # to write: NFS gives nobody else an exclusive lock
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(lock)


def _remove(lock: Path) -> None:
    """Removes a folder and then its lock; where something of the folder stays, the lock stays for the next download."""
    folder = _folder_of(lock)
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        with suppress(OSError):
            lock.unlink()


def _folder_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(LOCK))
