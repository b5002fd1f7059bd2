"""What errors of the system and of libraries mean for a run, and whether a retry can help."""

import errno

import pytest
import sqlalchemy.exc

from corpusmill.errors import (
    ConfigError,
    DeviceError,
    DiskFullError,
    Permanent,
    Transient,
    WorkerDiedError,
    WriteRefusedError,
)
from corpusmill.failures import DatabaseLostError, free_space, sorted_error


class OutOfMemoryError(RuntimeError):
    """Looks like torch's by module and name, so that torch is not loaded here."""

    __module__ = "torch"


def operational(text):
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception(text))


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError, "a disk is full: OSError"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFullError, "Disk quota exceeded"),
        (OSError(errno.EFBIG, "File too large"), DiskFullError, "File too large"),
        (OSError("Error writing bytes to file. Detail: No space left on device"), DiskFullError, "MiB free"),
        (operational("database or disk is full"), DiskFullError, "database or disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/lake/a"), WriteRefusedError, "'/lake/a'"),
        (PermissionError(errno.EACCES, "Permission denied", "/lake/b"), WriteRefusedError, "belong to the user"),
        (operational("attempt to write a readonly database"), WriteRefusedError, "Correct the owner"),
        (operational("server closed the connection"), DatabaseLostError, "server closed the connection"),
        (OutOfMemoryError("CUDA out of memory"), DeviceError, "lower the stage's batch size"),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceError, "visible devices: "),
        (RuntimeError("No CUDA GPUs are available"), DeviceError, "nvidia-smi"),
        (MemoryError("Unable to allocate 9 GiB"), WorkerDiedError, "Unable to allocate 9 GiB"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, Exception) else None,
)
def test_an_error_of_the_system_becomes_one_that_says_what_to_do(error, kind, said):
    found = sorted_error(error)
    assert type(found) is kind
    assert said in str(found)
    assert isinstance(found, Permanent) != isinstance(found, Transient)
    assert "\n" not in str(found)


def test_the_cause_counts_where_a_library_wrapped_it():
    wrapped = ValueError("could not write the footer")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(sorted_error(wrapped), DiskFullError)


@pytest.mark.parametrize(
    "error", [ConfigError("a disk is full"), ValueError("x"), FileNotFoundError(errno.ENOENT, "x")]
)
def test_our_own_errors_and_those_that_mean_nothing_special_stay_as_they_are(error):
    assert sorted_error(error) is None


def test_the_device_that_failed_is_named():
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    error.add_note("device 3")
    assert "the GPU failed (device 3)" in str(sorted_error(error))


def test_the_space_left_is_told_for_each_place_that_a_run_writes_to(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "not" / "there"))
    monkeypatch.setenv("CORPUSMILL_WAREHOUSE", f"file://{tmp_path}/lake%20house")
    told = free_space()
    assert f"home '{tmp_path}' has " in told
    assert f"warehouse '{tmp_path}' has " in told
    assert "temporary folder " in told
