"""Packs a shard's documents into token sequences: the stage between refinement and scoring, where sequences are scored.

Documents come as scoring would see them: after deduplication and refinement. Sequences never cross an input file, so
neither sharding nor compaction changes them.
"""

from collections.abc import Callable, Iterator

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.pack_stage import IN_REMAINDER, PackStage
from corpusmill.pruning.packing_config import packing_of
from corpusmill.report import StageReport
from corpusmill.runner.inputs import surviving_documents
from corpusmill.runner.models import with_model
from corpusmill.runner.plan import RunPlan, Shard
from corpusmill.stage import StageOutput


def packed_files(
    lake: Lakehouse, plan: RunPlan, shard: Shard, progress: Callable[[str], None]
) -> Iterator[tuple[str, StageOutput]]:
    """Yields (input file, some of its sequences) for each file of a shard."""
    scoring = plan.parsed_recipe().score
    assert scoring is not None, "only recipes that score pack"
    config = packing_of(scoring)
    if "score" in plan.models:
        config = with_model(config, plan.models["score"].model_copy(update={"further": ()}))
    stage = PackStage(config)
    for n, (name, documents) in enumerate(surviving_documents(lake, plan, shard.files, upto="score"), 1):
        metrics: dict[str, float] = {}
        for output in stage.pack_file(plan.crawl, name, documents):
            for what, value in output.metrics.items():
                metrics[what] = metrics.get(what, 0.0) + value
            yield name, output
        packed = f"{metrics.get('documents', 0):.0f} documents in {metrics.get('sequences', 0):.0f} sequences"
        progress(
            f"pack {plan.crawl}/{shard.name}: file {n} of {len(shard.files)}, {packed} of {config.length} tokens; "
            f"{metrics['remainder_tokens']:.0f} tokens at the end fill none and are dropped"
        )


def count_packed(report: StageReport, output: StageOutput) -> None:
    """Adds one output to the report of packing, which counts documents; sequences and tokens are metrics."""
    n, lost = (int(output.metrics.get(name, 0)) for name in ("documents", "documents_in_remainder"))
    report.documents_in += n
    report.documents_kept += n - lost
    report.characters_in += int(output.metrics.get("characters_in", 0))
    if lost:
        report.removed[IN_REMAINDER] = report.removed.get(IN_REMAINDER, 0) + lost
    for fault in output.quarantine:
        report.quarantined[fault.reason] = report.quarantined.get(fault.reason, 0) + 1
    for name, value in output.metrics.items():
        if name != "characters_in":
            report.metrics[name] = report.metrics.get(name, 0) + value
