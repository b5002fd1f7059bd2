"""The band join of near deduplication: its mapped half."""

from typing import Any

from airflow.sdk import Context

from corpusmill.errors import ConfigError
from corpusmill_operators.base import StageOperator

PART_LABEL = "{{ task.part }}"
"""``map_index_template`` that shows the bands of a part in place of numbers."""


class JoinBandsOperator(StageOperator):
    """Finds the candidates of near deduplication in some bands, which `DeduplicateOperator` compares.

    Reads: these bands of ``<recipe>.minhash``, of the crawl and of the published older crawls. Writes: pairs of
    numbers, in a file of its own beside the crawl's records. Retried: as any task. Second run: finds the part's pairs
    and does nothing, so a killed part is cleared and repeated alone.

    Args:
        part: Name of the part, by ``.expand(part=...)`` (templated).
    """

    template_fields = ("plan", "part")
    counts_documents = False

    def __init__(self, *, part: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Joins the part."""
        from corpusmill.runner import chain

        if not self.plan or not self.part:
            raise ConfigError(f"task {self.task_id!r}: plan={self.plan!r} part={self.part!r}; expected both")
        return chain.join_bands(self.plan, self.part)
