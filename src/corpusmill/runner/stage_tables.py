"""Which table each stage writes, in which partition, and from which stage it reads."""

from dataclasses import dataclass

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.table import LakeTable
from corpusmill.runner.plan import RAW, RunPlan
from corpusmill.runner.records import RecordNotFoundError

MAP_STAGES = ("ingest", "clean", "refine_documents", "refine_chunks", "pack", "score", "assemble_sequences", "assemble")
"""Stages that run once per shard."""

MODEL_STAGES = ("refine_documents", "refine_chunks", "score")
"""Stages that load a model and therefore run in a child process."""

TABLE_OF = {
    "ingest": "pages",
    "clean": "documents",
    "minhash": "minhash",
    "deduplicate": "duplicates",
    "lines": "duplicate_lines",
    "refine_documents": "document_refinements",
    "refine_chunks": "chunk_refinements",
    "pack": "sequences",
    "score": "scores",
    "assemble": "corpus",
    "assemble_sequences": "corpus_sequences",
}
"""Name of the table that each stage writes."""
_KEY_OF = {"assemble": "corpus", "assemble_sequences": "corpus_sequences"}
PUBLISHED = ("assemble", "assemble_sequences")
"""Stages whose tables are published by an audit branch."""


@dataclass(frozen=True)
class StageTable:
    """Where one stage of one run writes.

    Attributes:
        identifier: Namespace and table.
        partition: Partition column values.
        key_name: Name of its commit key in the plan.
    """

    identifier: str
    partition: dict[str, str]
    key_name: str


def stage_table(plan: RunPlan, stage: str) -> StageTable:
    """Returns the table and partition that a stage of this run writes.

    Raises:
        ConfigError: There is no such stage.
    """
    if stage not in TABLE_OF:
        raise ConfigError(f"stage={stage!r} writes no table; stages that do: {sorted(TABLE_OF)}")
    partition = {"crawl": plan.crawl}
    if stage == "ingest":
        return StageTable(f"{RAW}.pages", {**partition, "extraction": plan.extraction}, "ingest")
    return StageTable(f"{plan.name}.{TABLE_OF[stage]}", partition, _KEY_OF.get(stage, stage))


def published_stages(plan: RunPlan) -> tuple[str, ...]:
    """Returns the stages whose tables this run publishes: the corpus, and the sequences beside it where it has them."""
    return PUBLISHED if plan.packs_sequences else PUBLISHED[:1]


def committed(lake: Lakehouse, plan: RunPlan, stage: str) -> bool:
    """Returns whether the stage's partition holds exactly what this run would write."""
    place = stage_table(plan, stage)
    return bool(lake.table(place.identifier).partition_key(place.partition) == plan.keys[place.key_name])


def stages_committed(lake: Lakehouse, plan: RunPlan) -> bool:
    """Returns whether every stage table before the corpus holds what this plan names; stages left out do not count."""
    left_out = {stage for stage in MODEL_STAGES if plan.recipe[stage] is None}
    if not plan.packs_sequences:
        left_out.add("pack")
    left_out |= {stage for stage in ("minhash", "lines") if stage not in plan.keys}
    return all(committed(lake, plan, stage) for stage in TABLE_OF if stage not in (*PUBLISHED, *left_out))


def input_table(lake: Lakehouse, plan: RunPlan, stage: str) -> tuple[LakeTable, dict[str, str]]:
    """Returns an earlier stage's table and partition, after checking that it still holds what the plan names.

    Raises:
        RecordNotFoundError: The partition holds other content: it was not committed, or a newer run replaced it.
    """
    place = stage_table(plan, stage)
    table = lake.table(place.identifier)
    found, expected = table.partition_key(place.partition), plan.keys[place.key_name]
    if found != expected:
        raise RecordNotFoundError(
            f"{place.identifier} {place.partition} has content key={found!r}, expected {expected!r} of run "
            f"{plan.run_id!r}: the stage {stage!r} was not committed, or a newer run with other settings replaced it. "
            "If no newer run is under way, clear this run from 'plan'."
        )
    return table, place.partition
