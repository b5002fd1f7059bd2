"""Sorts errors that libraries and the system raise: what they mean for a run, and whether a retry can help.

A full disk, a lost database and a dead GPU reach us as `OSError`, as SQLAlchemy's errors and as torch's, from many
places. Here they become errors of our own, once, where a task or a child process ends.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from corpusmill.errors import (
    CorpusmillError,
    DeviceError,
    DiskFullError,
    LakehouseError,
    Transient,
    WorkerDiedError,
    WriteRefusedError,
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
FULL_TEXTS = ("no space left on device", "disk quota exceeded", "database or disk is full", "file too large")
"""How a full disk reads where the errno was lost: Arrow, DuckDB and SQLite wrap it in errors of their own."""
REFUSED_TEXTS = ("attempt to write a readonly database", "read-only file system")
DEVICE_CLASSES = ("OutOfMemoryError", "AcceleratorError")
DEVICE_TEXTS = (
    "cuda error", "cuda out of memory", "cuda driver", "no cuda gpus are available", "cublas_status", "cudnn_status",
    "nccl error", "hip error",
)  # fmt: skip
MAX_CHARS = 400
"""Characters of the original message that the new one repeats."""


class DatabaseLostError(LakehouseError, Transient):
    """A database that answered before does not answer any more."""


def sorted_error(error: BaseException) -> CorpusmillError | None:
    """Returns an error of our own that says what a foreign one means, None where it is ours or means nothing special.

    The causes are looked at too: pyiceberg and pyarrow wrap what the system said.

    Args:
        error: What ended a task or a child process.
    """
    if isinstance(error, CorpusmillError):
        return None
    for part in _chain(error):
        found = next(filter(None, (sort(part) for sort in _SORTS)), None)
        if found is not None:
            return found
    return None


def free_space() -> str:
    """Returns how full the disks are that a run writes to: the home, the warehouse if it is a folder, the scratch."""
    told = []
    for name, folder in _written_folders():
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        usage = shutil.disk_usage(folder)
        told.append(f"{name} {str(folder)!r} has {usage.free >> 20} of {usage.total >> 20} MiB free")
    return ", ".join(told)


def _written_folders() -> list[tuple[str, Path]]:
    home = Path(os.environ.get("CORPUSMILL_HOME") or ".corpusmill").absolute()
    folders = [("home", home), ("temporary folder", Path(tempfile.gettempdir()))]
    warehouse = os.environ.get("CORPUSMILL_WAREHOUSE", "")
    if warehouse.startswith("file:"):
        folders.insert(1, ("warehouse", Path(unquote(urlsplit(warehouse).path))))
    return folders


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an error and what caused it, the error first; each once."""
    found: list[BaseException] = []
    part: BaseException | None = error
    while part is not None and part not in found:
        found.append(part)
        part = part.__cause__ or part.__context__
    return found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_CHARS]}"


def _full(error: BaseException) -> DiskFullError | None:
    code = error.errno if isinstance(error, OSError) else None
    if code not in FULL and not any(text in str(error).lower() for text in FULL_TEXTS):
        return None
    return DiskFullError(
        f"a disk is full: {_said(error)}; {free_space()}. Nothing was published and nothing is lost; free space "
        "(expired snapshots, old scratch files) or give the folder a bigger disk; the next attempt goes on from the "
        "last committed stage"
    )


def _refused(error: BaseException) -> WriteRefusedError | None:
    code = error.errno if isinstance(error, OSError) else None
    if code not in REFUSED and not any(text in str(error).lower() for text in REFUSED_TEXTS):
        return None
    return WriteRefusedError(
        f"a file may not be read or written: {_said(error)}; expected CORPUSMILL_HOME and the warehouse to belong to "
        f"the user that runs the task (uid {os.getuid()}). Correct the owner or the mount, then clear the task"
    )


def _device(error: BaseException) -> DeviceError | None:
    torchs = type(error).__module__.startswith("torch") and type(error).__name__ in DEVICE_CLASSES
    if not torchs and not any(text in str(error).lower() for text in DEVICE_TEXTS):
        return None
    where = "; ".join(getattr(error, "__notes__", ())) or "visible devices: " + (
        os.environ.get("CUDA_VISIBLE_DEVICES") or "all"
    )
    return DeviceError(
        f"the GPU failed ({where}): {_said(error)}. A retry starts a new process on a free device; if "
        "it was out of memory, lower the stage's batch size in the recipe or run fewer workers on a device; if the "
        "device is lost, look at nvidia-smi on that worker"
    )


def _database(error: BaseException) -> DatabaseLostError | None:
    kind = next((c for c in type(error).__mro__ if c.__module__ == "sqlalchemy.exc"), None)
    if kind is None or "OperationalError" not in {c.__name__ for c in type(error).__mro__}:
        return None
    said = " ".join(str(getattr(error, "orig", None) or error).split())[:MAX_CHARS]
    return DatabaseLostError(
        f"the catalog database stopped answering: {said}; nothing half-done is visible to readers. Look whether the "
        "database runs and can be written; a retry goes on from the last committed stage"
    )


def _memory(error: BaseException) -> WorkerDiedError | None:
    if not isinstance(error, MemoryError):
        return None
    return WorkerDiedError(
        f"the process ran out of memory: {_said(error)}. A retry may find more free; if it comes again, give the "
        "worker more memory, run fewer tasks at a time, or raise max_shards in the recipe"
    )


_SORTS = (_full, _refused, _device, _database, _memory)
