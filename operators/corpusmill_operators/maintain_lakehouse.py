"""Upkeep of the lakehouse: what nobody needs any more goes, and small files become large ones."""

from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from corpusmill_operators.base import StageOperator

NAMESPACE_LABEL = "{{ task.namespace }}"
"""``map_index_template`` that shows the namespace in place of numbers."""


class MaintainLakehouseOperator(StageOperator):
    """Expires, compacts and cleans the tables of one namespace, beside whatever runs at the same time.

    Reads: table metadata, the listing of the warehouse, the rows of scattered partitions. Writes: snapshots of
    compaction and expiry; deletes files that nothing names. Retried: when the catalog does not answer; what a run in
    flight was in the way of is left for the next time and counted as ``left_busy``. Second run: finds nothing to do.

    Args:
        namespace: A recipe's name, ``raw`` or ``ops``, by ``.expand(namespace=...)`` (templated). One that was never
            created skips the task.
        days: Age from which replaced snapshots, kept audit branches and unused manifests go (templated).
        grace_hours: Age from which files that nothing names are deleted; longer than any task runs (templated).
        dry_run: True says what would be done and does nothing (templated).
    """

    template_fields = ("namespace", "days", "grace_hours", "dry_run")

    def __init__(
        self,
        *,
        namespace: str,
        days: float | str = 30.0,
        grace_hours: float | str = 72.0,
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.namespace, self.days, self.grace_hours, self.dry_run = namespace, days, grace_hours, dry_run

    def work(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - the interface of all operators
        """Does the upkeep; returns the counts, by table and in all."""
        from corpusmill.runner.maintain import UpkeepPolicy, maintain_namespace
        from corpusmill.runner.open_lakehouse import open_lakehouse

        lake = open_lakehouse()
        if not lake.catalog.namespace_exists(self.namespace):
            raise AirflowSkipException(f"namespace {self.namespace!r} is not in the lakehouse; its recipe never ran")
        # a template gives text
        dry_run = str(self.dry_run).lower() == "true"
        policy = UpkeepPolicy(float(self.days), float(self.grace_hours), dry_run)
        report = maintain_namespace(lake, self.namespace, policy, lambda line: self.log.info("%s", line))
        return {"namespace": report["namespace"], "dry_run": dry_run, **report["total"], "tables": report["tables"]}
