"""Training: a small model learns from the examples."""

from corpusmill_operators.build_step import BuildStepOperator


class TrainRefinerOperator(BuildStepOperator):
    """Trains the refiner in a spawned child process and stores its folder; nothing uses it before it is registered.

    Reads: ``ops.refiner_examples``. Writes: a model folder in the warehouse. Retried: when the child process died;
    it goes on from its last checkpoint where the kind of refiner has them. Second run: finds the stored model and
    does nothing.
    """

    step = "train"
    in_child = True
