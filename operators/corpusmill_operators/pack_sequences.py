"""Packing: documents become token sequences of one length, the unit that is then scored and selected."""

from corpusmill_operators.map_stage import MapStageOperator


class PackSequencesOperator(MapStageOperator):
    """Packs a shard's refined documents into sequences, file by file in the order of their ids, in a child process.

    Reads: ``<recipe>.chunk_refinements``. Writes: the shard's files and manifest of ``<recipe>.sequences``; tokens that
    fill no sequence are dropped and counted. Retried: when the child process died. Second run: finds the manifest and
    does nothing. It needs a tokenizer and no GPU.
    """

    stage = "pack"
    in_child = True
