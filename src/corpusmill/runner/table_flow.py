"""What a stage of a run read and wrote, as facts for a lineage system: tables, columns, rows, outcomes of checks."""

from dataclasses import dataclass, field

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import RunPlan, load_plan
from corpusmill.runner.records import find_record
from corpusmill.runner.stage_tables import stage_table
from corpusmill.runner.validate import validation_uri

READS = {
    "clean": ("ingest",),
    "deduplicate": ("clean",),
    "refine_documents": ("clean", "deduplicate"),
    "refine_chunks": ("clean", "deduplicate", "refine_documents"),
    "pack": ("clean", "deduplicate", "refine_documents", "refine_chunks"),
    "score": ("clean", "deduplicate", "refine_documents", "refine_chunks"),
    "assemble": ("ingest", "clean", "deduplicate", "refine_documents", "refine_chunks", "score"),
    "validate": ("assemble",),
    "publish": (),
}
"""Stages whose tables each stage reads; ``ingest`` reads the crawl. Stages that a recipe leaves out do not count."""


@dataclass(frozen=True)
class Dataset:
    """A table, or the files of a crawl.

    Attributes:
        namespace: Warehouse, or the place that holds the crawl.
        name: Identifier of the table, or folder of the crawl.
        location: Where its files lie.
        columns: Names and types.
        rows: Rows of the run's partition, None where they were not counted.
        snapshot: Snapshot of the table that was read or written, None before the first.
    """

    namespace: str
    name: str
    location: str
    columns: tuple[tuple[str, str], ...] = ()
    rows: int | None = None
    snapshot: int | None = None


@dataclass(frozen=True)
class Check:
    """A check of the audit that did not hold.

    Attributes:
        kind: Expectation in Great Expectations' words.
        severity: ``error`` (it stops the publication) or ``warn``.
        sentence: What was seen and expected.
    """

    kind: str
    severity: str
    sentence: str


@dataclass(frozen=True)
class Flow:
    """What one stage of one run read and wrote.

    Attributes:
        inputs: What it read.
        outputs: What it wrote.
        checks: Checks that did not hold; of ``validate`` only.
        n_checks: Checks in all, 0 where nothing was checked.
    """

    inputs: list[Dataset]
    outputs: list[Dataset]
    checks: list[Check] = field(default_factory=list)
    n_checks: int = 0


def table_flow(plan_uri: str, stage: str) -> Flow:
    """Returns what a stage of a run read and wrote; reads metadata and one record, no data.

    Args:
        plan_uri: URI of the run's plan.
        stage: A stage that writes a table, ``validate`` or ``publish``.
    """
    lake = open_lakehouse()
    plan = load_plan(lake, plan_uri)
    inputs = [_table(lake, plan, s) for s in READS.get(stage, ()) if _has(plan, s)]
    if stage == "ingest":
        crawl = f"crawl-data/{plan.crawl}"
        inputs = [Dataset(plan.base_location, crawl, f"{plan.base_location.rstrip('/')}/{crawl}")]
    if stage == "validate":
        return _with_checks(lake, plan, inputs)
    return Flow(inputs, [_table(lake, plan, "assemble" if stage == "publish" else stage)])


def _has(plan: RunPlan, stage: str) -> bool:
    return stage in ("ingest", "clean", "deduplicate", "assemble") or plan.recipe.get(stage) is not None


def _table(lake: Lakehouse, plan: RunPlan, stage: str) -> Dataset:
    place = stage_table(plan, stage)
    table = lake.table(place.identifier)
    return Dataset(
        namespace=lake.settings.warehouse,
        name=place.identifier,
        location=table.location,
        columns=tuple((f.name, str(f.type)) for f in table.spec.schema),
        rows=table.count(place.partition),
        snapshot=table.snapshot_id(),
    )


def _with_checks(lake: Lakehouse, plan: RunPlan, inputs: list[Dataset]) -> Flow:
    outcome = find_record(lake, validation_uri(lake, plan)) or {}
    checks = [
        Check(sentence.partition("(")[0], severity, sentence)
        for name, severity in (("failed", "error"), ("warnings", "warn"))
        for sentence in outcome.get(name, [])
    ]
    return Flow(inputs, [], checks, int(outcome.get("n_checks", 0)))
