"""Ingestion: crawl files become pages."""

from corpusmill_operators.map_stage import MapStageOperator


class IngestCrawlOperator(MapStageOperator):
    """Reads the WARC, WET or ARC files of one shard and extracts their text.

    Reads: the shard's files at the plan's source. Writes: the shard's files and manifest of ``raw.pages``; inputs that
    cannot be processed become rows of ``ops.quarantine``, the rest goes on. Retried: files that a server did not
    deliver; above ``max_error_fraction`` the shard fails at once with the worst examples in its message.
    Second run: finds the shard's manifest and does nothing.
    """

    stage = "ingest"
