"""Selection: which scored documents are published."""

from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class SelectUnitsOperator(StageOperator):
    """Keeps the bottom, middle or top share of the crawl by a score column, by exact rank over all shards.

    Reads: ``<recipe>.scores``, one file at a time, and what `CountScoresOperator` counted. Writes: the run's selection
    and ``ops.cutoffs``. Retried: when another commit was first. Second run: decides the same again.
    """

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Decides and stores the selection."""
        from corpusmill.runner import chain

        return chain.select(self.plan or "")
