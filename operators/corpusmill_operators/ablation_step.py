"""The base of the steps of an ablation."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator

REFERENCE_LABEL = "{{ task.reference }}"
"""``map_index_template`` that shows reference models in place of numbers."""
ARM_LABEL = "{{ task.arm }}"
"""``map_index_template`` that shows arm, student and seed in place of numbers."""


class AblationStepOperator(StageOperator):
    """Runs one step of an ablation (`corpusmill.ablation.experiment`), in a spawned child process where it may train.

    Args:
        plan: Place of the experiment's plan, from `PrepareAblationOperator` (templated).
    """

    step: ClassVar[str]
    in_child: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._job: Any = None

    def arguments(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - subclasses read it
        """Returns what the step is called with."""
        return {"plan": self.plan or ""}

    def work(self, context: Context) -> dict[str, Any]:
        """Runs the step; its lines are the task's log."""
        return dict(self.call(self.arguments(context)))

    def call(self, arguments: dict[str, Any]) -> Any:
        """Returns what the step's function returns."""
        module = "corpusmill.ablation.experiment"
        if self.in_child:
            from corpusmill.runner.child import ChildJob

            self._job = ChildJob(f"{module}:{self.step}", arguments)
            return self._job.run(self.log.info)
        from importlib import import_module

        return getattr(import_module(module), self.step)(**arguments, progress=self.log.info)

    def on_kill(self) -> None:
        """Kills the child process and everything it started."""
        if self._job is not None:
            self._job.kill()
