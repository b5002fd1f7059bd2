"""Training: one decoder for each seed, saved at each checkpoint."""

from corpusmill_operators.reference_step import ReferenceStepOperator


class TrainReferenceModelOperator(ReferenceStepOperator):
    """Trains one seed in a spawned child process and stores a model folder for each checkpoint.

    Reads: the packed text. Writes: model folders in the warehouse; nothing uses them before they are registered.
    Retried: when the child process died; it goes on from its last checkpoint with the loss curve it would have had.
    Second run: finds the stored models and does nothing.
    """

    step = "train"
    in_child = True
