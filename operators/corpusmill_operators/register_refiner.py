"""Registration: a refiner that passed its gate gets a name that recipes can use."""

from typing import Any

from airflow.sdk import Asset, Context

from corpusmill_operators.build_step import BuildStepOperator


class RegisterRefinerOperator(BuildStepOperator):
    """Adds the measured refiner to ``ops.models`` and emits an event of every asset in ``outlets``.

    Reads: the stored model and its quality. Writes: ``ops.models`` with the data snapshot; returns ``model``, the
    reference for recipes (``registered:NAME@VERSION``). No recipe changes by this. Retried: when another commit was
    first. Second run: finds the same row and does nothing.
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
