"""The base of the steps that build a refiner."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill_operators.base import StageOperator
from corpusmill_operators.endpoints import endpoint_of_connection


class BuildStepOperator(StageOperator):
    """Runs one step of a build (`corpusmill.runner.building.chain`), in a spawned child process where it runs a model.

    Args:
        plan: URI of the build's plan, from `SampleSeedOperator` (templated).
        shard: For a mapped step: name of the shard, by ``.expand(shard=...)`` (templated).
    """

    template_fields = ("plan", "shard")
    step: ClassVar[str]
    in_child: ClassVar[bool] = False
    asks_teacher: ClassVar[bool] = False

    def __init__(self, *, shard: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self._job: Any = None

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Runs the step; a teacher behind a server is reached by the Airflow connection that the recipe names."""
        from corpusmill.runner.building import chain

        arguments = {"plan": self.plan or "", **({"shard": self.shard} if self.shard else {})}
        with endpoint_of_connection(chain.teacher_endpoint(self.plan or "") if self.asks_teacher else None):
            if self.in_child:
                from corpusmill.runner.child import ChildJob

                self._job = ChildJob(f"{chain.__name__}:{self.step}", arguments)
                return dict(self._job.run(self.log.info))
            return dict(getattr(chain, self.step)(**arguments, progress=self.log.info))

    def on_kill(self) -> None:
        """Kills the child process and everything it started."""
        if self._job is not None:
            self._job.kill()
