"""Backends of the lakehouse suite: SQLite and a folder; PostgreSQL and a moto S3 server, where they can be started."""

import importlib.util
import itertools
import multiprocessing
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

WORLD_FILE = Path(__file__).with_name("world.py")
POSTGRES_BIN = Path("/usr/lib/postgresql")
CHILDREN = 8


def load_world():
    if "lakehouse_world" not in sys.modules:
        spec = importlib.util.spec_from_file_location("lakehouse_world", WORLD_FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules["lakehouse_world"] = module
        spec.loader.exec_module(module)
    return sys.modules["lakehouse_world"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise OSError(f"server ended with exit code {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise OSError(f"nothing listens on port {port} after {seconds} s")


@pytest.fixture(scope="session")
def postgres():
    """Starts a PostgreSQL cluster of our own and yields its URI prefix; an OSError says why it cannot."""
    binaries = sorted(POSTGRES_BIN.glob("*/bin/initdb"))
    initdb = str(binaries[-1]) if binaries else shutil.which("initdb")
    if initdb is None:
        yield OSError("PostgreSQL is not installed: no initdb")
        return
    folder = Path(tempfile.mkdtemp(prefix="corpusmill-pg-", dir="/tmp"))
    as_postgres = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_postgres = ["runuser", "-u", "postgres", "--"]
    port, pg_ctl = free_port(), str(Path(initdb).with_name("pg_ctl"))

    def run(*command):
        return subprocess.run([*as_postgres, *command], cwd=folder, capture_output=True, text=True, timeout=120)

    try:
        made = run(initdb, "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -F -c max_connections=200"
        started = run(pg_ctl, "-D", str(folder / "data"), "-l", str(folder / "log"), "-o", options, "-w", "start")
        if made.returncode or started.returncode:
            yield OSError(f"PostgreSQL does not start: {made.stderr[-300:]} {started.stderr[-300:]}")
        else:
            yield f"postgresql://postgres:secret@127.0.0.1:{port}"
    finally:
        run(pg_ctl, "-D", str(folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_endpoint():
    """Starts a moto S3 server and yields its URL; an OSError says why it cannot."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        yield OSError("moto server is not installed")
        return
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    except OSError as error:
        yield error
    finally:
        process.kill()
        process.wait()


_numbers = itertools.count()


@pytest.fixture(params=["local", "server"])
def backend(request, tmp_path):
    """Yields the settings of an empty lakehouse that no other test uses."""
    if request.param == "local":
        return {
            "catalog_uri": f"sqlite:///{tmp_path}/home/catalog.db",
            "warehouse": f"file://{tmp_path}/home/warehouse",
        }
    uri, endpoint = request.getfixturevalue("postgres"), request.getfixturevalue("s3_endpoint")
    for server in (uri, endpoint):
        if isinstance(server, OSError):
            pytest.skip(f"server backend: {server}")
    return server_settings(uri, endpoint)


def server_settings(uri, endpoint):
    import psycopg2
    from pyarrow.fs import S3FileSystem

    name = f"lake{os.getpid()}x{next(_numbers)}"  # a schema, because a database for each test takes 7 MB and 300 files
    connection = psycopg2.connect(f"{uri}/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE SCHEMA {name}")
    connection.close()
    S3FileSystem(
        access_key="testing", secret_key="testing", endpoint_override=endpoint, region="us-east-1",
        allow_bucket_creation=True,
    ).create_dir(name)  # fmt: skip
    return {
        "catalog_uri": f"{uri}/postgres?options=-csearch_path%3D{name}",
        "warehouse": f"s3://{name}/warehouse",
        "s3_endpoint": endpoint,
        "s3_credentials": {"access_key": "testing", "secret_key": "testing"},
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
        assert victim.ask(command) is None, "the process lived on"
        self.ready.append(Child(self.context))
        return victim.end()


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
