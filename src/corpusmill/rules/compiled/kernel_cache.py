"""How kernels are compiled: once per installation, into a folder below CORPUSMILL_HOME.

numba notices a changed function by its own file's time stamp only, not by that of the functions that it calls. The
folder's name therefore holds a digest of every module with kernels, those of deduplication too: they call each other's.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

SOURCES = Path(__file__).resolve().parents[2]


def cache_folder() -> Path:
    """Returns where machine code is kept: ``kernels/<digest>`` below CORPUSMILL_HOME (else ``.corpusmill``)."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(SOURCES.glob("*/compiled/*.py")):
        digest.update(path.read_bytes())
    home = Path(os.environ.get("CORPUSMILL_HOME") or ".corpusmill").absolute()
    return home / "kernels" / digest.hexdigest()


# Set before the first kernel is declared. Where the folder cannot be written, numba takes the user's cache folder.
if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(cache_folder())

BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
"""Type of input bytes: Arrow's buffers are read-only, and writable arrays convert to it without a second compile."""

signed: Any = np.int64
"""Signed numbers in kernels; untyped, because the type checker knows them as Python integers elsewhere."""


def part(function: Function) -> Function:
    """Marks a function that only kernels call; it is compiled into each of them."""
    made: Function = numba.njit(function)
    return made


def kernel(*signature: Any) -> Callable[[Function], Function]:
    """Returns a decorator that compiles for exactly these argument types, now or from the cache."""

    def compile_it(function: Function) -> Function:
        made: Function = numba.njit(tuple(signature), cache=True, nogil=True)(function)
        return made

    return compile_it
