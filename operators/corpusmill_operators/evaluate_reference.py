"""Evaluation: the loss curves of all seeds, and whether the models are good enough."""

from corpusmill_operators.reference_step import ReferenceStepOperator


class EvaluateReferenceModelOperator(ReferenceStepOperator):
    """Stores the seeds' loss curves as JSON and as a plot, and holds each last model against the recipe's gate.

    Reads: what the seeds' tasks stored. Writes: ``loss_curves.json`` and ``loss_curves.svg`` beside the build's plan.
    Retried: when the warehouse did not answer. Fails at once: a held-out figure is above the gate; the message names
    each. Second run: writes the same files.
    """

    step = "evaluate"
