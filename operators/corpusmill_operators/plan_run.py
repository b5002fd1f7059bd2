"""Planning: what a run will do is fixed before any work starts."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import DownstreamTasksSkipped

from corpusmill.errors import ConfigError
from corpusmill_operators.base import StageOperator, crawl_of
from corpusmill_operators.missing_pools import refuse_missing_pools
from corpusmill_operators.task_states import map_indexes, states_of_run


class PlanRunOperator(StageOperator, SkipMixin):
    """Resolves the crawl, cuts it into shards, pins the models and takes the run's fencing number.

    Reads: the crawl's path list, the catalog. Writes: the plan (its URI is XCom ``plan``); returns the shard names, for
    ``.expand(shard=plan.output)``. Retried: when the source did not answer. Second run: makes a plan with a higher
    number, which takes over from the earlier run. Where the same inputs and settings are published already, all tasks
    after it are skipped except those with trigger rule ``all_done``.

    Args:
        recipe: The recipe as a mapping (templated).
        crawl: Crawl id; None takes the run's partition key, else ``params.crawl`` (templated).
        source: Folder or URL of the crawl in place of the recipe's; None takes ``params.source`` (templated).
    """

    template_fields = ("recipe", "crawl", "source")
    template_fields_renderers = {"recipe": "json"}  # noqa: RUF012 - the form that Airflow documents

    def __init__(
        self, *, recipe: dict[str, Any], crawl: str | None = None, source: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.recipe, self.crawl, self.source = recipe, crawl, source

    def work(self, context: Context) -> dict[str, Any]:
        """Makes the plan and leaves its URI, crawl and number as XComs."""
        from corpusmill.runner import chain

        refuse_missing_pools(context)
        crawl = self.crawl or crawl_of(context)
        if not crawl:
            raise ConfigError(
                f"run {context['run_id']!r} names no crawl; start it with a partition key or with the parameter "
                '\'crawl\', for instance {"crawl": "CC-MAIN-2024-10"}'
            )
        source = self.source or context["params"].get("source") or None
        made = chain.plan(self.recipe, crawl, context["run_id"], source)
        for key in ("plan", "crawl", "epoch", "already_published"):
            context["ti"].xcom_push(key=key, value=made[key])
        return made

    def execute(self, context: Context) -> Sequence[str]:
        """Returns the shard names; skips the rest of a run that would only repeat what is published."""
        made = super().execute(context)
        if made["already_published"]:
            from corpusmill.runner import chain

            chain.publish(made["plan"])  # records for the report what is published; changes no table
            self.log.info("%s is published already with the same inputs and settings: nothing to do", made["crawl"])
            after = [t for t in context["task"].downstream_list if str(t.trigger_rule) != "all_done"]
            try:
                self.skip(context["ti"], after)
            except DownstreamTasksSkipped as skipped:
                raise DownstreamTasksSkipped(tasks=[*skipped.tasks, *_expanded(context, skipped.tasks)]) from None
        return list(made["shards"])


def _expanded(context: Context, tasks: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the mapped instances that tasks of this run have from before it was cleared.

    Airflow skips a mapped task by its name as long as it was not expanded; its instances would run.
    """
    states = states_of_run(context)
    return [(task, index) for task in sorted(tasks) for index in map_indexes(task, states)]
