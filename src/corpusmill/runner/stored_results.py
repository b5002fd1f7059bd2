"""Joins the stages to the results that exist: the crawl's own tables as they are now, and this machine's caches.

A run with other settings replaces the crawl's partition; until its commit the partition holds what the run before it
wrote. So measures, programs, margins and scores are taken from there and decided again, and only what is not there is
computed: tightening a threshold asks no model, loosening one asks it about the newly admitted documents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.config import fingerprint
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.table import LakeTable
from corpusmill.modeling.output_cache import SqliteOutputCache
from corpusmill.prox.chunk_refinement import written_programs
from corpusmill.prox.refiner import DocDecision
from corpusmill.prox.stored_outputs import NO_REUSE, Reuse, StoredDecision, StoredPrograms
from corpusmill.pruning.stored_scores import NO_SCORES, ScoreReuse
from corpusmill.rules.redecide import StoredDocuments
from corpusmill.runner.committed_plan import plan_behind
from corpusmill.runner.models import without_models
from corpusmill.runner.plan import RunPlan, Shard
from corpusmill.runner.stage_tables import stage_table

_IDENTITY = ("output_key", "text_digest")
_OUTPUTS = {
    "refine_documents": ("program", "margin", "n_prompt_tokens", "truncated", "decision", "reason"),
    "refine_chunks": ("programs",),
}
"""What each refinement's table holds of an output; a row without the first of these has none (the refiner failed)."""


class FileRows:
    """Rows of one partition, one input file at a time; memory is bounded by that file's rows.

    The table is read as it was when this was made, whatever is committed meanwhile.

    Args:
        table: A stage's table.
        partition: Partition column values.
        files: Input files in the order in which they will be asked for.
        columns: Columns to read; a table of a version that had not all of them holds nothing.
        by: Column by which rows are found.
        present: Columns that are not null in a row that counts.
    """

    def __init__(
        self,
        table: LakeTable,
        partition: dict[str, str],
        files: Sequence[str],
        columns: Sequence[str],
        by: str,
        present: Sequence[str] = (),
    ) -> None:
        self._by, self._present = by, present
        self._rows: dict[str, dict[str, Any]] = {}
        held = set(columns) <= set(table.spec.schema.names)
        self._groups: Iterator[tuple[str, pa.Table]] = (
            table.iter_groups(partition, groups=files, columns=list(columns)) if held else iter(())
        )

    def open_file(self, name: str) -> None:
        """Reads the rows of an input file; those of the file before it are forgotten."""
        self._rows = {}
        for group, rows in self._groups:
            if group == name:
                for column in self._present:
                    rows = rows.filter(pc.is_valid(rows[column]))
                self._rows = {row[self._by]: row for row in rows.to_pylist()}
                return

    def find(self, key: str) -> dict[str, Any] | None:
        """Returns a row of the open file, None where there is none."""
        return self._rows.get(key)


@dataclass(frozen=True)
class StoredOutputRows:
    """What a refiner wrote for the texts of the open file."""

    rows: FileRows

    def decision(self, digest: str) -> StoredDecision | None:
        """Returns what the document refiner wrote for a text of the open file."""
        row = self.rows.find(digest)
        if row is None:
            return None
        decision = DocDecision(
            row["decision"], row["margin"], row["program"], row["n_prompt_tokens"], row["truncated"], row["reason"]
        )
        return StoredDecision(row["output_key"], decision)

    def programs(self, digest: str) -> StoredPrograms | None:
        """Returns what the chunk refiner wrote for a text of the open file."""
        row = self.rows.find(digest)
        return None if row is None else StoredPrograms(row["output_key"], written_programs(row["programs"]))


def output_rows(table: LakeTable, partition: dict[str, str], stage: str, files: Sequence[str], by: str) -> FileRows:
    """Returns the rows of a refinement's table that hold an output.

    Args:
        table: The table.
        partition: Partition column values.
        stage: ``refine_documents`` or ``refine_chunks``.
        files: Input files in the order in which they will be asked for.
        by: Column by which rows are found: ``text_digest`` or ``doc_id``.
    """
    names = _OUTPUTS[stage]
    columns = list(dict.fromkeys([by, *_IDENTITY, *names, "kept"]))
    return FileRows(table, partition, files, columns, by, ("output_key", names[0]))


