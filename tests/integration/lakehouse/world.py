"""A small lakehouse to experiment on, and the child processes that crash and race on it.

Loaded by the conftest of this folder and of tests/unit/lakehouse, and run in child processes, which answer commands
that come through a pipe, the global ``CONNECTION``.
"""

import datetime as dt
import os
import signal
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog

from corpusmill.lakehouse import maintenance, shards
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.lakehouse.maintenance import compact_partition, remove_orphans
from corpusmill.lakehouse.publish import MainMovedError, create_audit_branch, publish, rebase_audit_branch
from corpusmill.lakehouse.settings import LakehouseSettings
from corpusmill.lakehouse.shards import RunToken, ShardWriter, find_manifest
from corpusmill.schema import STRING, TableSpec, required

NOTES = TableSpec(
    "notes",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("warc_file", STRING),
            pa.field("language", STRING),
            required("kept", pa.bool_()),
            pa.field("text", STRING),
        ]
    ),
    sort=("language", "doc_id"),
    low_cardinality=("crawl", "warc_file", "language"),
)
NOTES_ID = "demo.notes"
CORPUS_ID = "demo.books"


def value_of(type_: pa.DataType, name: str, i: int):
    """Returns some value of an Arrow type."""
    if pa.types.is_boolean(type_):
        return i % 2 == 0
    if pa.types.is_integer(type_):
        return i
    if pa.types.is_floating(type_):
        return float(i)
    if pa.types.is_timestamp(type_):
        return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=i)
    if pa.types.is_large_binary(type_):
        return b"\x00" * (i % 5)
    if pa.types.is_fixed_size_binary(type_):
        return bytes([i % 256]) * type_.byte_width
    if pa.types.is_large_list(type_):
        return [value_of(type_.value_type, name, i)] * (i % 3)
    if pa.types.is_struct(type_):
        return {f.name: value_of(f.type, f.name, i) for f in type_}
    return f"{name} {i}"


def make_rows(spec: TableSpec, n: int, tag: str = "a", **fixed) -> pa.Table:
    """Returns n rows of a table; document ids are tag and number, ``fixed`` columns hold one value."""
    columns = {}
    for field in spec.schema:
        if field.name in fixed:
            values = [fixed[field.name]] * n
        elif field.name == "doc_id":
            values = [f"{tag}-{i:05d}" for i in range(n)]
        else:
            values = [value_of(field.type, field.name, i) for i in range(n)]
        columns[field.name] = pa.array(values, field.type)
    return pa.table(columns, schema=spec.schema)


class World:
    """A lakehouse with two small tables: ``demo.notes`` for stages, ``demo.books`` for publication."""

    def __init__(self, values: dict) -> None:
        self.values = values
        self.settings = LakehouseSettings.load(values)
        self.lake = Lakehouse(self.settings)

    def create(self) -> "World":
        self.lake.init([])
        self.lake.create_table(NOTES_ID, NOTES)
        self.lake.create_table(CORPUS_ID, NOTES)
        return self

    rows = staticmethod(make_rows)

    def epoch(self, crawl: str, run_id: str = "run") -> int:
        return take_epoch(self.lake, "demo", crawl, run_id)

    def token(self, crawl: str, key: str, epoch: int, run_id: str = "run", recipe: str = "demo") -> RunToken:
        return RunToken(recipe, crawl, run_id, epoch, key, {"corpusmill": "0.0", "config": "c0"})

    def shard(self, token: RunToken, name: str, n: int, table: str = NOTES_ID):
        """Writes one shard of n rows whose document ids start with key and shard, unless its manifest is there."""
        found = find_manifest(self.lake, table, token, name)
        if found is not None:
            return found
        with ShardWriter(self.lake.table(table), {"crawl": token.crawl}, token, name) as writer:
            rows = make_rows(NOTES, n, f"{token.key}-{name}", crawl=token.crawl, warc_file=f"file-{name}")
            for start in range(0, n, 4):
                writer.write(rows.slice(start, 4))
            return writer.finish({"rows": n})

    def stage(self, token: RunToken, sizes: dict[str, int], table: str = NOTES_ID, branch: str = "main"):
        """Writes shards of the given sizes and commits them."""
        manifests = [self.shard(token, name, n, table) for name, n in sizes.items()]
        return commit_partition(
            self.lake, table, {"crawl": token.crawl}, manifests, token, branch=branch, expected_shards=list(sizes)
        )

    def audit(self, token: RunToken, sizes: dict[str, int]) -> str:
        """Makes the run's audit branch, or takes the one that an earlier attempt left, and commits to it."""
        branch = f"audit_{token.crawl}_{token.epoch}"
        if branch not in self.lake.table(CORPUS_ID).refs():
            create_audit_branch(self.lake, CORPUS_ID, token.crawl, token.epoch)
        self.stage(token, sizes, CORPUS_ID, branch)
        return branch

    def publish(self, token: RunToken, sizes: dict[str, int], rebases: int = 50):
        """Publishes a crawl, rebasing while others publish too; a retry of a finished publication changes nothing."""
        table = self.lake.table(CORPUS_ID)
        branch = f"audit_{token.crawl}_{token.epoch}"
        if table.partition_key({"crawl": token.crawl}) != token.key:
            self.audit(token, sizes)
        for _ in range(rebases):
            try:
                return publish(self.lake, CORPUS_ID, branch, f"demo/{token.crawl}/{token.epoch}", {token.crawl: token})
            except MainMovedError:
                rebase_audit_branch(self.lake, CORPUS_ID, branch)
        raise AssertionError("main moved too often")

    def count(self, table: str = NOTES_ID, crawl: str | None = None, ref: str | None = None) -> int:
        """Returns the rows that a reader gets, by reading them, after checking that no document id comes twice."""
        rows = self.lake.table(table).scan({"crawl": crawl} if crawl else None, columns=["crawl", "doc_id"], ref=ref)
        assert len({(r["crawl"], r["doc_id"]) for r in rows.to_pylist()}) == rows.num_rows, "duplicated rows"
        assert rows.num_rows == self.lake.table(table).count({"crawl": crawl} if crawl else None, ref=ref)
        return rows.num_rows


