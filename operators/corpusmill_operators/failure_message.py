"""The message of a failed task: its first line says what happened, to which inputs, and whether a retry can help."""

from typing import Any

from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from corpusmill.errors import Permanent

MAX_LINE_CHARS = 1_500
"""Characters of the first line; the whole message follows it."""
MAX_ERROR_CHARS = 4_000
"""Characters of a message that are kept; the task's log has all of it."""


def failure_message(error: BaseException, where: str, decision: Any, *, attempt: int, attempts: int) -> str:
    """Returns a failure's message: one line that stands for itself, then the whole where it has more lines.

    Args:
        error: What ended the task.
        where: Crawl and shard, ``""`` where there is none; named in front unless the error names it itself.
        decision: What the task's retry policy decided, None where it has none.
        attempt: Number of this attempt, 1 or higher.
        attempts: Attempts in all.
    """
    said = str(error).strip()
    line = " ".join(said.split())
    if len(line) > MAX_LINE_CHARS:
        line = line[: MAX_LINE_CHARS - 3] + "..."
    place = f"{where}: " if where and where not in line else ""
    # what a task fails with on purpose (the run's report) repeats another task's message, verdict included
    verdict = "" if isinstance(error, AirflowFailException) else f" [{_verdict(error, decision, attempt, attempts)}]"
    first = f"{type(error).__name__}: {place}{line}{verdict}"
    return (f"{first}\n{said}" if "\n" in said else first)[:MAX_ERROR_CHARS]


def _verdict(error: BaseException, decision: Any, attempt: int, attempts: int) -> str:
    """Returns whether a retry can help, and when the next attempt is."""
    fails = decision is not None and decision.action == RetryAction.FAIL
    if fails or isinstance(error, Permanent | AirflowNotFoundException):
        return "permanent: not tried again, a retry cannot help before something is changed"
    if attempt >= attempts:
        return f"may pass: attempt {attempt} of {attempts}, the last; clear the task once the cause is gone"
    delay = decision.retry_delay if decision is not None else None
    when = "" if delay is None else f" after {delay.total_seconds():.0f} s"
    return f"may pass: attempt {attempt} of {attempts}, tried again{when}"
