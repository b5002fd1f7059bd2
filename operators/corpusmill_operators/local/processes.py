"""Airflow's processes as children of this one, and their end: none is left behind, whatever happens.

``airflow standalone`` leaves its children running when it is terminated, so they are started here one by one, each in a
process group of its own. This process also adopts orphans (a "subreaper" on Linux): what a dead scheduler leaves comes
back to it and is ended too.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil  # type: ignore[import-untyped]  # Airflow's own dependency, without stubs here

from corpusmill.errors import ConfigError, CorpusmillError
from corpusmill_operators.local.settings import LocalSettings

PATIENCE_SECONDS = 15.0
"""Time the processes have to end by themselves after SIGINT."""
LAST_LINES = 15
"""Log lines that a message repeats."""
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Calls of prctl(2), Linux."""
COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
"""Airflow command of each process; the scheduler holds LocalExecutor's workers."""


class AirflowProcessError(CorpusmillError):
    """A process of the local Airflow ended or did not get ready; the message holds its last lines."""


class AirflowProcesses:
    """The running processes.

    Args:
        settings: Folders and address.
        names: Keys of `COMPONENTS`.
    """

    def __init__(self, settings: LocalSettings, names: list[str]) -> None:
        self.settings = settings
        self._names = names
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "AirflowProcesses":
        self._end_leftovers()
        try:
            for name in self._names:
                self._running[name] = self._start(name)
            self._record.write_text(json.dumps({p.pid: psutil.Process(p.pid).create_time() for p in self._all()}))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log_file(self, name: str) -> Path:
        """Returns where a process writes."""
        return self.settings.airflow_home / "logs" / f"{name}.log"

    def check(self) -> None:
        """Makes sure that all of them are alive.

        Raises:
            AirflowProcessError: One ended.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self.log_file(name)
                lines = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:])
                raise AirflowProcessError(f"airflow {name} ended with {process.returncode}; log: {log}\n{lines}")

    def stop(self) -> None:
        """Ends all processes and everything below them: SIGINT, then SIGKILL for what is left."""
        with _uninterrupted():
            below = [child for process in self._all() for child in _descendants(process.pid)]
            for process in self._all():
                _signal_group(process.pid, signal.SIGINT)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline and any(p.poll() is None for p in self._all()):
                time.sleep(0.1)
            for process in self._all():
                _signal_group(process.pid, signal.SIGKILL)
                process.wait()
            self._running.clear()
            _kill(below)
            self._record.unlink(missing_ok=True)

    def _all(self) -> "list[subprocess.Popen[bytes]]":
        return list(self._running.values())

    @property
    def _record(self) -> Path:
        return self.settings.airflow_home / "processes.json"

    def _end_leftovers(self) -> None:
        """Kills the processes of an earlier start that was itself killed; two schedulers must not share a database."""
        if not self._record.exists():
            return
        for pid, created in json.loads(self._record.read_text()).items():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(pid))
                if process.create_time() == created:  # else the number belongs to another process by now
                    _kill([process, *_descendants(process.pid)])

    def _start(self, name: str) -> "subprocess.Popen[bytes]":
        log = self.log_file(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *COMPONENTS[name]],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.settings.environment(),
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )


def run_airflow(settings: LocalSettings, *arguments: str) -> str:
    """Runs one airflow command to its end and returns its output.

    Raises:
        AirflowProcessError: It failed.
    """
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=settings.environment(), check=False
    )
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise AirflowProcessError(f"airflow {' '.join(arguments)} ended with {done.returncode}:\n{lines}")
    return done.stdout


@contextlib.contextmanager
def only_one(settings: LocalSettings) -> Iterator[None]:
    """Makes sure that one local Airflow at a time uses a home; the lock goes with the process.

    Raises:
        ConfigError: Another one is running.
    """
    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    place = settings.airflow_home / "running.lock"
    lock: IO[str]
    with place.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"another local Airflow (process {lock.read().strip() or 'unknown'}) uses {str(settings.home)!r}; end "
                "it first, or set CORPUSMILL_HOME to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def end_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end this process like Ctrl-C, and Ctrl-C work in shells that switched it off."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignores a second Ctrl-C while the processes are being ended."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: list[Any] = [signal.signal(n, signal.SIG_IGN) for n in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _end_with_parent() -> None:
    """Lets the kernel interrupt a child whose parent was killed and could end nothing (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def adopt_orphans() -> None:
    """Makes this process the parent of every process below it that loses its own (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> None:
    """Kills what is still below this process: a command under way, what a dead scheduler left, their children."""
    while left := _descendants(os.getpid()):
        _kill(left)


def _descendants(pid: int) -> "list[psutil.Process]":
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill(processes: "list[psutil.Process]") -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
