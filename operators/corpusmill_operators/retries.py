"""Which failures are retried: decided by the type of the exception, never by parsing a message.

- `Permanent` (bad setting, failed validation, superseded run, unusable input, corrupt model): the task fails at once,
  because a person must change something first.
- `AirflowNotFoundException` (a connection that a recipe names is missing): the task fails at once.
- `CommitConflict`: retry after 10 seconds; another crawl's commit was first.
- `TransientDataError`: retry after 5 minutes; a server is busy and the reader's own retries are used up.
- `WorkerDiedError`: retry after 1 minute; the child process was killed, for instance for its memory.
- `DeviceError`: retry after 2 minutes; a GPU failed or was full, the next process may get another one.
- `DiskFullError`: retry after 10 minutes; somebody may free space, scratch files go away by themselves.
- Any other `Transient` (the catalog or a model hub does not answer): retry after 1 minute.
- Anything else: the task's own ``retries`` and ``retry_delay``.

A policy can end a task earlier, it cannot retry more often than the task's ``retries``.
"""

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowNotFoundException

from corpusmill.errors import (
    CommitConflict,
    DeviceError,
    DiskFullError,
    Permanent,
    Transient,
    TransientDataError,
    WorkerDiedError,
)

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=Permanent, action=RetryAction.FAIL, reason="permanent error: a retry cannot succeed"),
        RetryRule(
            exception=AirflowNotFoundException,
            action=RetryAction.FAIL,
            reason="a connection or variable is missing: add it first",
        ),
        RetryRule(
            exception=CommitConflict,
            retry_delay=timedelta(seconds=10),
            reason="another commit was first: commit again on top of it",
        ),
        RetryRule(
            exception=TransientDataError,
            retry_delay=timedelta(minutes=5),
            reason="an input could not be read now",
        ),
        RetryRule(exception=WorkerDiedError, retry_delay=timedelta(minutes=1), reason="the worker process died"),
        RetryRule(exception=DeviceError, retry_delay=timedelta(minutes=2), reason="a GPU failed or was full"),
        RetryRule(exception=DiskFullError, retry_delay=timedelta(minutes=10), reason="a disk is full"),
        RetryRule(exception=Transient, retry_delay=timedelta(minutes=1), reason="something does not answer now"),
    ]
)
"""Default ``retry_policy`` of every operator of this package."""

TASK_DEFAULTS = {
    "owner": "corpusmill",
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
}
"""Default arguments of tasks whose errors the policy sorts: attempts of those that it tries again."""
