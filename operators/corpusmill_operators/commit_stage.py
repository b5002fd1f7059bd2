"""Commits: all shards of a stage become visible at once."""

from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class CommitStageOperator(StageOperator):
    """Registers the shards of a stage in one snapshot that replaces the crawl's partition.

    Reads: the shards' manifests. Writes: the stage's table; for ``stage="assemble"`` the audit branch of the corpus,
    which readers do not see. Retried: when another commit was first. Fails at once: when a newer run of the same crawl
    took over, or the stage breaks its contract. Second run: finds the commit key and does nothing.

    Args:
        plan: URI of the run's plan (templated).
        stage: ``ingest``, ``clean``, ``refine_documents``, ``refine_chunks``, ``pack``, ``score`` or ``assemble``.
    """

    template_fields = ("plan", "stage")
    ui_color = "#dbe9f6"
    counts_documents = False  # its report is the sum of its shards'

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage

    def lineage_stage(self) -> str:
        """Returns the stage for lineage."""
        return self.stage

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Commits the stage and returns the report of the whole crawl."""
        from corpusmill.runner import chain

        return chain.commit(self.plan or "", self.stage)
