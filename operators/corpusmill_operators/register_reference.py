"""Registration: models that passed their gate get names that recipes can use."""

from typing import Any

from airflow.sdk import Asset, Context

from corpusmill_operators.reference_step import ReferenceStepOperator


class RegisterReferenceModelOperator(ReferenceStepOperator):
    """Adds every seed's every model to ``ops.models`` and emits an event of every asset in ``outlets``.

    Reads: what the seeds' tasks stored. Writes: ``ops.models`` with corpus, split and data snapshot; returns ``model``,
    the reference of the first seed's last model (``registered:NAME@VERSION``), and ``models``, those of all. No recipe
    changes by this. Retried: when another commit was first. Second run: finds the same rows and does nothing.
    """

    step = "register"

    def work(self, context: Context) -> dict[str, Any]:
        """Registers, and puts the reference and the figures into the events."""
        report = super().work(context)
        for asset in self.outlets:
            if isinstance(asset, Asset):
                context["outlet_events"][asset].extra = {
                    key: value for key, value in report.items() if isinstance(value, str | int | float | bool)
                }
        return report
