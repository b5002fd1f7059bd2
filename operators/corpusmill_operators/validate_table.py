"""Validation: the audit branch is checked before any reader sees it."""

from pathlib import Path
from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator
from corpusmill_operators.links import DataDocsLink


class ValidateTableOperator(StageOperator):
    """Runs the recipe's checks on the audit branch of the corpus.

    Reads: the audit branch. Writes: the Data Docs site of the run, linked from the task's page. Fails at once, without
    a retry: a critical check failed; the message lists every failed expectation in words and numbers, the branch is
    kept and readers' data stays as it was. A warning is logged and published with a flag.
    Second run: checks again.
    """

    operator_extra_links = (DataDocsLink(),)
    ui_color = "#fdf3d7"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_docs_url = ""

    def lineage_stage(self) -> str:
        """Returns the stage for lineage."""
        return "validate"

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Validates the branch and returns the outcome."""
        from corpusmill.errors import ValidationFailedError
        from corpusmill.runner import chain

        try:
            outcome = chain.validate(self.plan or "")
        except ValidationFailedError as error:
            self.data_docs_url = _address(getattr(error, "data_docs", None))
            raise
        self.data_docs_url = _address(outcome.get("data_docs"))
        for warning in outcome.get("warnings", []):
            self.log.warning("%s", warning)
        return {**outcome, "n_warnings": len(outcome.get("warnings", []))}


def _address(site: str | None) -> str:
    """Returns the link of a Data Docs site that lies in a local folder or has an address of its own."""
    if not site or "://" in site:
        return site or ""
    index = Path(site) / "index.html"
    return (index if index.exists() else Path(site)).absolute().as_uri()
