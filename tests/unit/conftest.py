"""A model server of our own, started as a process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parent.parent / "servers" / "completions_server.py"


@pytest.fixture(scope="session")
def completions_server() -> Iterator[Callable[..., str]]:
    """Starts model servers: takes the server's options as arguments, returns its address.

    A server with the same options is started once; faults are set through ``/admin/faults``.
    """
    running: dict[tuple[str, ...], tuple[subprocess.Popen[str], str]] = {}

    def start(*options: object) -> str:
        key = tuple(str(option) for option in options)
        if key not in running or running[key][0].poll() is not None:
            process = subprocess.Popen([sys.executable, str(SERVER), *key], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, f"the server with {key} ended with exit code {process.wait()}"
            running[key] = (process, url)
        return running[key][1]

    yield start
    for process, _ in running.values():
        process.kill()
        process.wait()
