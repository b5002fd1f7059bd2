"""Runs model work in a spawned child process, with its progress in the parent's log.

CUDA does not survive fork, memory must return to the system after each shard, and a crash of native code must not take
the orchestrator's task process along. The child is ``python -m corpusmill.worker job.json`` in a process group of its
own; its lines on stdout are progress, its result and errors come back in a file.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpusmill.errors import CorpusmillError, ModelError, WorkerDiedError

ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Unless the environment says otherwise: shards run side by side, so threads of each would only fight for the cores."""
LAST_LINES = 20
"""Lines of the child's output that an error message repeats."""
ENDINGS = {
    "SIGKILL": "it was killed from outside, most often because the machine ran out of memory (see dmesg); if it comes "
    "again, give the worker more memory or run fewer tasks at a time",
    "SIGTERM": "it was stopped from outside, for instance because its worker shut down",
    "SIGSEGV": "native code crashed; if it comes again on the same shard, report it with the shard's inputs",
    "SIGBUS": "native code could not read its memory, most often because a disk or /dev/shm is full",
}
"""What the signals that end a child most often mean, and what to do."""


class ChildJob:
    """One call of a library function in a child process.

    Args:
        function: ``module:function`` with JSON-able arguments and result.
        arguments: Its keyword arguments.
    """

    def __init__(self, function: str, arguments: dict[str, Any]) -> None:
        self.function = function
        self.arguments = arguments
        self._process: subprocess.Popen[str] | None = None

    def run(self, log: Callable[[str], None]) -> Any:
        """Starts the child, streams its lines to ``log``, and returns the function's result.

        Raises:
            CorpusmillError: The error that the function raised, with its class and message.
            WorkerDiedError: The child ended without a result (killed, out of memory, native crash).
        """
        with tempfile.TemporaryDirectory(prefix="corpusmill-job-") as folder:
            job, result = Path(folder, "job.json"), Path(folder, "result.json")
            job.write_text(json.dumps({"function": self.function, "arguments": self.arguments, "result": str(result)}))
            code, lines = self._stream(job, log)
            if not result.exists():
                raise WorkerDiedError(
                    f"the child process of {self._what()} ended with {_exit_text(code)} and no result"
                    f"{_meaning(code)}. A retry starts a new one. Its last lines: {' | '.join(lines) or '(none)'}"
                )
            outcome = json.loads(result.read_text())
        if "error" in outcome:
            raise _rebuild(outcome["error"])
        return outcome["result"]

    def kill(self) -> None:
        """Kills the child and all processes it started."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _what(self) -> str:
        """Returns the function, with the stage and shard that it worked on."""
        on = " ".join(f"{key} {self.arguments[key]}" for key in ("stage", "shard") if self.arguments.get(key))
        return f"{self.function} ({on})" if on else self.function

    def _stream(self, job: Path, log: Callable[[str], None]) -> tuple[int, deque[str]]:
        lines: deque[str] = deque(maxlen=LAST_LINES)
        command = [sys.executable, "-m", "corpusmill.worker", str(job)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, env={**ONE_THREAD, **os.environ},
        )  # fmt: skip
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                lines.append(line.rstrip())
                log(line.rstrip())
            return self._process.wait(), lines
        finally:
            self.kill()


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"


def _meaning(code: int) -> str:
    known = ENDINGS.get(signal.Signals(-code).name) if code < 0 else None
    return f": {known}" if known else ""


def _rebuild(error: dict[str, str]) -> CorpusmillError:
    """Returns the child's error as its own class, so that the retry policy sees Permanent or Transient."""
    try:
        found = getattr(importlib.import_module(error["module"]), error["class"])
    except (ImportError, AttributeError):
        found = None
    if isinstance(found, type) and issubclass(found, CorpusmillError):
        rebuilt: CorpusmillError = found(error["message"])
        return rebuilt
    return ModelError(f"{error['class']}: {error['message']}\n{error['traceback']}")
