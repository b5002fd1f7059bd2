"""What a command and every process below it cost: CPU seconds, wall seconds, peak memory of each worker.

CPU seconds are exact: processes whose parent ended first are adopted (``PR_SET_CHILD_SUBREAPER``), so that the kernel
adds all of them to this process's children. Memory is sampled: the proportional set size (PSS) of a worker and of the
processes that it started, in which pages shared with others count in shares.
"""

import ctypes
import os
import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLES_PER_SECOND = 5
_PR_SET_CHILD_SUBREAPER = 36
_WORKERS = ("multiprocessing.spawn", ".forkserver")
"""What stands in the command line of processes that multiprocessing starts to work."""


@dataclass(frozen=True)
class Cost:
    """What one command cost.

    Attributes:
        cpu: User and system seconds of all its processes.
        wall: Seconds from start to end.
        worker_mb: Largest PSS of one worker with the processes below it, MB.
        other_mb: Largest PSS of all that is no worker's: the process that was started and its servers, MB.
    """

    cpu: float
    wall: float
    worker_mb: float
    other_mb: float


@dataclass(frozen=True)
class Process:
    """A process at one moment: its number, its parent's (0 for the first), its command line and its PSS in MB."""

    pid: int
    parent: int
    command: str
    mb: float


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Cost:
    """Runs a command to its end and returns what it cost.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        log: File that takes its output.

    Raises:
        SystemExit: It failed; the message holds the end of its output.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    before, started = _children_seconds(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        peaks, ended = [0.0, 0.0], threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, ended))
        sampler.start()
        code = process.wait()
        wall = time.monotonic() - started
        ended.set()
        sampler.join()
    _reap_adopted()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{log.read_text(errors='replace')[-3000:]}")
    return Cost(_children_seconds() - before, wall, *peaks)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap_adopted() -> None:
    """Waits for adopted processes; they end by themselves when the command has."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _sample(pid: int, peaks: list[float], ended: threading.Event) -> None:
    """Keeps the largest memory of a worker and of the rest."""
    while not ended.wait(1 / SAMPLES_PER_SECOND):
        workers, rest = memory_of(_tree(pid))
        peaks[0], peaks[1] = max([peaks[0], *workers]), max(peaks[1], rest)


def _tree(root: int) -> list[Process]:
    """Returns a process and all below it; those that end meanwhile are left out."""
    found, waiting = [], [(root, 0)]
    while waiting:
        pid, parent = waiting.pop()
        folder = Path(f"/proc/{pid}")
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            rollup = (folder / "smaps_rollup").read_text()
            children = [c for task in (folder / "task").iterdir() for c in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        kilobytes = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
        found.append(Process(pid, parent, command, kilobytes * 1024 / 1e6))
        waiting += [(int(child), pid) for child in children]
    return found


def memory_of(processes: Sequence[Process]) -> tuple[list[float], float]:
    """Returns the memory of each worker with its children, and that of the rest, MB.

    A worker is a spawned process, or a child of a fork server; a fork server's children have its command line.
    """
    by_pid = {process.pid: process for process in processes}

    def serves(pid: int) -> bool:
        return pid in by_pid and _WORKERS[1] in by_pid[pid].command

    def is_worker(process: Process) -> bool:
        spawned = _WORKERS[0] in process.command
        return spawned or (serves(process.parent) and not serves(by_pid[process.parent].parent))

    def worker_of(process: Process | None) -> int | None:
        while process is not None and not is_worker(process):
            process = by_pid.get(process.parent)
        return None if process is None else process.pid

    sums: dict[int | None, float] = {}
    for process in processes:
        owner = worker_of(process)
        sums[owner] = sums.get(owner, 0.0) + process.mb
    rest = sums.pop(None, 0.0)
    return list(sums.values()), rest
