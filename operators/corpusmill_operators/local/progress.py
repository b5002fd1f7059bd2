"""What a person sees while runs go on: one line when a stage ends, fails or is tried again."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill_operators.local.api import AirflowApi, quoted
from corpusmill_operators.xcom_keys import ERROR_KEY

POLL_SECONDS = 2.0
"""Time between two looks; each costs the API server some milliseconds of the same two cores."""
QUIET_SECONDS = 30.0
"""After this long without a line, one says what is being worked on."""
ENDED = {"success", "failed", "upstream_failed", "skipped", "removed"}
"""States in which a task stays."""


@dataclass(frozen=True)
class Failure:
    """A task that failed: where, why, and where its log lies."""

    crawl: str
    task: str
    message: str
    log: Path


class RunProgress:
    """Follows some runs of one DAG until they end.

    Args:
        api: Client.
        dag_id: The DAG.
        runs: Run ids.
        logs: Airflow's log folder.
        write: Receives the lines.
    """

    def __init__(
        self, api: AirflowApi, dag_id: str, runs: Sequence[str], logs: Path, write: Callable[[str], None]
    ) -> None:
        self._api, self._dag_id, self._runs, self._logs, self._write = api, dag_id, runs, logs, write
        self._said: set[tuple[str, str, str]] = set()
        self._last_line = time.monotonic()

    def follow(self, check: Callable[[], None]) -> dict[str, str]:
        """Writes progress until all runs have ended; returns the state of each run.

        Args:
            check: Called between two looks; raises when waiting makes no sense any more.
        """
        while True:
            check()
            states = {run: self._look(run) for run in self._runs}
            if all(state in ("success", "failed") for state in states.values()):
                return states
            time.sleep(POLL_SECONDS)

    def failures(self) -> list[Failure]:
        """Returns the tasks that failed, in the order in which they did."""
        found = []
        for run in self._runs:
            crawl = self._run(run)["partition_key"]
            failed = [t for t in self._tasks(run) if t["state"] == "failed"]
            causes = [t for t in failed if t["task_id"] != "report"] or failed  # the report fails with the run
            for task in sorted(causes, key=lambda t: t["end_date"] or ""):
                label = task["task_id"] + (f"[{_shard(task)}]" if task["map_index"] >= 0 else "")
                found.append(Failure(crawl, label, self._message(run, task), self._log_of(run, task)))
        return found

    def published(self, run: str) -> int:
        """Returns how many documents of the run's crawl are published, as its report says."""
        path = f"{self._path(run)}/taskInstances/report/xcomEntries/return_value"
        entry = self._api.find(path) or {}
        value = entry.get("value")
        return int(value.get("published", 0)) if isinstance(value, dict) else 0

    def _look(self, run: str) -> str:
        state = self._run(run)
        by_task = defaultdict(list)
        for task in self._tasks(run):
            by_task[task["task_id"]].append(task)
        for name, tasks in sorted(by_task.items(), key=lambda item: min(t["start_date"] or "~" for t in item[1])):
            self._tell(state["partition_key"], name, tasks)
        return str(state["state"])

    def _tell(self, crawl: str, name: str, tasks: list[dict[str, Any]]) -> None:
        states = [t["state"] for t in tasks]
        done = sum(s == "success" for s in states)
        shards = f"{done} of {len(tasks)} shards" if tasks[0]["map_index"] >= 0 else ""
        seconds = sum(t["duration"] or 0.0 for t in tasks)
        for task in tasks:
            if task["state"] == "up_for_retry":
                key = (crawl, name, f"{task['map_index']} try {task['try_number']}")
                self._say(key, f"attempt {task['try_number']} of {_where(task)} failed and will be repeated")
        if "failed" in states:
            self._say((crawl, name, "failed"), f"FAILED {shards}")
        elif all(s in ENDED for s in states):
            if done and name != "report":
                self._say((crawl, name, "done"), f"done {shards:>14} {seconds:>7.1f} s")
            elif name == "publish" and "skipped" in states:
                self._say((crawl, name, "skipped"), "nothing to do: the same content is published already")
        elif "running" in states and time.monotonic() - self._last_line > QUIET_SECONDS:
            self._say((crawl, name, f"at {time.monotonic()}"), f"running {shards}")

    def _say(self, key: tuple[str, str, str], text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._last_line = time.monotonic()
            self._write(f"{key[0]}  {key[1]:<20} {text}".rstrip())

    def _message(self, run: str, task: dict[str, Any]) -> str:
        path = f"{self._path(run)}/taskInstances/{task['task_id']}/xcomEntries/{ERROR_KEY}"
        entry = self._api.find(f"{path}?map_index={task['map_index']}") or {}
        return str(entry.get("value") or "no message: the task was killed or never started; see its log")

    def _log_of(self, run: str, task: dict[str, Any]) -> Path:
        folder = self._logs / f"dag_id={self._dag_id}" / f"run_id={run}" / f"task_id={task['task_id']}"
        if task["map_index"] >= 0:
            folder /= f"map_index={task['map_index']}"
        return folder / f"attempt={task['try_number']}.log"

    def _run(self, run: str) -> dict[str, Any]:
        return self._api.get(self._path(run))

    def _tasks(self, run: str) -> list[dict[str, Any]]:
        return self._api.all(f"{self._path(run)}/taskInstances", "task_instances")

    def _path(self, run: str) -> str:
        return f"/dags/{self._dag_id}/dagRuns/{quoted(run)}"


def _shard(task: dict[str, Any]) -> str:
    return str(task["rendered_map_index"] or task["map_index"])


def _where(task: dict[str, Any]) -> str:
    return f"shard {_shard(task)}" if task["map_index"] >= 0 else str(task["task_id"])
