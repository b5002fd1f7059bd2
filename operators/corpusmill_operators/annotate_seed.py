"""Annotation: a large model reads the seed documents."""

from corpusmill_operators.build_step import BuildStepOperator


class AnnotateSeedOperator(BuildStepOperator):
    """Asks the teacher about every document of a shard; where the route asks nobody, there is nothing to do.

    Reads: ``ops.seed_documents``; a chat server by the Airflow connection that the recipe names, or a local model.
    Writes: the shard's answers beside the build's plan. Retried: when the server did not answer. Second run: asks
    only what has no answer yet, so a kill loses the answers in flight and nothing else.
    """

    step = "annotate"
    in_child = True
    asks_teacher = True
