"""Fixtures of all tests: where shared data is, and a home of its own for each test."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent
SERVER = REPOSITORY / "tests" / "servers" / "completions_server.py"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: gzip writes the clock into its head, and workers must agree on names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set CORPUSMILL_SHARED_DATA to run this test")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty CORPUSMILL_HOME; nothing is initialised."""
    folder = tmp_path / "home"
    monkeypatch.setenv("CORPUSMILL_HOME", str(folder))
    for name in ("CORPUSMILL_CATALOG_URI", "CORPUSMILL_WAREHOUSE", "CORPUSMILL_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return folder


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
