"""Runs one map stage on any table, outside the chain of a recipe: the stage as a reusable operator.

The source is any table partitioned by ``crawl`` with the stage's input columns; the target is created if it is not
there. The commit follows the same protocol as in the chain: one snapshot replaces the crawl's partition, and a second
run with the same input and settings finds its key and does nothing.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from corpusmill import __version__
from corpusmill.batches import slices
from corpusmill.config import StageConfig, fingerprint
from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.lakehouse.shards import RunToken, ShardWriter
from corpusmill.lakehouse.table import LakeTable
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.pruning.config import ScoringConfig
from corpusmill.report import StageReport
from corpusmill.rules.config import RulesConfig
from corpusmill.runner.device import device_slot
from corpusmill.runner.inputs import sequence_units
from corpusmill.runner.map_stage import BATCH_ROWS, checked, count_output, make_stage, refuse_too_many_errors
from corpusmill.runner.models import pin_models_of, with_model
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.stage_tables import MODEL_STAGES
from corpusmill.runner.stored_results import TableReuse
from corpusmill.runner.whole_crawl import WHOLE_CRAWL
from corpusmill.schema import CHUNK_REFINEMENTS, DOCUMENT_REFINEMENTS, DOCUMENTS, SCORES, SEQUENCES, TableSpec
from corpusmill.stage import Stage

log = logging.getLogger(__name__)

STAGES: dict[str, tuple[type[StageConfig], TableSpec]] = {
    "clean": (RulesConfig, DOCUMENTS),
    "refine_documents": (DocRefinementConfig, DOCUMENT_REFINEMENTS),
    "refine_chunks": (ChunkRefinementConfig, CHUNK_REFINEMENTS),
    "score": (ScoringConfig, SCORES),
}
"""Map stages that run alone, with their settings and the table they write."""


def configured(stage: str, config: Mapping[str, Any]) -> tuple[Any, list[str | None]]:
    """Returns a stage's settings with its model resolved, and the identity of that model for the commit key.

    Raises:
        ConfigError: There is no such stage, or a setting is wrong.
    """
    if stage not in STAGES:
        raise ConfigError(f"stage={stage!r} cannot run alone; stages that can: {sorted(STAGES)}")
    settings: Any = STAGES[stage][0].load(config)
    if not getattr(settings, "model", None):
        return settings, []
    pinned = pin_models_of(settings)
    return with_model(settings, pinned), pinned.identity()


def scores_sequences(settings: StageConfig) -> bool:
    """Returns whether a stage reads packed sequences in place of documents."""
    return isinstance(settings, ScoringConfig) and settings.unit == "sequence"


def run_stage(
    stage: str,
    config: Mapping[str, Any],
    *,
    source: str,
    target: str,
    crawl: str,
    run_id: str,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Reads one crawl of ``source``, runs the stage on all of it, replaces that crawl in ``target``.

    Args:
        stage: One of `STAGES`.
        config: The stage's settings.
        source: Table to read, ``namespace.table``.
        target: Table to write; created if missing.
        crawl: Value of the partition column ``crawl``.
        run_id: Who runs it; stands in the snapshot.
        progress: Receives a line per input file.

    Returns:
        The report, as a mapping.
    """
    settings, model = configured(stage, config)
    spec = STAGES[stage][1]
    lake = open_lakehouse()
    table = lake.table(source)
    partition = {"crawl": crawl}
    if not table.data_files(partition):
        known = sorted({str(c) for c in table.scan(None, columns=["crawl"])["crawl"].unique().to_pylist()})
        raise ConfigError(f"table {source!r} has no rows of crawl={crawl!r}; it has {known[-10:]}")
    content = table.partition_key(partition) or fingerprint(sorted(table.data_files(partition)))
    key = fingerprint([target, crawl, stage, STAGES[stage][0].load(config).fingerprint(), model, source, content])
    lake.create_table(target, spec)
    report = StageReport(stage=stage, crawl=crawl)
    if lake.table(target).partition_key(partition) == key:
        report.skipped = True
        return report.to_json()
    epoch = take_epoch(lake, target, crawl, run_id)
    token = RunToken(target, crawl, run_id, epoch, key, {"corpusmill": __version__})
    say = progress or log.info
    files = sorted(str(f) for f in table.scan(partition, columns=["warc_file"])["warc_file"].unique().to_pylist())
    device = device_slot(say) if stage in MODEL_STAGES else contextlib.nullcontext()
    with device, TableReuse(lake.table(target), partition, stage, settings, files) as reuse:
        _write(lake, table, make_stage(stage, settings, reuse.existing), reuse, files, report, target, token, say)
    return report.to_json()


def _write(
    lake: Lakehouse,
    source: LakeTable,
    stage: Stage,
    reuse: TableReuse,
    files: list[str],
    report: StageReport,
    target: str,
    token: RunToken,
    progress: Callable[[str], None],
) -> None:
    partition = {"crawl": token.crawl}
    decided = "kept" in source.spec.schema.names
    columns = [*stage.input_columns, "kept"] if decided else list(stage.input_columns)
    of_sequences = scores_sequences(stage.config)
    if of_sequences:
        columns = SEQUENCES.schema.names
    stage.setup()
    with ShardWriter(lake.table(target), partition, token, WHOLE_CRAWL) as writer:
        for name, rows in source.iter_groups(partition, groups=files, columns=columns):
            if decided:  # what an earlier stage removed has no text and goes no further
                rows = rows.filter(rows["kept"]).drop_columns(["kept"])
            reuse.open_file(name)
            if of_sequences:
                rows = sequence_units(rows).select(list(stage.input_columns))
            for batch in slices(rows, BATCH_ROWS):
                output = checked(stage, batch)
                count_output(report, output)
                for part in (output.kept, output.removed):
                    if part.num_rows:
                        writer.write(part)
            progress(f"{report.stage} {token.crawl}: {rows.num_rows} documents of {name}")
        refuse_too_many_errors(report, [], getattr(stage.config, "max_error_fraction", 1.0))
        manifest = writer.finish(report.to_json())
    commit_partition(lake, target, partition, [manifest], token, expected_shards=[WHOLE_CRAWL])