@dataclass(frozen=True)
class Existing:
    """What a stage may take in place of computing it; nothing by default.

    Attributes:
        outputs: What refiners wrote.
        scores: What reference models scored.
        documents: What the rules measured.
    """

    outputs: Reuse = NO_REUSE
    scores: ScoreReuse = NO_SCORES
    documents: StoredDocuments | None = None


NOTHING = Existing()
"""Everything is computed."""


class TableReuse:
    """Where the outputs of a refinement over one partition are looked for; a context manager that closes the caches.

    Nowhere where the stage is no refinement or its setting ``reuse_stored`` is off.

    Args:
        table: The stage's table.
        partition: Partition column values.
        stage: A map stage.
        config: Its settings; None: the recipe leaves it out.
        files: Input files in the order in which they will be asked for.
    """

    def __init__(
        self, table: LakeTable, partition: dict[str, str], stage: str, config: Any, files: Sequence[str]
    ) -> None:
        self.existing = NOTHING
        self._rows: FileRows | None = None
        self._cache: SqliteOutputCache | None = None
        if stage in _OUTPUTS and config is not None and config.reuse_stored:
            self._rows = output_rows(table, partition, stage, files, "text_digest")
            self._cache = SqliteOutputCache(cache_path())
            self.existing = Existing(outputs=Reuse(StoredOutputRows(self._rows), self._cache))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._cache is not None:
            self._cache.close()

    def open_file(self, name: str) -> None:
        """Makes the stored results of an input file those that are found."""
        if self._rows is not None:
            self._rows.open_file(name)


class ShardReuse(TableReuse):
    """The same for one shard of a run, and beside refinements for the rules and for scores.

    Their rows count where the run that committed them had the same inputs, models and settings, thresholds of rules
    apart; that run's plan says so.

    Args:
        lake: The lakehouse.
        plan: The run.
        stage: A map stage.
        shard: Shard of the plan.
    """

    def __init__(self, lake: Lakehouse, plan: RunPlan, stage: str, shard: Shard) -> None:
        place = stage_table(plan, stage)
        table = lake.table(place.identifier)
        config = getattr(plan.parsed_recipe(), stage) if stage in _OUTPUTS else None
        super().__init__(table, place.partition, stage, config, shard.files)
        names = table.spec.schema.names
        if stage == "clean" and measured_alike(lake, plan):
            self._rows = FileRows(table, place.partition, shard.files, names, "doc_id")
            self.existing = Existing(documents=self._rows)
        if stage == "score" and (identity := scoring_identity(plan)) is not None:
            if scored_alike(lake, plan, identity):
                self._rows = FileRows(table, place.partition, shard.files, names, "text_digest", ("text_digest",))
            self._cache = SqliteOutputCache(checkpoints_path())
            self.existing = Existing(scores=ScoreReuse(identity, self._rows, self._cache))


def scoring_identity(plan: RunPlan) -> str | None:
    """Returns what the scores of a run depend on beside the texts, None where its recipe scores nothing."""
    config = plan.parsed_recipe().score
    pinned = plan.models.get("score")
    if config is None:
        return None
    settings = config if pinned is None else without_models(config)
    return fingerprint([settings.fingerprint(), pinned.identity() if pinned else None])


def measured_alike(lake: Lakehouse, plan: RunPlan) -> bool:
    """Returns whether the crawl's documents were measured on this run's pages, thresholds apart as it would."""
    before = plan_behind(lake, plan, "clean")
    if before is None or before.keys["ingest"] != plan.keys["ingest"]:
        return False
    rules = [p.parsed_recipe().rules for p in (before, plan)]
    return rules[0].measure_fingerprint() == rules[1].measure_fingerprint()


def scored_alike(lake: Lakehouse, plan: RunPlan, identity: str) -> bool:
    """Returns whether the crawl's scores were computed by the same models under the same settings."""
    before = plan_behind(lake, plan, "score")
    return before is not None and scoring_identity(before) == identity


def cache_path() -> Path:
    """Returns the file of this machine's cache of refiner outputs."""
    return corpusmill_home() / "cache" / "programs.sqlite"


def checkpoints_path() -> Path:
    """Returns the file of this machine's checkpoints of scoring."""
    return corpusmill_home() / "cache" / "scores.sqlite"
