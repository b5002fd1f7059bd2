"""Scoring: perplexity and EL2N of every document or packed sequence under a reference model."""

from corpusmill.pruning.config import ScoringConfig
from corpusmill_operators.map_stage import MapStageOperator


class ScoreUnitsOperator(MapStageOperator):
    """Scores every refined document, or every packed sequence, of a shard in one forward pass, in a child process.

    Reads: ``<recipe>.chunk_refinements``, or ``<recipe>.sequences`` (alone: ``source``). Writes: the shard's files and
    manifest of ``<recipe>.scores``, as sums that re-aggregate exactly (alone: commits ``target``). Retried: when the
    child process died. Second run: finds the manifest (alone: the commit key) and does nothing.
    """

    stage = "score"
    config_class = ScoringConfig
    in_child = True
