"""Publication: the audited branch becomes what readers see."""

from typing import Any

from airflow.sdk import Asset, Context

from corpusmill_operators.base import StageOperator


class PublishCorpusOperator(StageOperator):
    """Fast-forwards the corpus to the audited branch and tags the release, in one guarded commit.

    Reads: the audit branch. Writes: ``<recipe>.corpus`` and the tag ``<recipe>/<crawl>/<epoch>``; where sequences are
    selected, ``<recipe>.corpus_sequences`` after it, with the same tag; the figures go into the event of every asset in
    ``outlets``. Retried: when another commit was first. Fails at once: a newer run of the same crawl took over. Second
    run: finds the crawl published with the same content and does nothing.
    """

    ui_color = "#dbe9f6"

    def lineage_stage(self) -> str:
        """Returns the stage for lineage."""
        return "publish"

    def work(self, context: Context) -> dict[str, Any]:
        """Publishes and returns the number of documents, the snapshot and the tag."""
        from corpusmill.runner import chain

        report = chain.publish(self.plan or "")
        for asset in self.outlets:
            if isinstance(asset, Asset):
                context["outlet_events"][asset].extra = {
                    key: value for key, value in report.items() if isinstance(value, str | int | float | bool)
                }
        return report
