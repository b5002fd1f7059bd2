"""The first step of a reference model's build: what it reads, and which seeds are trained."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class PlanReferenceModelOperator(StageOperator):
    """Identifies a build by its recipe and the content of its corpus.

    Reads: the lakehouse table or the files that the recipe names, for their keys or digests. Writes: the build's plan,
    whose URI is XCom ``plan``; returns the labels of the seeds for ``.expand(seed=...)``. Retried: when the lakehouse
    did not answer. Second run: plans the same build.

    Args:
        recipe: The reference model's recipe as a mapping (templated).
    """

    template_fields = ("recipe",)
    template_fields_renderers = {"recipe": "json"}  # noqa: RUF012 - the form that Airflow documents

    def __init__(self, *, recipe: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recipe = recipe

    def work(self, context: Context) -> dict[str, Any]:
        """Plans, and leaves the plan's URI and the build as XComs."""
        from corpusmill.runner.reference_building import chain

        made = chain.plan(self.recipe, context["run_id"], progress=self.log.info)
        for key in ("plan", "build"):
            context["ti"].xcom_push(key=key, value=made[key])
        return made

    def execute(self, context: Context) -> Sequence[str]:
        """Returns the seeds' labels."""
        return list(super().execute(context)["seeds"])
