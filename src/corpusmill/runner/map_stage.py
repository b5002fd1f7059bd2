"""Runs a map stage over one shard: reads each input file's rows, checks the stage's contract, writes its table.

Outputs are one attempt's Parquet files plus a shard manifest at a place fixed by the commit key; a retry whose manifest
exists already does nothing. Memory is bounded by one input file. Nothing is visible to readers before the commit.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import rows_to_table, slices
from corpusmill.errors import PermanentDataError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.shards import RunToken, ShardWriter, find_manifest
from corpusmill.report import StageReport
from corpusmill.runner.assemble import corpus_groups
from corpusmill.runner.assemble_sequences import sequence_groups
from corpusmill.runner.inputs import stage_input
from corpusmill.runner.models import with_model
from corpusmill.runner.pack import count_packed, packed_files
from corpusmill.runner.plan import RAW, RunPlan, Shard
from corpusmill.runner.refinement_alarms import alarm_sentences, shard_line, stage_alarms
from corpusmill.runner.stage_tables import PUBLISHED, committed, stage_table
from corpusmill.runner.stored_results import NOTHING, Existing, ShardReuse
from corpusmill.schema import QUARANTINE
from corpusmill.stage import QuarantinedInput, Stage, StageOutput

if TYPE_CHECKING:
    from corpusmill.ingest.stage import IngestStage

log = logging.getLogger(__name__)
Progress = Callable[[str], None]

BATCH_ROWS = 512
"""Rows a stage sees at once; a batch never spans two input files."""
FAULTS_TOLD = 10
"""Faults of a shard that its log tells one by one."""
EXAMPLES_IN_MESSAGE = 5
"""Faults named in the message of a shard that fails for too many of them."""


def run_shard(
    lake: Lakehouse, plan: RunPlan, stage: str, shard_name: str, progress: Progress = log.info
) -> StageReport:
    """Runs one stage on one shard and leaves its manifest.

    Args:
        lake: The lakehouse.
        plan: The run.
        stage: One of `stage_tables.MAP_STAGES`.
        shard_name: Shard of the plan.
        progress: Receives one line per input file.

    Returns:
        The shard's report; ``skipped`` where the result was there already.

    Raises:
        PermanentDataError: More documents failed than ``max_error_fraction`` allows; the worst are in the message.
    """
    place = stage_table(plan, stage)
    shard, token = plan.shard(shard_name), plan.token(place.key_name)
    manifest = find_manifest(lake, place.identifier, token, shard.identity)
    if manifest is not None:
        return _skipped(stage, plan, shard, manifest.report)
    if committed(lake, plan, stage):
        return _skipped(stage, plan, shard, {})
    started = time.monotonic()
    report = StageReport(stage=stage, crawl=plan.crawl, shard=shard.name)
    count = count_packed if stage == "pack" else count_output
    outputs, max_error_fraction = _outputs(lake, plan, stage, shard, progress)
    quarantine: list[tuple[str, QuarantinedInput]] = []
    with ShardWriter(lake.table(place.identifier), place.partition, token, shard.identity) as writer:
        for name, output in outputs:
            count(report, output)
            quarantine += [(name, q) for q in output.quarantine]
            _tell_faults(output.quarantine, len(quarantine), progress)
            for part in (output.kept, output.removed):
                if part.num_rows:
                    writer.write(part)
        report.seconds = round(time.monotonic() - started, 3)
        _tell_refinement(plan, report, progress)
        _write_quarantine(lake, plan, stage, shard, token, quarantine)
        refuse_too_many_errors(report, quarantine, max_error_fraction)
        writer.finish(report.to_json())
    return report


def _tell_faults(new: list[QuarantinedInput], n_so_far: int, progress: Progress) -> None:
    """Says what the first faults of a shard were; all of them are rows of ``ops.quarantine``."""
    room = FAULTS_TOLD - (n_so_far - len(new))
    for fault in new[: max(0, room)]:
        progress(f"quarantined {fault.where}: {fault.reason}: {fault.message}")


def _tell_refinement(plan: RunPlan, report: StageReport, progress: Progress) -> None:
    """Says how a shard's refinement went, and which alarms its numbers would raise."""
    alarms = stage_alarms(plan, report.stage)
    if alarms is not None:
        progress(shard_line(report))
        for sentence in alarm_sentences(report, alarms):
            progress(f"alarm: {sentence}")


