"""Synthesis: answers and references become training examples."""

from corpusmill_operators.build_step import BuildStepOperator


class SynthesiseExamplesOperator(BuildStepOperator):
    """Makes examples in a spawned child process, checks each by executing it, and keeps refused ones with a reason.

    Reads: ``ops.seed_documents`` and the shards' answers. Writes: ``ops.refiner_examples``, the build's data
    snapshot. Retried: when another commit was first. Second run: finds the commit key and does nothing.
    """

    step = "synthesise"
    in_child = True
