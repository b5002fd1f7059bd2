"""Fixtures of all tests: where shared data is, and a home of its own for each test."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent


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