def quarantine_partition(plan: RunPlan, stage: str) -> dict[str, str]:
    """Returns the partition of ``ops.quarantine`` that a stage of this run replaces; ingestion is shared by recipes."""
    recipe = f"{RAW}:{plan.extraction}" if stage == "ingest" else plan.name
    return {"recipe": recipe, "crawl": plan.crawl, "stage": stage}


def build_stage(plan: RunPlan, stage: str, existing: Existing = NOTHING) -> Stage | None:
    """Returns the stage with the plan's pinned model, or None where the recipe leaves it out.

    Args:
        plan: The run.
        stage: A map stage with settings in the recipe.
        existing: What need not be computed; by default nothing.
    """
    recipe = plan.parsed_recipe()
    config: Any = recipe.rules if stage == "clean" else getattr(recipe, stage)
    if config is None:
        return None
    if stage in plan.models:
        config = with_model(config, plan.models[stage])
    return make_stage(stage, config, existing)


def make_stage(stage: str, config: Any, existing: Existing = NOTHING) -> Stage:
    """Returns a map stage by its name; imports it only now, because some load torch."""
    if stage == "clean":
        from corpusmill.rules.stage import CleanStage

        return CleanStage(config, existing.documents)
    if stage == "refine_documents":
        from corpusmill.prox.doc_refinement import DocRefinementStage

        return DocRefinementStage(config, reuse=existing.outputs)
    if stage == "refine_chunks":
        from corpusmill.prox.chunk_refinement import ChunkRefinementStage

        return ChunkRefinementStage(config, reuse=existing.outputs)
    from corpusmill.pruning.scoring import ScoreStage

    return ScoreStage(config, existing.scores)


def _outputs(
    lake: Lakehouse, plan: RunPlan, stage: str, shard: Shard, progress: Progress
) -> tuple[Iterator[tuple[str, StageOutput]], float]:
    """Returns the stage's outputs by input file, and the share of faults that it tolerates."""
    if stage == "ingest":
        from corpusmill.ingest.stage import IngestStage  # crawl readers are absent where only plans are made

        recipe = plan.parsed_recipe()
        return _ingest(IngestStage(recipe.ingest), plan, shard, progress), recipe.ingest.max_error_fraction
    if stage == "pack":
        return packed_files(lake, plan, shard, progress), 1.0
    if stage in PUBLISHED:
        return _assembled(lake, plan, stage, shard), 1.0
    reuse = ShardReuse(lake, plan, stage, shard)
    made = build_stage(plan, stage, reuse.existing)
    if made is None:
        return iter(()), 1.0
    outputs = _mapped(lake, plan, stage, made, shard, progress, reuse)
    return outputs, getattr(made.config, "max_error_fraction", 1.0)


def _ingest(stage: "IngestStage", plan: RunPlan, shard: Shard, progress: Progress) -> Iterator[tuple[str, StageOutput]]:
    scratch = corpusmill_home() / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    stage.setup()
    try:
        for n, name in enumerate(shard.files, 1):
            pages = 0
            for output in stage.read_file(plan.base_location, name, plan.crawl, scratch):
                pages += output.kept.num_rows
                yield name, output
            progress(f"ingest {plan.crawl}/{shard.name}: file {n} of {len(shard.files)}, {pages} pages from {name}")
    finally:
        stage.close()


def _assembled(lake: Lakehouse, plan: RunPlan, stage: str, shard: Shard) -> Iterator[tuple[str, StageOutput]]:
    groups = corpus_groups if stage == "assemble" else sequence_groups
    for name, rows in groups(lake, plan, shard.files):
        metrics = {} if stage == "assemble" else {"sequence_tokens": float(pc.sum(rows["n_tokens"]).as_py() or 0)}
        yield name, StageOutput(kept=rows, removed=rows.slice(0, 0), metrics=metrics)


def _mapped(
    lake: Lakehouse, plan: RunPlan, stage: str, made: Stage, shard: Shard, progress: Progress, reuse: ShardReuse
) -> Iterator[tuple[str, StageOutput]]:
    groups = stage_input(lake, plan, stage, shard.files, made.input_columns)
    what = "sequences" if stage == "score" and plan.packs_sequences else "documents"
    set_up = False
    with reuse:
        for n, (name, rows) in enumerate(groups, 1):
            if rows.num_rows and not set_up:  # an empty shard loads no model
                made.setup()
                set_up = True
            reuse.open_file(name)
            done = 0
            for batch in slices(rows, BATCH_ROWS):
                yield name, checked(made, batch)
                done += batch.num_rows
                if done < rows.num_rows:
                    progress(f"{stage} {plan.crawl}/{shard.name}: {done} of {rows.num_rows} {what} of file {n}")
            progress(f"{stage} {plan.crawl}/{shard.name}: file {n} of {len(shard.files)}, {rows.num_rows} {what}")


