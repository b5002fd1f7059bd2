"""The end of an ablation: its report."""

from corpusmill_operators.ablation_step import AblationStepOperator


class ReportAblationOperator(AblationStepOperator):
    """Writes ``report.html`` and ``report.json`` of all runs that are done.

    Reads: the results beside the plan. Writes: the report; its places and the best arms are the return value, its main
    figures stand in the log. Second run: writes the same report again.
    """

    step = "report"
    in_child = False
