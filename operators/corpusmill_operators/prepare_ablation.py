"""The first step of an ablation: the pool, split and cut in units, and the plan."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from corpusmill_operators.ablation_step import AblationStepOperator


class PrepareAblationOperator(AblationStepOperator):
    """Prepares the pool and fixes the plan, in a spawned child process.

    Reads: the recipe's text files or table. Writes: the pool below ``out``; the plan's place is XCom ``plan``; returns
    the names of the reference models for ``.expand(reference=...)``. Second run: finds the pool of the same content.

    Args:
        recipe: The ablation recipe as a mapping (templated).
        out: Folder of all results, which all workers must share; None: ``ablations/NAME`` below the corpusmill home
            (templated).
    """

    template_fields = ("recipe", "out")
    template_fields_renderers = {"recipe": "json"}  # noqa: RUF012 - the form that Airflow documents
    step = "prepare"

    def __init__(self, *, recipe: dict[str, Any], out: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.recipe, self.out = recipe, out

    def arguments(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all steps
        """Returns the recipe and the folder."""
        from corpusmill.lakehouse.settings import corpusmill_home

        out = self.out or str(corpusmill_home() / "ablations" / str(self.recipe["name"]))
        return {"recipe": self.recipe, "out": out}

    def execute(self, context: Context) -> Sequence[str]:
        """Leaves the plan's place as XCom and returns the names of the references."""
        made = super().execute(context)
        context["ti"].xcom_push(key="plan", value=made["plan"])
        return list(made["references"])
