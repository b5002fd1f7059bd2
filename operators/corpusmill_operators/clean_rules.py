"""Rule cleaning: pages become documents with every rule's measure."""

from corpusmill.rules.config import RulesConfig
from corpusmill_operators.map_stage import MapStageOperator


class CleanRulesOperator(MapStageOperator):
    """Identifies the language, measures every rule, decides, masks personal data.

    Reads: ``raw.pages`` (alone: ``source`` with the same columns). Writes: the shard's files and manifest of
    ``<recipe>.documents`` (alone: commits ``target``); a removed page keeps its row, reason and measures.
    Retried: nothing in particular. Second run: finds the manifest (alone: the commit key) and does nothing.
    """

    stage = "clean"
    config_class = RulesConfig
