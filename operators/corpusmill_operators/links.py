"""Links on the page of a task. They are registered once, by ``plugins/corpusmill_plugin.py``."""

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class DataDocsLink(BaseOperatorLink):
    """Opens the validation site of a run. It is evaluated in the task process, after `execute` has ended or failed."""

    name = "Data Docs"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:  # noqa: ARG002 - their interface
        """Returns the address of the site that `ValidateTableOperator` wrote, "" where it wrote none."""
        url: Any = getattr(operator, "data_docs_url", None)
        return str(url or "")
