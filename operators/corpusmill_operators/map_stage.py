"""The base of the map stages: one task per shard in a chain, or one task on any table outside it."""

from typing import Any, ClassVar

from airflow.sdk import Context

from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError
from corpusmill_operators.base import crawl_of
from corpusmill_operators.child_step import ChildStepOperator
from corpusmill_operators.endpoints import endpoint_of_connection

SHARD_LABEL = "{{ task.shard }}"
"""``map_index_template`` that shows shard names in place of numbers."""


class MapStageOperator(ChildStepOperator):
    """Runs one map stage.

    Args:
        plan: In a chain: URI of the run's plan, from `PlanRunOperator` (templated).
        shard: In a chain: name of the shard, by ``.expand(shard=...)`` (templated).
        source: Alone: table to read, ``namespace.table``, partitioned by ``crawl`` (templated).
        target: Alone: table to write; created if missing (templated).
        crawl: Alone: partition to read and replace; None takes the run's partition key or ``params.crawl`` (templated).
        config: Alone: the stage's settings as a mapping, see its config class (templated).
    """

    template_fields = ("plan", "shard", "source", "target", "crawl", "config")
    stage: ClassVar[str]
    config_class: ClassVar[type[StageConfig] | None] = None
    asks_server: ClassVar[bool] = False

    def __init__(
        self,
        *,
        shard: str | None = None,
        source: str | None = None,
        target: str | None = None,
        crawl: str | None = None,
        config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shard, self.source, self.target, self.crawl, self.config = shard, source, target, crawl, config
        if config is not None and self.config_class is not None and "{{" not in str(config):
            self.config_class.load(config)  # a wrong setting shows when the DAG is parsed

    def work(self, context: Context) -> dict[str, Any]:
        """Runs the stage on the shard, or on the crawl of the source table.

        A model server that the settings name is reached by the Airflow connection of that id.
        """
        function, arguments = self._call(context)
        with endpoint_of_connection(self._endpoint() if self.asks_server else None):
            return dict(self.call(function, arguments))

    def _endpoint(self) -> str | None:
        if self.plan and self.shard:
            from corpusmill.runner import chain

            return chain.stage_endpoint(self.plan, self.stage)
        return (self.config or {}).get("endpoint")

    def _call(self, context: Context) -> tuple[str, dict[str, Any]]:
        if self.plan and self.shard:
            arguments = {"plan": self.plan, "stage": self.stage, "shard": self.shard}
            return "corpusmill.runner.chain:run_shard", arguments
        crawl = self.crawl or crawl_of(context)
        if self.config_class is None or not (self.source and self.target and crawl):
            alone = "" if self.config_class is None else ", or 'source', 'target' and a crawl"
            raise ConfigError(
                f"task {self.task_id!r}: plan={self.plan!r} shard={self.shard!r} source={self.source!r} "
                f"target={self.target!r} crawl={crawl!r}; expected 'plan' and 'shard'{alone}"
            )
        where = {"source": self.source, "target": self.target, "crawl": crawl, "run_id": context["run_id"]}
        return "corpusmill.runner.alone:run_stage", {"stage": self.stage, "config": self.config or {}, **where}
