"""Deduplication: within the crawl and against the published older crawls."""

from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class DeduplicateOperator(StageOperator):
    """Finds the crawl's duplicates, exact and near, and commits them.

    Reads: ``<recipe>.documents`` of the crawl, and ``<recipe>.corpus`` of the older published crawls; for near
    duplicates also their ``<recipe>.minhash``, the pairs that `JoinBandsOperator` found, and of ``<recipe>.documents``
    the texts of candidates. Writes: ``<recipe>.minhash`` of the crawl if missing, ``<recipe>.duplicate_lines`` where
    the recipe compares lines, and ``<recipe>.duplicates``, one row per document that has a duplicate, naming what it
    matched and what stands for it. Retried: when another commit was first. Fails at once: an index that cannot be read,
    with the command that rebuilds it. Second run: finds the commit key and does nothing.
    """

    def lineage_stage(self) -> str:
        """Returns the stage for lineage."""
        return "deduplicate"

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Runs and commits the stage."""
        from corpusmill.runner import chain

        return chain.deduplicate(self.plan or "")
