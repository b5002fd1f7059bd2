"""One run of an ablation: one student, trained on one arm's corpus and measured."""

from typing import Any

from airflow.sdk import Context

from corpusmill_operators.ablation_step import AblationStepOperator


class TrainArmOperator(AblationStepOperator):
    """Trains and measures one student of one arm, in a spawned child process.

    Reads: the prepared pool, scores, the files of the measures. Writes: the run's result beside the plan. Retried: when
    the child died; training goes on from its last checkpoint. Second run: finds the result and does nothing, so a
    failed arm is cleared and repeated alone.

    Args:
        arm: Label of the run, by ``.expand(arm=...)`` (templated).
    """

    template_fields = ("plan", "arm")
    step = "run_arm"

    def __init__(self, *, arm: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arm = arm

    def arguments(self, context: Context) -> dict[str, Any]:
        """Returns the plan and the run."""
        return {**super().arguments(context), "run": self.arm}
