"""The base of the steps that build a reference model."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill_operators.child_step import ChildStepOperator


class ReferenceStepOperator(ChildStepOperator):
    """Runs one step of a build (`corpusmill.runner.reference_building.chain`), heavy ones in a spawned child process.

    Reads and writes: as the step says. Retried: by exception type. Second run: finds what the step left.

    Args:
        plan: URI of the build's plan, from `PlanReferenceModelOperator` (templated).
        seed: For a mapped step: label of the seed, by ``.expand(seed=...)`` (templated).
    """

    template_fields = ("plan", "seed")
    step: ClassVar[str]

    def __init__(self, *, seed: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Runs the step and returns its report."""
        arguments = {"plan": self.plan or "", **({"seed": self.seed} if self.seed else {})}
        return dict(self.call(f"corpusmill.runner.reference_building.chain:{self.step}", arguments))
