"""The run of a rehearsal, watched through Airflow's REST API with the password that Airflow made."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from corpusmill_operators.local.api import AirflowApi, quoted
from corpusmill_operators.local.progress import RunProgress
from rehearsal.native_processes import NativeProcesses, RehearsalError

POLL_SECONDS = 0.3
"""Time between two looks for a task to kill; a task takes seconds."""


class LoggedInApi(AirflowApi):
    """The REST API for the user ``admin`` with a password.

    Args:
        processes: Those that must stay alive.
        base_url: Address of the API server.
        passwords: File in which Airflow leaves the passwords that it makes.
        folder: Named in messages.
    """

    def __init__(self, processes: NativeProcesses, base_url: str, passwords: Path, folder: Path) -> None:
        settings = SimpleNamespace(base_url=base_url, airflow_home=folder)
        super().__init__(SimpleNamespace(settings=settings, check=processes.check))  # type: ignore[arg-type]
        self._passwords = passwords

    def sign_in(self) -> None:
        """Gets a token for the password of the file."""
        password = json.loads(self._passwords.read_text())["admin"]
        self._token = str(
            self._call("POST", "/auth/token", {"username": "admin", "password": password})["access_token"]
        )

    def healthy(self) -> bool:
        """Returns whether every part of Airflow reports health."""
        try:
            health = self._call("GET", "/api/v2/monitor/health")
        except OSError:
            return False
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)


class WatchedRun:
    """The one scheduled run of a DAG.

    Args:
        api: Signed in.
        dag_id: The DAG.
        logs: Folder of task logs.
        write: Receives lines.
    """

    def __init__(self, api: AirflowApi, dag_id: str, logs: Path, write: Callable[[str], None]) -> None:
        self._api, self._dag_id, self._logs, self._write = api, dag_id, logs, write
        self.run_id = ""

    def switch_on(self, seconds: float) -> str:
        """Switches the DAG on and returns the crawl of the run that its timetable makes."""
        errors = self._api.get("/importErrors")["import_errors"]
        if errors:
            raise RehearsalError("\n".join(f"{e['filename']}:\n{e['stack_trace']}" for e in errors))
        self._api.patch(f"/dags/{self._dag_id}", {"is_paused": False})
        runs = self._api.wait_for(
            lambda: self._api.all(f"/dags/{self._dag_id}/dagRuns", "dag_runs"), seconds, "the scheduled run"
        )
        self.run_id = runs[0]["dag_run_id"]
        return str(runs[0]["partition_key"])

    def running_task(self, stages: tuple[str, ...]) -> dict[str, Any] | None:
        """Returns a mapped task of some stages that runs now in a process that is known."""
        for task in self.tasks():
            if task["task_id"] in stages and task["state"] == "running" and task["pid"]:
                return task
        return None

    def tasks(self) -> list[dict[str, Any]]:
        """Returns all task instances of the run."""
        path = f"/dags/{self._dag_id}/dagRuns/{quoted(self.run_id)}/taskInstances"
        return self._api.all(path, "task_instances")

    def is_over(self) -> bool:
        """Returns whether the run has ended."""
        run = self._api.get(f"/dags/{self._dag_id}/dagRuns/{quoted(self.run_id)}")
        return run["state"] in ("success", "failed")

    def follow(self, check: Callable[[], None]) -> None:
        """Writes progress until the run has ended.

        Raises:
            RehearsalError: It failed; the message names task, reason and log.
        """
        progress = RunProgress(self._api, self._dag_id, [self.run_id], self._logs, self._write)
        if progress.follow(check)[self.run_id] != "success":
            failed = [f"{f.task}: {f.message}\n  log: {f.log}" for f in progress.failures()]
            raise RehearsalError("the run failed:\n" + "\n".join(failed))

    def queues(self) -> Counter[str]:
        """Returns how many tasks each queue had."""
        return Counter(str(task["queue"]) for task in self.tasks())


def catch(run: WatchedRun, stages: tuple[str, ...], seconds: float, check: Callable[[], None]) -> dict[str, Any]:
    """Waits for a task of some mapped stages to run and returns it.

    Raises:
        RehearsalError: The run ended, or the time was up, before one was seen.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not run.is_over():
        check()
        if task := run.running_task(stages):
            return task
        time.sleep(POLL_SECONDS)
    raise RehearsalError(f"no running task of {stages} was seen in {seconds:.0f} s")
