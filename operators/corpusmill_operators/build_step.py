"""The base of the steps that build a refiner."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill_operators.child_step import ChildStepOperator
from corpusmill_operators.endpoints import endpoint_of_connection


class BuildStepOperator(ChildStepOperator):
    """Runs one step of a build (`corpusmill.runner.building.chain`), in a spawned child process where it runs a model.

    Args:
        plan: URI of the build's plan, from `SampleSeedOperator` (templated).
        shard: For a mapped step: name of the shard, by ``.expand(shard=...)`` (templated).
    """

    template_fields = ("plan", "shard")
    step: ClassVar[str]
    asks_teacher: ClassVar[bool] = False

    def __init__(self, *, shard: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Runs the step; a teacher behind a server is reached by the Airflow connection that the recipe names."""
        from corpusmill.runner.building import chain

        arguments = {"plan": self.plan or "", **({"shard": self.shard} if self.shard else {})}
        with endpoint_of_connection(chain.teacher_endpoint(self.plan or "") if self.asks_teacher else None):
            return dict(self.call(f"{chain.__name__}:{self.step}", arguments))
