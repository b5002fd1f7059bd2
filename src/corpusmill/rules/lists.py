"""Word, domain and URL lists read from files that the settings name."""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corpusmill.errors import ConfigError
from corpusmill.rules.config import ListFile

Hashes = npt.NDArray[np.uint64]


def checked_path(file: ListFile, what: str) -> Path:
    """Returns the file's path after checking that it exists and has the digest that the settings give.

    Raises:
        ConfigError: The file is absent or has another SHA-256.
    """
    path = Path(file.path)
    if not path.is_file():
        raise ConfigError(f"{what}: file {file.path!r} does not exist; give an absolute path that workers can read")
    if file.sha256 is not None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.sha256.lower():
            raise ConfigError(
                f"{what}: file {file.path!r} has sha256 {found!r}, expected {file.sha256!r}; "
                "restore the file or change the setting, which makes a new version of the corpus"
            )
    return path


def read_lines(file: ListFile, what: str) -> list[str]:
    """Returns the stripped lines of a text file (gzip where the name ends in .gz), without blanks and # comments."""
    return list(_lines(checked_path(file, what)))


def read_hashes(file: ListFile, what: str) -> Hashes:
    """Returns the sorted hashes of a list's entries.

    A ``.npy`` file made by `write_hashes` is memory-mapped and shared between processes (4.56 million entries:
    36 MB); any other file is read as text.
    """
    path = checked_path(file, what)
    if path.suffix == ".npy":
        stored: Hashes = np.load(path, mmap_mode="r")
        if stored.dtype != np.uint64 or stored.ndim != 1:
            raise ConfigError(f"{what}: {file.path!r} holds {stored.dtype} {stored.shape}, expected sorted uint64 (n,)")
        return stored
    return _hashes(path)


def write_hashes(source: Path, target: Path) -> int:
    """Writes the sorted hashes of a text list as ``.npy`` and returns how many there are."""
    hashes = _hashes(source)
    np.save(target, hashes)
    return len(hashes)


def entry_hash(entry: str) -> int:
    """Returns the 64-bit hash under which a list entry is stored.

    Two entries share one with probability 2e-13 per look-up in a list of 4.5 million.
    """
    digest = hashlib.blake2b(entry.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def contains(hashes: Hashes, entry: str) -> bool:
    """Returns whether an entry is in a sorted hash list."""
    if not entry or not len(hashes):
        return False
    wanted = np.uint64(entry_hash(entry))
    place = int(np.searchsorted(hashes, wanted))
    return place < len(hashes) and bool(hashes[place] == wanted)


def _hashes(path: Path) -> Hashes:
    return np.unique(np.fromiter(map(entry_hash, _lines(path)), dtype=np.uint64))


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            entry = str(line).strip()
            if entry and not entry.startswith("#"):
                yield entry
