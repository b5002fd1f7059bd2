"""Where compiled kernels are kept, and whether they are there; imports no numba by itself.

numba notices a changed function by its own file's time stamp only, not by that of the functions that it calls or of the
constants that it froze. The folder's name therefore holds a digest of every module that kernels are made from, wherever
the folder stands.
"""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

SOURCES = Path(__file__).resolve().parent
MADE_FROM = ("*/compiled/*.py", "rules/*.py", "dedup/*.py", "prox/piece_merging.py")
"""Modules with kernels, and those with the constants that kernels share with the Python definitions."""
LAST_COMPILED = "sentence_count.count_sentences-*.nbc"
"""The kernel that the engine of the rules compiles last: where it is kept, all of them are."""


def cache_base() -> Path:
    """Returns the folder of all versions of kernels: NUMBA_CACHE_DIR, else ``kernels`` below CORPUSMILL_HOME."""
    home = Path(os.environ.get("CORPUSMILL_HOME") or ".corpusmill")
    return Path(os.environ.get("NUMBA_CACHE_DIR") or home / "kernels").absolute()


def cache_folder() -> Path:
    """Returns where machine code of the kernels as they are now is kept: ``<digest>`` below `cache_base`."""
    return cache_base() / kernels_digest(SOURCES)


@cache
def kernels_digest(sources: Path) -> str:
    """Returns 16 hex digits of all that kernels are made from: modules, numba's version and Python's.

    Args:
        sources: The folder of this package.
    """
    digest = blake2b(f"{platform.python_version()} {_numba_version()}".encode(), digest_size=8)
    for path in sorted({path for pattern in MADE_FROM for path in sources.glob(pattern)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _numba_version() -> str:
    try:
        return version("numba")
    except PackageNotFoundError:
        return "none"


def keep_kernels() -> None:
    """Makes numba keep the kernels that are declared from now on in `cache_folder`.

    Where it cannot be written, numba keeps them beside the modules or in the user's cache folder; where these cannot be
    written either, declaring a kernel raises RuntimeError.
    """
    import numba

    numba.config.CACHE_DIR = str(cache_folder())


def rules_are_compiled() -> bool:
    """Returns whether the kernels of the rules are compiled, so that loading them takes a second and not a minute."""
    return any(cache_folder().glob(f"*/{LAST_COMPILED}"))


@contextmanager
def compiling_rules() -> Iterator[None]:
    """Lets one process of a machine compile the kernels of the rules; others wait, and load what it has made.

    Nobody waits where they are compiled, or where the folder cannot be written or locked.
    """
    lock = None if rules_are_compiled() else _held_lock(cache_folder())
    try:
        yield
    finally:
        if lock is not None:
            lock.close()


def _held_lock(folder: Path) -> BinaryIO | None:
    """Returns a file that is locked until it is closed, None where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "compiling.lock").open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        lock.close()
        return None
    return lock
