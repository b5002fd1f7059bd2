"""Assembly: the selected documents with their text, scores and provenance."""

from corpusmill_operators.map_stage import MapStageOperator


class AssembleCorpusOperator(MapStageOperator):
    """Joins one shard's selected documents into rows of the corpus.

    Reads: the run's selection and the stage tables. Writes: the shard's files and manifest of ``<recipe>.corpus``, and
    where sequences are selected of ``<recipe>.corpus_sequences``, not visible to any reader. Retried: nothing in
    particular. Second run: finds the manifest and does nothing.
    """

    stage = "assemble"
