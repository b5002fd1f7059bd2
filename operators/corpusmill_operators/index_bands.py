"""The index of near deduplication, and the parts that its band join is cut into."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class IndexBandsOperator(StageOperator):
    """Makes the crawl's index of near duplicates and lists the parts of its join with the published older crawls.

    Reads: ``<recipe>.documents`` of the crawl. Writes: ``<recipe>.minhash`` of the crawl, and of an older crawl that
    was published without one. Returns the parts' names, for ``.expand(part=index_bands.output)``. Retried: when
    another commit was first. Second run: finds the index and returns the same names.
    """

    counts_documents = False

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Makes the index."""
        from corpusmill.runner import chain

        return chain.index_bands(self.plan or "")

    def execute(self, context: Context) -> Sequence[str]:
        """Returns the names of the parts."""
        return list(super().execute(context)["parts"])
