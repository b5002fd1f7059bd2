"""The processes of a rehearsal: each in a session of its own, with its log, and none left at the end."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

LAST_LINES = 25
"""Log lines that a message repeats."""
PATIENCE_SECONDS = 20.0
"""Time the processes have to end by themselves."""
PR_SET_PDEATHSIG = 1


class RehearsalError(Exception):
    """Something did not hold; the message says what, and where its log lies."""


class NativeProcesses:
    """Starts processes, watches them, ends them.

    Args:
        folder: Holds their logs and working folders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "processes").mkdir(parents=True)

    def log_file(self, name: str) -> Path:
        """Returns where a process writes."""
        return self.folder / "processes" / f"{name}.log"

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Starts a process that is expected to run until `stop`."""
        process = self._popen(name, command, environment)
        self._running[name] = process
        return process

    def begin(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Starts a process that ends by itself; `finish` waits for it."""
        return self._popen(name, command, environment)

    def finish(self, name: str, process: "subprocess.Popen[bytes]", seconds: float) -> str:
        """Waits for a process and returns its last line of output.

        Raises:
            RehearsalError: It failed, or took too long.
        """
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RehearsalError(f"{name} has not ended after {seconds:.0f} s; log: {self.log_file(name)}") from None
        if code != 0:
            raise RehearsalError(f"{name} ended with {code}; log: {self.log_file(name)}\n{self._tail(name)}")
        lines = self.log_file(name).read_text(errors="replace").splitlines()
        return lines[-1] if lines else ""

    def check(self) -> None:
        """Makes sure that all started processes are alive.

        Raises:
            RehearsalError: One ended.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise RehearsalError(
                    f"{name} ended with {process.returncode}; log: {self.log_file(name)}\n{self._tail(name)}"
                )

    def wait_for(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until a condition holds.

        Raises:
            RehearsalError: A process ended, or the time is up.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise RehearsalError(f"waited {seconds:.0f} s for {what}; logs: {self.folder}")
            time.sleep(0.2)

    def owner_of(self, pid: int, names: Sequence[str]) -> str | None:
        """Returns which of some processes a process descends from, None where it is gone."""
        for name in names:
            process = self._running.get(name)
            if process is not None and pid in {child.pid for child in _below(process.pid)}:
                return name
        return None

    def kill(self, name: str) -> int:
        """Kills a process with everything below it at once, as a lost container would be; returns their number."""
        process = self._running.pop(name)
        all_of_it = [psutil.Process(process.pid), *_below(process.pid)]
        for one in all_of_it:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        gone, alive = psutil.wait_procs(all_of_it, timeout=PATIENCE_SECONDS)
        if alive:
            raise RehearsalError(f"{len(alive)} processes of {name} survived SIGKILL: {alive}")
        return len(gone)

    def stop(self) -> None:
        """Ends all processes, the last started first: SIGTERM, then SIGKILL with everything below."""
        below = [child for process in self._running.values() for child in _below(process.pid)]
        for process in reversed(list(self._running.values())):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            process.kill()
            process.wait()
        for child in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._running.clear()

    def _popen(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        try:
            with self.log_file(name).open("wb") as out:
                return subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                    env=dict(environment), start_new_session=True, cwd=self.folder, preexec_fn=_end_with_parent,
                )  # fmt: skip
        except FileNotFoundError as error:
            raise RehearsalError(
                f"{name}: {command[0]!r} is not installed: {error}; the servers are Debian's packages postgresql and "
                "redis-server, the rest comes by pip install -c constraints.txt -e '.[dev,celery]'"
            ) from error

    def _tail(self, name: str) -> str:
        lines = self.log_file(name).read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join(f"  {line}" for line in lines)


def free_port() -> int:
    """Returns a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Returns whether something answers on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _below(pid: int) -> "list[psutil.Process]":
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def as_postgres() -> list[str]:
    """Returns the words before a command of PostgreSQL, which refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
