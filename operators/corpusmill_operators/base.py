"""The base of all operators: what they share in logging, error messages, reports and retries.

An operator is a thin shell: it holds settings that Airflow can template and show, and calls one function of
`corpusmill.runner` inside `execute`. It loads nothing heavy when a DAG file is parsed.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowRescheduleException, AirflowSkipException, AirflowTaskTimeout

from corpusmill.failures import sorted_error
from corpusmill_operators.execution import task_arguments
from corpusmill_operators.failure_message import failure_message
from corpusmill_operators.retries import RETRY_POLICY
from corpusmill_operators.stage_metrics import recipe_of, send_metrics
from corpusmill_operators.xcom_keys import ERROR_KEY

REASONS_SHOWN = 5
"""Reasons that the summary line names."""


class StageOperator(BaseOperator):
    """Base of the operators. Subclasses implement `work`.

    Reads and writes: whatever `work` does. Leaves a report of counts as XCom, never data.
    Retried: by exception type (`corpusmill_operators.retries`) unless ``retry_policy`` is given.
    Placed: on executor, queue and pod by configuration (`corpusmill_operators.execution`).
    """

    template_fields: Sequence[str] = ("plan",)
    ui_color: ClassVar[str] = "#e8f4ea"
    counts_documents: ClassVar[bool] = True
    """False where the report repeats what other tasks have counted already."""

    def __init__(self, *, plan: str | None = None, retry_policy: Any = None, **kwargs: Any) -> None:
        super().__init__(retry_policy=retry_policy or RETRY_POLICY, **kwargs | task_arguments(type(self)))
        self.plan = plan

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Returns what ``.expand`` maps; Airflow reads a mapped task's place here and not from `__init__`."""
        return super().partial(**kwargs | task_arguments(cls))

    @abstractmethod
    def work(self, context: Context) -> dict[str, Any]:
        """Does the work and returns its report: counts, names and addresses, at most a few kilobytes of JSON."""

    def execute(self, context: Context) -> Any:
        """Runs `work`, logs one line of counts and returns the report; a failure leaves its message as XCom.

        Errors of the system and of libraries that mean something for the run (a full disk, a lost database, a dead GPU)
        are raised as errors of ours, so that the retry policy knows them.
        """
        try:
            report = self.work(context)
        except (AirflowSkipException, AirflowRescheduleException):
            raise
        except (Exception, AirflowTaskTimeout) as error:
            meant = sorted_error(error) or error
            self._leave_message(context, meant)
            if meant is error:
                raise
            raise meant from error
        self.log.info("%s", summary_line(self.task_id, report))
        if self.counts_documents:
            send_metrics(report, recipe_of(self.plan, self.dag.dag_id))
        return report

    def lineage_stage(self) -> str | None:
        """Returns the stage whose tables this task changes or checks for all shards, None where it does not."""
        return None

    def get_openlineage_facets_on_complete(self, _ti: Any) -> Any:
        """Returns what the task read and wrote, for Airflow's OpenLineage provider; it asks after failures too."""
        from corpusmill_operators.lineage import lineage_of

        return lineage_of(self.plan, self.lineage_stage())

    def _leave_message(self, context: Context, error: BaseException) -> None:
        """Logs why the task failed, as the log's first line about it, and leaves it as XCom for the run's report."""
        ti = context["ti"]
        where = "/".join(part for part in (crawl_of(context), getattr(self, "shard", None)) if part)
        decision = self.retry_policy.evaluate(error, ti.try_number, ti.max_tries) if self.retry_policy else None
        message = failure_message(error, where, decision, attempt=ti.try_number, attempts=ti.max_tries + 1)
        self.log.error("%s failed: %s", self.task_id, message)
        ti.xcom_push(key=ERROR_KEY, value=message)


def crawl_of(context: Context) -> str:
    """Returns the crawl id of a run: its partition key, else the parameter ``crawl``, else ""."""
    return str(context.get("partition_key") or context["params"].get("crawl") or "")


def summary_line(name: str, report: Mapping[str, Any]) -> str:
    """Returns a report's counts as one line of the task's log."""
    if report.get("skipped"):
        return f"{name} {_where(report)}: the same content is there already, nothing to do"
    if "documents_in" not in report:
        shown = {k: v for k, v in report.items() if isinstance(v, str | int | float | bool)}
        return f"{name}: " + ", ".join(f"{k}={v}" for k, v in shown.items())
    parts = [f"{report['documents_in']} documents in, {report['documents_kept']} kept"]
    for title in ("removed", "quarantined"):
        reasons = report.get(title) or {}
        if reasons:
            top = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:REASONS_SHOWN]
            parts.append(f"{sum(reasons.values())} {title} (" + ", ".join(f"{n} {r}" for r, n in top) + ")")
    return f"{name} {_where(report)}: {', '.join(parts)}, {report.get('seconds', 0.0):.1f} s"


def _where(report: Mapping[str, Any]) -> str:
    return "/".join(str(report[key]) for key in ("crawl", "shard") if report.get(key))
