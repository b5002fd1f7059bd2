"""The base of the steps that build a reference model."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator


class ReferenceStepOperator(StageOperator):
    """Runs one step of a build (`corpusmill.runner.reference_building.chain`), heavy ones in a spawned child process.

    Reads and writes: as the step says. Retried: by exception type. Second run: finds what the step left.

    Args:
        plan: URI of the build's plan, from `PlanReferenceModelOperator` (templated).
        seed: For a mapped step: label of the seed, by ``.expand(seed=...)`` (templated).
    """

    template_fields = ("plan", "seed")
    step: ClassVar[str]
    in_child: ClassVar[bool] = False

    def __init__(self, *, seed: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self._job: Any = None

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Runs the step and returns its report."""
        from corpusmill.runner.reference_building import chain

        arguments = {"plan": self.plan or "", **({"seed": self.seed} if self.seed else {})}
        if self.in_child:
            from corpusmill.runner.child import ChildJob

            self._job = ChildJob(f"{chain.__name__}:{self.step}", arguments)
            return dict(self._job.run(self.log.info))
        return dict(getattr(chain, self.step)(**arguments, progress=self.log.info))

    def on_kill(self) -> None:
        """Kills the child process and everything it started."""
        if self._job is not None:
            self._job.kill()
