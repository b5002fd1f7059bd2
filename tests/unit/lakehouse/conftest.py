"""An embedded lakehouse for the unit tests; the races and crashes are in tests/integration/lakehouse."""

import importlib.util
import sys
from pathlib import Path

import pytest

WORLD_FILE = Path(__file__).parents[2] / "integration" / "lakehouse" / "world.py"


@pytest.fixture(scope="session")
def worlds():
    """The module of tests/integration/lakehouse/world.py."""
    if "lakehouse_world" not in sys.modules:
        spec = importlib.util.spec_from_file_location("lakehouse_world", WORLD_FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules["lakehouse_world"] = module
        spec.loader.exec_module(module)
    return sys.modules["lakehouse_world"]


@pytest.fixture
def values(tmp_path):
    """Settings of an embedded lakehouse that does not exist yet."""
    return {"catalog_uri": f"sqlite:///{tmp_path}/home/catalog.db", "warehouse": f"file://{tmp_path}/home/warehouse"}


@pytest.fixture
def world(worlds, values):
    """A small initialised lakehouse."""
    made = worlds.World(values).create()
    yield made
    made.lake.close()
