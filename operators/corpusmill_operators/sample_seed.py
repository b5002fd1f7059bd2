"""The first step of a build: which documents labels are made for."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class SampleSeedOperator(StageOperator):
    """Plans a build and samples its seed documents.

    Reads: a lakehouse table, files of JSON lines or a crawl, as the refiner's recipe says. Writes:
    ``ops.seed_documents``; the plan's URI is XCom ``plan``; returns the shard names for ``.expand(shard=...)``.
    Retried: when a source did not answer. Second run: finds the sample of the same content and does nothing.

    Args:
        recipe: The refiner recipe as a mapping (templated).
    """

    template_fields = ("recipe",)
    template_fields_renderers = {"recipe": "json"}  # noqa: RUF012 - the form that Airflow documents

    def __init__(self, *, recipe: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recipe = recipe

    def work(self, context: Context) -> dict[str, Any]:
        """Plans, samples, and leaves the plan's URI and the build as XComs."""
        from corpusmill.runner.building import chain

        made = chain.sample(self.recipe, context["run_id"], progress=self.log.info)
        for key in ("plan", "build"):
            context["ti"].xcom_push(key=key, value=made[key])
        return made

    def execute(self, context: Context) -> Sequence[str]:
        """Returns the shard names."""
        return list(super().execute(context)["shards"])
