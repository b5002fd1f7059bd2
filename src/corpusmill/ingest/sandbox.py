"""Runs the extractor in one child process with limits of time and memory, and starts it anew when it dies.

HTML parsers in C and Rust can hang or crash: resiliparse takes minutes for 100,000 nested ``<div>``, because its time
grows with the square of the depth. A page that does that must cost one quarantine row, not the worker.

The child is started by its own command, never by fork, so that it is safe beside threads. It answers in JSON with the
text behind it as UTF-8, because whatever a hostile page might make of it must not reach this process as code. The time
limit is CPU time (ITIMER_PROF): a wall clock limit alone would depend on what else the machine does; a generous one
stands behind it. Both are armed in the child, so that a child whose parent was killed ends too. POSIX only.
"""

import contextlib
import fcntl
import gc
import json
import logging
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import corpusmill
from corpusmill.errors import WorkerDiedError
from corpusmill.ingest.extract import Extracted, extract_page, load_extractor

_LENGTHS = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")
_KEPT_ENVIRONMENT = ("PATH", "LANG", "HOME", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
WALL_FACTOR, WALL_EXTRA = 4.0, 5.0
PIPE_BYTES = 1024 * 1024
ANSWER_BYTES = 64 * 1024  # of an answer read at once: what a pipe holds
START_SECONDS = 120.0  # loading the extractor; trafilatura takes a second on a free machine


class Sandbox:
    """Extracts pages in a child process; call `close` at the end, or use it as a context manager.

    Args:
        extractor: Name for `load_extractor`.
        options: Options for `load_extractor`.
        max_seconds: CPU seconds that one page may take.
        max_bytes_memory: Address space of the child in bytes, None for no limit.
    """

    def __init__(
        self, extractor: str, options: dict[str, bool], *, max_seconds: float, max_bytes_memory: int | None
    ) -> None:
        self.max_seconds = max_seconds
        self.n_starts = 0
        self._job = json.dumps([extractor, options, max_seconds, max_bytes_memory])
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def extract(self, html: bytes, header_charset: str | None) -> Extracted:
        """Returns the text of one page, or the reason ``ingest.extract_timeout`` or ``ingest.extract_crashed``.

        After a crash the page is tried once more in a fresh process, so that it does not pay for what earlier pages
        left in memory.

        Raises:
            WorkerDiedError: The child process does not start.
        """
        with self._lock:
            result = self._ask(html, header_charset)
            if result.reason == "ingest.extract_crashed":
                result = self._ask(html, header_charset)
            return result

    def start(self) -> None:
        """Starts the child now; otherwise the first page does."""
        with self._lock:
            self._running()

    def close(self) -> None:
        """Ends the child process; it starts again when another page comes."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, html: bytes, header_charset: str | None) -> Extracted:
        child = self._running()
        charset = (header_charset or "").encode("utf-8", "replace")
        answer: bytes | None = None
        try:
            _write_all(child, _LENGTHS.pack(len(charset), len(html)) + charset, html)
            answer = _read_frame(child, WALL_FACTOR * self.max_seconds + WALL_EXTRA)
        except TimeoutError:
            self._end()
            return self._timed_out()
        except OSError:  # the child is gone; how it ended says why
            pass
        if answer is not None:
            head, _, text = answer.partition(b"\n")
            return Extracted(text.decode("utf-8", "surrogatepass"), *json.loads(head))
        code = self._end()
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return self._timed_out()
        message = f"the extractor's process ended with code {code} twice; expected the page's text"
        return Extracted(reason="ingest.extract_crashed", message=message)

    def _timed_out(self) -> Extracted:
        message = f"extraction took more than {self.max_seconds:g} s of CPU time (max_seconds)"
        return Extracted(reason="ingest.extract_timeout", message=message)

    def _running(self) -> subprocess.Popen[bytes]:
        """Returns the child, started where it is not running."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        package_root = str(Path(corpusmill.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_root, environment.get("PYTHONPATH"))))
        environment |= {"PYTHONSAFEPATH": "1", "RUST_BACKTRACE": "0"}
        command = [sys.executable, "-m", "corpusmill.ingest.sandbox", self._job]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
        )
        self.n_starts += 1
        _widen(self._child)
        try:
            ready = _read_frame(self._child, START_SECONDS)
        except TimeoutError:
            ready = None
        if ready is None:
            raise WorkerDiedError(
                f"the extractor's process did not start: it ended with code {self._end()}; see its messages above"
            )
        return self._child

    def _end(self) -> int | None:
        """Ends the child and returns its exit code, None where there was no child."""
        child, self._child = self._child, None
        if child is None:
            return None
        with contextlib.suppress(OSError):
            _input(child).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.kill()
        if child.stdout is not None:
            child.stdout.close()
        return child.wait()


