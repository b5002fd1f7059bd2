"""Refinement, first half: a small model decides which documents stay (ProX document programs)."""

from corpusmill.prox.config import DocRefinementConfig
from corpusmill_operators.map_stage import MapStageOperator


class RefineDocumentsOperator(MapStageOperator):
    """Writes one document program, keep or drop, for every document of a shard, in a spawned child process.

    Reads: ``<recipe>.documents`` without duplicates (alone: ``source``). Writes: the shard's files and manifest of
    ``<recipe>.document_refinements`` (alone: commits ``target``). Retried: when the child process died.
    Second run: finds the manifest (alone: the commit key) and does nothing; no model is loaded.
    """

    stage = "refine_documents"
    config_class = DocRefinementConfig
    in_child = True
    asks_server = True
