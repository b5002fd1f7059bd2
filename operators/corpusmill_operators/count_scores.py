"""Counting scores: the mapped half of selection."""

from typing import Any

from airflow.sdk import Context

from corpusmill.errors import ConfigError
from corpusmill_operators.base import StageOperator


class CountScoresOperator(StageOperator):
    """Makes the exact histogram of one shard's scores, which `SelectUnitsOperator` adds up.

    Reads: the shard's rows of ``<recipe>.scores``. Writes: a few kilobytes of counts beside the run's plan. Retried: as
    any task. Second run: finds the shard's counts and does nothing.

    Args:
        shard: Name of the shard, by ``.expand(shard=...)`` (templated).
    """

    template_fields = ("plan", "shard")

    def __init__(self, *, shard: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Counts the shard."""
        from corpusmill.runner import chain

        if not self.plan or not self.shard:
            raise ConfigError(f"task {self.task_id!r}: plan={self.plan!r} shard={self.shard!r}; expected both")
        return chain.count_scores(self.plan, self.shard)