def checked(stage: Stage, batch: pa.Table) -> StageOutput:
    """Returns the stage's output after checking its contract: every row is kept or removed, with the right schema."""
    output = stage.process(batch)
    n_out = output.kept.num_rows + output.removed.num_rows
    assert n_out == batch.num_rows, f"stage {stage.name} returned {n_out} rows of {batch.num_rows}"
    for part in (output.kept, output.removed):
        assert part.schema.equals(stage.output_schema), f"stage {stage.name} returned columns {part.schema.names}"
    if "text" in stage.output_schema.names:
        n_null = output.kept["text"].null_count
        assert n_null == 0, f"stage {stage.name} kept {n_null} rows without text"
    n_chars = pc.sum(pc.utf8_length(batch["text"])).as_py() if "text" in batch.schema.names else 0
    output.metrics.setdefault("characters_in", float(n_chars or 0))
    return output


def count_output(report: StageReport, output: StageOutput) -> None:
    """Adds one output's documents, characters, reasons and metrics to the report."""
    report.documents_kept += output.kept.num_rows
    report.documents_in += output.kept.num_rows + output.removed.num_rows
    report.characters_in += int(output.metrics.get("characters_in", 0))
    for column in ("n_chars", "n_chars_after"):
        if column in output.kept.schema.names:
            report.characters_kept += int(pc.sum(output.kept[column]).as_py() or 0)
            break
    removed = Counter(report.removed)
    for column in ("drop_reason", "reason", "skipped_reason"):
        if column in output.removed.schema.names and output.removed.num_rows:
            removed.update(str(v) for v in output.removed[column].to_pylist())
            break
    report.removed = dict(sorted(removed.items()))
    report.quarantined = dict(
        sorted((Counter(report.quarantined) + Counter(q.reason for q in output.quarantine)).items())
    )
    for name, value in output.metrics.items():
        if name != "characters_in":
            report.metrics[name] = report.metrics.get(name, 0) + value


def _write_quarantine(
    lake: Lakehouse,
    plan: RunPlan,
    stage: str,
    shard: Shard,
    token: RunToken,
    inputs: list[tuple[str, QuarantinedInput]],
) -> None:
    partition = quarantine_partition(plan, stage)
    rows = [
        {
            **partition,
            "warc_file": name,
            "where": q.where,
            "url": q.url,
            "reason": q.reason,
            "message": q.message,
            "first_bytes": q.first_bytes[:200],
            "n_bytes_lost": q.n_bytes_lost,
        }
        for name, q in inputs
    ]
    with ShardWriter(lake.table("ops.quarantine"), partition, token, shard.identity) as writer:
        if rows:
            rows.sort(key=lambda row: (str(row["warc_file"]), str(row["where"])))
            writer.write(rows_to_table(rows, QUARANTINE.schema))
        writer.finish({})


def refuse_too_many_errors(
    report: StageReport, quarantine: list[tuple[str, QuarantinedInput]], max_fraction: float
) -> None:
    """Raises a PermanentDataError where more inputs failed than the stage's settings allow; it names the first ones."""
    errors = {r: n for r, n in report.removed.items() if r.startswith("error.")} | report.quarantined
    n_errors, n = sum(errors.values()), report.documents_in + sum(report.quarantined.values())
    if n_errors <= max_fraction * n:
        return
    worst = "; ".join(f"{q.where}: {q.reason}: {q.message}" for _, q in quarantine[:EXAMPLES_IN_MESSAGE])
    raise PermanentDataError(
        f"{report.stage} of {report.crawl}/{report.shard}: {n_errors} of {n} inputs failed, more than "
        f"max_error_fraction={max_fraction}; by reason: {errors}; first ones: {worst or '(see the removed rows)'}. "
        "Look at these inputs; a retry reads the same bytes. Raise max_error_fraction only if they may be lost."
    )


def _skipped(stage: str, plan: RunPlan, shard: Shard, stored: Mapping[str, Any]) -> StageReport:
    report = (
        StageReport.from_json(dict(stored)) if stored else StageReport(stage=stage, crawl=plan.crawl, shard=shard.name)
    )
    report.skipped = True
    return report
