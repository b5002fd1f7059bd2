"""Reference models of an ablation: one mapped task trains one and scores the pool with it."""

from typing import Any

from airflow.sdk import Context

from corpusmill_operators.ablation_step import AblationStepOperator


class ScorePoolOperator(AblationStepOperator):
    """Trains a reference model where the recipe asks for it and scores every unit of the pool, in a child process.

    Reads: the prepared pool. Writes: model folders and scores beside the plan. Retried: when the child died; training
    goes on from its last checkpoint. Second run: finds the scores and does nothing.

    Args:
        reference: Name of the reference in the recipe, by ``.expand(reference=...)`` (templated).
    """

    template_fields = ("plan", "reference")
    step = "score"

    def __init__(self, *, reference: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reference = reference

    def arguments(self, context: Context) -> dict[str, Any]:
        """Returns the plan and the reference."""
        return {**super().arguments(context), "reference": self.reference}
