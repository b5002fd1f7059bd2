"""Runs of the demo's DAG that something goes wrong in: a small crawl, few stages, short pauses, and what a run left."""

import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil

CRAWL = "T-2024-10"
TEXT = (
    "The river of the valley measured the bridge and that garden to be with the village. When they have painted a "
    "library, the window and its harvest crossed what islands can of weather. Nobody carried more paper of bread than "
    "this farmer, that studied to the market by the station. To be a teacher that repaired engines is harder than "
    "history, with summer and the winter near. The doctor of the kitchen followed the ladder and that mirror to be "
    "with the orchard. When they have counted a pencil, the quarry and its ribbon lifted what saddles can of tunnels. "
)
RECIPE = {
    "name": "demo",
    "shards": {"max_shards": 1},
    "rules": {"preset": "c4", "languages": ["en"], "min_language_score": 0.1},
}
"""Ingestion, rules and exact deduplication: the stages that need no model."""

UNREACHABLE_CHECK = {
    "name": "corpus.enough", "kind": "metric_between", "subject": "branch_rows", "minimum": 1e9,
    "why": "no crawl is that big",
}  # fmt: skip
"""A check that no corpus passes: the run ends before it publishes."""


def write_crawl(base: Path, pages: int = 4, crawl: str = CRAWL) -> Path:
    """Writes a crawl of one archive in Common Crawl's layout; returns its base folder."""
    name = f"crawl-data/{crawl}/segments/1/warc/{crawl}-00000.warc.gz"
    target = base / name
    target.parent.mkdir(parents=True)
    target.write_bytes(b"".join(gzip.compress(_record(crawl, n)) for n in range(pages)))
    (base / f"crawl-data/{crawl}/warc.paths.gz").write_bytes(gzip.compress(f"{name}\n".encode()))
    (base / "collinfo.json").write_text(json.dumps([{"id": crawl}]))
    return base


def _record(crawl: str, n: int) -> bytes:
    paragraphs = "".join(f"<p>{part.strip()}. Page {n} says so.</p>" for part in TEXT.split(". ") if part.strip())
    html = f"<html><head><title>Page {n}</title></head><body><main><article>{paragraphs}</article></main></body></html>"
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}".encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{n:012d}>\r\n"
        f"WARC-Date: 2024-02-20T00:00:00Z\r\nWARC-Target-URI: https://{crawl.lower()}.example/{n}\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def damage(base: Path, crawl: str = CRAWL) -> None:
    """Overwrites the middle of every member of the crawl's archive."""
    damage_member(base, None, crawl)


def damage_member(base: Path, number: int | None, crawl: str = CRAWL) -> None:
    """Overwrites the middle of one member of the crawl's archive; None: of each."""
    (archive,) = base.glob(f"crawl-data/{crawl}/segments/*/warc/*.warc.gz")
    data = bytearray(archive.read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 3] == b"\x1f\x8b\x08"]
    for n, (start, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True)):
        if number in (None, n):
            middle = (start + end) // 2
            data[middle : middle + 16] = b"\xff" * 16
    archive.write_bytes(bytes(data))


def states(run):
    return {(t.task_id, t.map_index): str(t.state) for t in run.get_task_instances()}


def attempts(run, task):
    return max(t.try_number for t in run.get_task_instances() if t.task_id == task)


def left_message(run, task):
    """The message that the last attempt of a task left; its lines."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    where = (XComModel.run_id == run.run_id, XComModel.key == "error", XComModel.task_id == task)
    with create_session() as session:
        (left,) = session.scalars(select(XComModel).where(*where)).all()
    return json.loads(left.value).splitlines() if left.value.startswith('"') else left.value.splitlines()


def reported(run):
    """The row of the run in ``ops.runs``, None where it was not planned or the catalog was lost."""
    from corpusmill.runner.open_lakehouse import open_lakehouse

    rows = open_lakehouse().table("ops.runs").scan(None).to_pylist()
    return next((row for row in rows if row["run_id"] == run.run_id), None)


class ChildKiller(threading.Thread):
    """Kills every child process that a task starts for a library function, as soon as it is seen."""

    def __init__(self, number=signal.SIGKILL):
        super().__init__(daemon=True)
        self._killed, self._number, self._ended = set(), number, False

    @property
    def killed(self):
        """Number of processes that were killed."""
        return len(self._killed)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended = True
        self.join()

    def run(self):
        while not self._ended:
            for child in psutil.Process().children():
                try:
                    if child.pid not in self._killed and "corpusmill.worker" in child.cmdline():
                        os.kill(child.pid, self._number)
                        self._killed.add(child.pid)
                except psutil.Error:
                    continue
            time.sleep(0.02)
