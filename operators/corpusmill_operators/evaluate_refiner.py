"""Evaluation: what the refiner does on pages it never saw, and whether that is enough."""

from corpusmill_operators.build_step import BuildStepOperator


class EvaluateRefinerOperator(BuildStepOperator):
    """Measures the refiner through parser and executor, in a spawned child process.

    Reads: the stored model; the recipe's evaluation file, else the build's validation examples. Writes: the quality
    beside the build's plan. Retried: when the child process died. Fails at once: a figure is below the recipe's
    gate; the message names each of them. Second run: finds the figures.
    """

    step = "evaluate"
    in_child = True