def _input(child: subprocess.Popen[bytes]) -> IO[bytes]:
    """Returns the pipe to the child."""
    assert child.stdin is not None
    return child.stdin


def _write_all(child: subprocess.Popen[bytes], head: bytes, data: bytes) -> None:
    """Writes all bytes to the child; without joining them, because a page is copied often enough."""
    fd, rest = _input(child).fileno(), memoryview(data)
    n_written = os.writev(fd, (head, rest))
    while n_written < len(head):  # a full pipe may take a part of the head only
        head = head[n_written:]
        n_written = os.writev(fd, (head, rest))
    rest = rest[n_written - len(head) :]
    while rest:
        rest = rest[os.write(fd, rest) :]


def _widen(child: subprocess.Popen[bytes]) -> None:
    """Lets the pipe hold most pages whole: a page of 130 kB then takes 2.5 instead of 3.2 ms on a busy machine."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the kernel may not allow it; then the pipe stays as it is
            fcntl.fcntl(_input(child).fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _read_frame(child: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """Returns the next answer of the child, None where the child closed its pipe.

    Raises:
        TimeoutError: No complete answer came in time.
    """
    assert child.stdout is not None
    deadline = time.monotonic() + seconds
    fd, received, expected = child.stdout.fileno(), bytearray(), _LENGTH.size
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while len(received) < expected:
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        data = os.read(fd, ANSWER_BYTES)
        if not data:
            return None
        received += data
        if len(received) >= _LENGTH.size:
            expected = _LENGTH.size + _LENGTH.unpack_from(received)[0]
    return bytes(received[_LENGTH.size :])


def _limit(max_bytes_memory: int | None) -> None:
    """Limits this process's memory and offers it first to the kernel's out-of-memory killer."""
    if max_bytes_memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes_memory, max_bytes_memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this process ends
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def main() -> None:
    """Answers pages from standard input until it ends."""
    name, options, max_seconds, max_bytes_memory = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not stand between the answers
    logging.disable()
    extractor = load_extractor(name, options)
    _limit(max_bytes_memory)
    gc.freeze()  # what was loaded stays; going through it again and again would take 3 % of a page's time
    pages = sys.stdin.buffer
    _answer(answers, b"")
    while len(lengths := pages.read(_LENGTHS.size)) == _LENGTHS.size:
        n_charset, n_html = _LENGTHS.unpack(lengths)
        charset = pages.read(n_charset).decode()
        html = pages.read(n_html)
        signal.setitimer(signal.ITIMER_PROF, max_seconds)
        signal.setitimer(signal.ITIMER_REAL, WALL_FACTOR * max_seconds + WALL_EXTRA)
        result = extract_page(html, charset or None, extractor)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        text, *rest = astuple(result)
        _answer(answers, json.dumps(rest).encode() + b"\n" + text.encode("utf-8", "surrogatepass"))


def _answer(answers: IO[bytes], data: bytes) -> None:
    """Writes one answer."""
    answers.write(_LENGTH.pack(len(data)) + data)
    answers.flush()


if __name__ == "__main__":
    main()
