"""The end of every run: one row that says how it went, also when it failed."""

from typing import Any

from airflow.sdk import Context, TriggerRule
from airflow.sdk.exceptions import AirflowFailException

from corpusmill_operators.base import StageOperator
from corpusmill_operators.task_states import map_indexes, states_of_run
from corpusmill_operators.xcom_keys import ERROR_KEY

FAILED = "failed"
OTHERS_NAMED = 5
"""Further failed tasks that the message names."""


class ReportRunOperator(StageOperator):
    """Writes the run's report and its row in ``ops.runs``, and makes the run red if any task failed.

    Reads: the states of the run's tasks and the messages that failing tasks left. Writes: the report, ``ops.runs``, or
    why there is no plan. Retried: when another commit was first. Second run: replaces the report of the same run. Its
    trigger rule is ``all_done``: it runs after a failure too, then fails itself, naming the first failure and why.

    Args:
        plan_task: Id of the `PlanRunOperator` whose plan is reported.
    """

    template_fields = ("plan_task",)

    def __init__(self, *, plan_task: str = "plan", trigger_rule: str = TriggerRule.ALL_DONE, **kwargs: Any) -> None:
        super().__init__(trigger_rule=trigger_rule, **kwargs)
        self.plan_task = plan_task

    def work(self, context: Context) -> dict[str, Any]:
        """Writes the report, then fails if the run did."""
        from corpusmill.runner import chain

        ti, message = context["ti"], self._first_failure(context)
        plan = ti.xcom_pull(task_ids=self.plan_task, key="plan")
        report: dict[str, Any] = {}
        if message:
            self.log.error("%s", message)  # before the report is written: a lost catalog would leave nothing else
        if plan:
            report = chain.report(plan, FAILED if message else "success", message)
        elif message:
            chain.report_unplanned(context["dag"].dag_id, context["run_id"], message)
        if message:
            raise AirflowFailException(message)
        return {k: report[k] for k in ("crawl", "state", "published", "tag", "quarantined") if k in report}

    def _first_failure(self, context: Context) -> str:
        """Returns what failed first in the order of the chain, and its message; "" where nothing failed."""
        ti, dag = context["ti"], context["dag"]
        states = states_of_run(context)
        failed = _in_chain_order(dag, {name for name, state in states.items() if state == FAILED})
        if not failed:
            return ""
        (task, index), *others = failed
        where = {} if index is None else {"map_indexes": index}
        said = ti.xcom_pull(task_ids=task, key=ERROR_KEY, **where) or "without a message (killed?); see its log"
        first, *more = f"{_label(task, index)} failed: {said}".split("\n", 1)
        if others:
            first += f" [also failed: {', '.join(_label(*other) for other in others[:OTHERS_NAMED])}"
            first += f" and {len(others) - OTHERS_NAMED} more]" if len(others) > OTHERS_NAMED else "]"
        return "\n".join([first, *more])


def _in_chain_order(dag: Any, names: set[str]) -> list[tuple[str, int | None]]:
    """Returns failed tasks in the order of the chain, with their map index."""
    found: list[tuple[str, int | None]] = []
    for task in dag.topological_sort():
        if task.task_id in names:
            found.append((task.task_id, None))
        found += [(task.task_id, index) for index in map_indexes(task.task_id, names)]
    return found


def _label(task: str, index: int | None) -> str:
    return task if index is None else f"{task}[{index}]"
