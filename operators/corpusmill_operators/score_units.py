"""Scoring: perplexity and EL2N of every document under a reference model."""

from corpusmill.pruning.config import ScoringConfig
from corpusmill_operators.map_stage import MapStageOperator


class ScoreUnitsOperator(MapStageOperator):
    """Scores every refined document of a shard in one forward pass, in a spawned child process.

    Reads: ``<recipe>.chunk_refinements`` (alone: ``source``). Writes: the shard's files and manifest of
    ``<recipe>.scores``, as sums that re-aggregate exactly (alone: commits ``target``). Retried: when the child process
    died. Second run: finds the manifest (alone: the commit key) and does nothing.
    """

    stage = "score"
    config_class = ScoringConfig
    in_child = True