def die() -> None:
    """Ends this process as the kernel's out-of-memory killer would: no clean-up code runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(owner, name: str, nth: int = 1, static: bool = False) -> None:
    """Replaces a function by one that runs it and dies at its nth call."""
    original, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        answer = original(*args, **kwargs)
        calls.append(1)
        if len(calls) >= nth:
            die()
        return answer

    setattr(owner, name, staticmethod(dying) if static else dying)


def arm(step: str) -> None:
    """Makes this process die at one step of the protocol."""
    if step == "mid data write":
        shards.ROW_GROUP_ROWS = 4
        die_after(pq.ParquetWriter, "write_table", nth=2)
    elif step == "after data file, before manifest":
        shards.write_whole = lambda *_: die()
    elif step == "after manifest":
        die_after(shards, "write_whole")
    elif step in ("between metadata write and catalog swap", "publish before swap", "before swap"):
        die_after(SqlCatalog, "_write_metadata", static=True)
    elif step in ("right after swap", "publish after swap", "after swap"):
        die_after(SqlCatalog, "commit_table")
    elif step == "before the first deletion":
        maintenance.delete_file = lambda *_: die()
    elif step == "after the first deletion":
        die_after(maintenance, "delete_file")


ALONE = {
    "take_epoch": lambda world, c: world.epoch(c["crawl"], c["run_id"]),
    "create_audit_branch": lambda world, c: create_audit_branch(world.lake, CORPUS_ID, c["crawl"], c["epoch"]),
    "rebase_audit_branch": lambda world, c: rebase_audit_branch(world.lake, CORPUS_ID, c["branch"]),
    "compact": lambda world, c: asdict(compact_partition(world.lake, NOTES_ID, {"crawl": c["crawl"]})),
    "remove_orphans": lambda world, c: remove_orphans(world.lake, NOTES_ID, dt.timedelta(0), force=True),
}
"""Steps of the protocol that are one call; a process that is to die in one is armed just before."""


def answer(command: dict):
    """Returns the answer to one command."""
    world = World(command["world"])
    do = command["do"]
    if do == "init":
        world.lake.init(command["recipes"])
        return None
    if do == "create_table":
        world.lake.create_table(command["table"], NOTES)
        return str(world.lake.load(command["table"]).metadata.table_uuid)
    if do in ALONE:
        arm(command.get("die", ""))
        return ALONE[do](world, command)
    if do == "supersede":
        epoch = world.epoch(command["crawl"], command["key"])
        token = world.token(command["crawl"], command["key"], epoch, command["key"])
        world.stage(token, command["sizes"])
        return epoch
    token = world.token(command["crawl"], command["key"], command["epoch"])
    step = command.get("die", "")
    if do == "stage":
        for n, (name, rows) in enumerate(command["sizes"].items()):
            if n == 1 and step in ("mid data write", "after data file, before manifest", "after manifest"):
                shards.ROW_GROUP_ROWS = 4
                arm(step)
            world.shard(token, name, rows, command.get("table", NOTES_ID))
        arm(step)
        place = {"table": command.get("table", NOTES_ID), "branch": command.get("branch", "main")}
        return asdict(world.stage(token, command["sizes"], **place))
    if do == "publish":
        if step:
            world.audit(token, command["sizes"])
            if step == "between audit commit and publish":
                die()
            arm(step)
        return asdict(world.publish(token, command["sizes"]))
    raise AssertionError(command)


def main(connection) -> None:
    """Answers commands until the other end hangs up."""
    while True:
        try:
            command = connection.recv()
        except EOFError:
            return
        try:
            reply = {"answer": answer(command)}
        except Exception as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        connection.send(reply)


if __name__ == "lakehouse_child":
    main(globals()["CONNECTION"])
