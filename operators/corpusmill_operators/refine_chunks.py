"""Refinement, second half: a small model writes programs that clean the text (ProX chunk programs)."""

from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill_operators.map_stage import MapStageOperator


class RefineChunksOperator(MapStageOperator):
    """Writes and executes chunk programs for every kept document of a shard, in a spawned child process.

    Reads: ``<recipe>.documents`` that the document refiner kept (alone: ``source``). Writes: the shard's files and
    manifest of ``<recipe>.chunk_refinements``, programs as emitted and refined text (alone: commits ``target``).
    Retried: when the child process died. Second run: finds the manifest (alone: the commit key) and does nothing.
    """

    stage = "refine_chunks"
    config_class = ChunkRefinementConfig
    in_child = True
    asks_server = True
