"""Where compiled kernels are kept, and whether they are there; imports no numba.

numba notices a changed function by its own file's time stamp only, not by that of the functions that it calls. The
folder's name therefore holds a digest of every module with kernels, those of deduplication too: they call each other's.
"""

import hashlib
import os
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
LAST_COMPILED = "fineweb_kernel.measure_fineweb-*.nbc"
"""A kernel of the module that the engine of the rules imports last but for the ones that it shares."""


def cache_folder() -> Path:
    """Returns where machine code is kept: ``kernels/<digest>`` below CORPUSMILL_HOME (else ``.corpusmill``)."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(SOURCES.glob("*/compiled/*.py")):
        digest.update(path.read_bytes())
    home = Path(os.environ.get("CORPUSMILL_HOME") or ".corpusmill").absolute()
    return home / "kernels" / digest.hexdigest()


def rules_are_compiled() -> bool:
    """Returns whether the kernels of the rules are compiled, so that loading them takes a second and not a minute."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or cache_folder())
    return any(folder.glob(f"*/{LAST_COMPILED}"))
