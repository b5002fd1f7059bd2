"""Packing: the corpus becomes a tokenizer and fixed-length sequences on disk."""

from corpusmill_operators.reference_step import ReferenceStepOperator


class PackReferenceTextOperator(ReferenceStepOperator):
    """Trains or takes the tokenizer and packs the corpus as a stream, in a spawned child process.

    Reads: the recipe's corpus. Writes: ``_reference_text/<text>`` in the warehouse, which every seed maps into its
    memory. Retried: when the child process died. Fails at once: there is too little text, or a checkpoint lies beyond
    the training. Second run: finds the text, also that of a build with another training.
    """

    step = "pack"
    in_child = True
