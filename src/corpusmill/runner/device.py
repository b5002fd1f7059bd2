"""One model worker per device: an Airflow pool counts slots, it does not say which GPU is free.

Where ``CUDA_VISIBLE_DEVICES`` (or ``CORPUSMILL_DEVICES``) names several devices, a worker takes the first whose lock
file it can lock and sees only that one. The lock is an flock, so the kernel frees it when the process dies.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from corpusmill.lakehouse.settings import corpusmill_home

POLL_SECONDS = 0.5
"""Time between two looks for a free device."""


def visible_devices() -> list[str]:
    """Returns the devices that this process may use, [] on a machine without any."""
    named = os.environ.get("CORPUSMILL_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES") or ""
    return [d.strip() for d in named.split(",") if d.strip()]


@contextlib.contextmanager
def device_slot(log: Callable[[str], None], folder: Path | None = None) -> Iterator[str | None]:
    """Holds one device for the time of the block and makes it the only visible one; None where there are no devices.

    Args:
        log: Receives a line when the worker has to wait.
        folder: Where lock files lie; all workers of a machine must agree on it.
    """
    devices = visible_devices()
    if not devices:
        yield None
        return
    locks = folder or corpusmill_home() / "device_locks"
    locks.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        for device in devices:
            with (locks / f"{device.replace('/', '_')}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                before = os.environ.get("CUDA_VISIBLE_DEVICES")
                os.environ["CUDA_VISIBLE_DEVICES"] = device
                try:
                    yield device
                except Exception as error:
                    error.add_note(f"device {device}")  # the variable is restored before anybody reads the error
                    raise
                finally:
                    _restore(before)
                return
        if not waited:
            log(f"all devices are busy ({', '.join(devices)}): waiting for one")
            waited = True
        time.sleep(POLL_SECONDS)


def _restore(value: str | None) -> None:
    if value is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = value
