"""The base of the steps of an ablation."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill_operators.child_step import ChildStepOperator

REFERENCE_LABEL = "{{ task.reference }}"
"""``map_index_template`` that shows reference models in place of numbers."""
ARM_LABEL = "{{ task.arm }}"
"""``map_index_template`` that shows arm, student and seed in place of numbers."""


class AblationStepOperator(ChildStepOperator):
    """Runs one step of an ablation (`corpusmill.ablation.experiment`), in a spawned child process where it may train.

    Args:
        plan: Place of the experiment's plan, from `PrepareAblationOperator` (templated).
    """

    step: ClassVar[str]
    in_child: ClassVar[bool] = True

    def arguments(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - subclasses read it
        """Returns what the step is called with."""
        return {"plan": self.plan or ""}

    def work(self, context: Context) -> dict[str, Any]:
        """Runs the step; its lines are the task's log."""
        return dict(self.result(context))

    def result(self, context: Context) -> Any:
        """Returns what the step's function returns."""
        return self.call(f"corpusmill.ablation.experiment:{self.step}", self.arguments(context))
