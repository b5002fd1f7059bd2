"""Backends of the lakehouse suite: SQLite and a folder; PostgreSQL and a moto S3 server, where they can be started."""

import importlib.util
import multiprocessing
import runpy
import sys
from pathlib import Path

import pytest

WORLD_FILE = Path(__file__).with_name("world.py")
CHILDREN = 8


def load_world():
    if "lakehouse_world" not in sys.modules:
        spec = importlib.util.spec_from_file_location("lakehouse_world", WORLD_FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules["lakehouse_world"] = module
        spec.loader.exec_module(module)
    return sys.modules["lakehouse_world"]


@pytest.fixture(params=["local", "server"])
def backend(request, tmp_path):
    """Yields the settings of an empty lakehouse that no other test uses."""
    if request.param == "server":
        return request.getfixturevalue("server_lakehouse")
    return {
        "catalog_uri": f"sqlite:///{tmp_path}/home/catalog.db",
        "warehouse": f"file://{tmp_path}/home/warehouse",
    }


@pytest.fixture
def world(backend):
    """A small initialised lakehouse on the backend."""
    made = load_world().World(backend).create()
    yield made
    made.lake.close()


class Child:
    """A process that answers commands; see world.py."""

    def __init__(self, context) -> None:
        self.connection, theirs = context.Pipe()
        arguments = {"init_globals": {"CONNECTION": theirs}, "run_name": "lakehouse_child"}
        self.process = context.Process(target=runpy.run_path, args=(str(WORLD_FILE),), kwargs=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, command: dict) -> dict | None:
        """Returns the answer, None where the process died."""
        self.connection.send(command)
        return self.receive()

    def receive(self) -> dict | None:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None

    def end(self) -> int:
        self.connection.close()
        self.process.kill()  # one that died already keeps its exit code
        self.process.join(timeout=60)
        return self.process.exitcode


class Children:
    """Processes that stand ready, so that commands to several of them run at the same moment.

    They are forked from a server that has imported everything and done nothing, so that one starts in milliseconds.
    """

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["corpusmill.lakehouse.maintenance", "pyiceberg.catalog.sql"])
        self.ready = [Child(self.context) for _ in range(CHILDREN)]

    def ask(self, command: dict) -> dict | None:
        """Returns one process's answer."""
        return self.ready[0].ask(command)

    def race(self, commands: list[dict]) -> list[dict | None]:
        """Sends one command to each process at once and returns the answers."""
        for child, command in zip(self.ready, commands, strict=True):
            child.connection.send(command)
        return [child.receive() for child in self.ready]

    def kill(self, command: dict) -> int:
        """Sends a command that ends in death to one process and returns its exit code; another takes its place."""
        victim = self.ready.pop()
        self.ready.append(Child(self.context))
        answer = victim.ask(command)
        code = victim.end()
        assert answer is None, f"the process lived on and answered {answer}"
        return code


@pytest.fixture(scope="session")
def worlds():
    """The module of world.py."""
    return load_world()


@pytest.fixture(scope="session")
def children():
    pool = Children()
    yield pool
    for child in pool.ready:
        child.end()
