"""The examples of ``docs/how-to/read-the-corpus.md``, run as they stand on a published corpus."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from corpusmill.runner.refresh import refresh

pytestmark = [pytest.mark.integration, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "read-the-corpus.md"
BLOCKS = re.findall(r"^(?:## (.+?)$.*?)?^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
(_, FIRST), *READERS = BLOCKS
NEEDS = {"pandas": "pandas", "DuckDB": "duckdb", "Polars": "polars", "datasets": "datasets", "Spark": "pyspark"}


def test_every_reader_is_on_the_page():
    assert [name for name, _ in READERS] == [*NEEDS, "The Iceberg table itself"]


def test_each_example_counts_the_published_documents(home, recipe):
    report = refresh(recipe("demo"), "T-2024-10", None, lambda line: None)
    there = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": there, "CORPUSMILL_HOME": str(home)}
    counted = {}
    for name, code in READERS:
        if importlib.util.find_spec(NEEDS.get(name, "pyiceberg")) is None:
            continue
        done = subprocess.run(
            [sys.executable, "-c", f"{FIRST}\n{code}"], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
        counted[name] = int(done.stdout.split()[-1])
    assert len(counted) >= 3
    assert set(counted.values()) == {report["published"]}, counted
