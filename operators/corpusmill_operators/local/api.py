"""A small client of Airflow's REST API: the few calls that the demo needs."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from corpusmill_operators.local.processes import AirflowProcessError, AirflowProcesses

POLL_SECONDS = 0.5
"""Time between two looks while something is awaited."""
PAGE = 100
"""Entries per answer; Airflow gives no more by default."""
GET_ATTEMPTS = 5
"""Attempts at reading something before an answer that does not come counts as a failure."""
TIMEOUT_SECONDS = 30.0
"""Time a single answer may take on a loaded machine."""


class AirflowApi:
    """Talks to the API server of the processes that were started here.

    Args:
        processes: Their address is used, and waiting ends when one of them does.
    """

    def __init__(self, processes: AirflowProcesses) -> None:
        self._processes = processes
        self._base = processes.settings.base_url
        self._token = ""

    def wait_until_ready(self, seconds: float) -> None:
        """Waits until database, scheduler and DAG processor report health, then signs in."""

        def healthy() -> bool:
            try:
                health = self._call("GET", "/api/v2/monitor/health")
            except (urllib.error.URLError, OSError):
                return False
            parts = ("metadatabase", "scheduler", "dag_processor")
            return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

        self.wait_for(healthy, seconds, "Airflow to get ready")
        self._token = str(self._call("GET", "/auth/token")["access_token"])

    def wait_for(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Returns the condition's value once it is true.

        Raises:
            AirflowProcessError: A process ended, or the time is up.
        """
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            self._processes.check()
            if time.monotonic() > deadline:
                logs = self._processes.settings.airflow_home / "logs"
                raise AirflowProcessError(f"waited {seconds:.0f} s for {what}; logs: {logs}")
            time.sleep(POLL_SECONDS)
        return value

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Returns the answer to a GET below ``/api/v2``."""
        text = f"?{urllib.parse.urlencode(query)}" if query else ""
        for attempt in range(GET_ATTEMPTS):
            try:
                return self._call("GET", f"/api/v2{path}{text}")
            except urllib.error.HTTPError:
                raise
            except OSError:  # no answer in time, from a server on a machine that is busy with the shards
                self._processes.check()
                if attempt == GET_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def find(self, path: str) -> dict[str, Any] | None:
        """Returns the answer to a GET, None where there is no such thing."""
        try:
            return self.get(path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def all(self, path: str, field: str, **query: Any) -> list[dict[str, Any]]:
        """Returns the entries of all pages."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.get(path, limit=PAGE, offset=len(entries), **query)
            entries += page[field]
            if not page[field] or len(entries) >= page["total_entries"]:
                return entries

    def put(self, path: str) -> dict[str, Any]:
        """Sends an empty PUT below ``/api/v2``."""
        return self._call("PUT", f"/api/v2{path}")

    def patch(self, path: str, values: dict[str, Any]) -> dict[str, Any]:
        """Changes an entry."""
        return self._call("PATCH", f"/api/v2{path}", values)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, method=method, headers=headers)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to ourselves
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            text = answer.read()
        value = json.loads(text) if text else None
        return value if isinstance(value, dict) else {}


def quoted(part: str) -> str:
    """Returns a run or task id as one part of a path."""
    return urllib.parse.quote(part, safe="")
