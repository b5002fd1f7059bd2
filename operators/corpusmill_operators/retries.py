"""Which failures are retried: decided by the type of the exception, never by parsing a message.

- `Permanent` (bad setting, failed validation, superseded run, unusable input): the task fails at once, because a person
  must change something first.
- `CommitConflict`: retry after 10 seconds; another crawl's commit was first.
- `TransientDataError`: retry after 5 minutes; a server is busy and the reader's own retries are used up.
- `WorkerDiedError`: retry after 1 minute; the child process was killed, for instance for its memory.
- Anything else: the task's own ``retries`` and ``retry_delay``.

A policy can end a task earlier, it cannot retry more often than the task's ``retries``.
"""

from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

from corpusmill.errors import CommitConflict, Permanent, TransientDataError, WorkerDiedError

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=Permanent, action=RetryAction.FAIL, reason="permanent error: a retry cannot succeed"),
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
    ]
)
"""Default ``retry_policy`` of every operator of this package."""
