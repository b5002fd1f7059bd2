"""The runs of an ablation: arms x students x seeds."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Context

from corpusmill_operators.ablation_step import AblationStepOperator


class ListArmsOperator(AblationStepOperator):
    """Lists every run of the plan and says in the log which are done already.

    Reads: the plan. Returns the runs' labels for ``.expand(arm=...)``. Second run: the same labels. Give it trigger
    rule ``none_failed``: without a reference model the mapped task before it is skipped.
    """

    step = "list_runs"
    in_child = False

    def work(self, context: Context) -> dict[str, Any]:
        """Returns the labels."""
        labels = self.result(context)
        return {"runs": labels, "n_runs": len(labels)}

    def execute(self, context: Context) -> Sequence[str]:
        """Returns the labels."""
        return list(super().execute(context)["runs"])
