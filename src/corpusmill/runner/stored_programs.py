"""Joins the refinement stages to the outputs that exist: the crawl's own table as it is now, and the machine's cache.

A run with another execution policy replaces the crawl's partition; until its commit the partition holds what the run
before it wrote, so programs and margins are taken from there and decided again, and only other texts reach a model.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.table import LakeTable
from corpusmill.prox.chunk_refinement import written_programs
from corpusmill.prox.program_cache import ProgramCache
from corpusmill.prox.refiner import DocDecision
from corpusmill.prox.stored_outputs import NO_REUSE, Reuse, StoredDecision, StoredPrograms
from corpusmill.runner.plan import RunPlan, Shard
from corpusmill.runner.stage_tables import stage_table

_IDENTITY = ("output_key", "text_digest")
_COLUMNS = {
    "refine_documents": ("program", "margin", "n_prompt_tokens", "truncated", "decision", "reason"),
    "refine_chunks": ("programs",),
}
"""What each stage's table holds of an output; a row without the first of these has none (the refiner failed)."""


class StoredRows:
    """The stored outputs of one partition, one input file at a time; memory is bounded by that file's programs.

    The table is read as it was when this was made, whatever is committed meanwhile.

    Args:
        table: The stage's table.
        partition: Partition column values.
        stage: ``refine_documents`` or ``refine_chunks``.
        files: Input files in the order in which they will be asked for.
    """

    def __init__(self, table: LakeTable, partition: dict[str, str], stage: str, files: Sequence[str]) -> None:
        self._first, *_ = self._names = _COLUMNS[stage]
        self._rows: dict[str, dict[str, Any]] = {}
        columns = [*_IDENTITY, *self._names]
        held = set(columns) <= set(table.spec.schema.names)  # else a table of a version that stored no identity
        self._groups: Iterator[tuple[str, pa.Table]] = (
            table.iter_groups(partition, groups=files, columns=columns) if held else iter(())
        )

    def open_file(self, name: str) -> None:
        """Reads the outputs of an input file; those of the file before it are forgotten."""
        self._rows = {}
        for group, rows in self._groups:
            if group == name:
                whole = pc.and_(pc.is_valid(rows["output_key"]), pc.is_valid(rows[self._first]))
                self._rows = {row["text_digest"]: row for row in rows.filter(whole).to_pylist()}
                return

    def decision(self, digest: str) -> StoredDecision | None:
        """Returns what the document refiner wrote for a text of the open file."""
        row = self._rows.get(digest)
        if row is None:
            return None
        decision = DocDecision(
            row["decision"], row["margin"], row["program"], row["n_prompt_tokens"], row["truncated"], row["reason"]
        )
        return StoredDecision(row["output_key"], decision)

    def programs(self, digest: str) -> StoredPrograms | None:
        """Returns what the chunk refiner wrote for a text of the open file."""
        row = self._rows.get(digest)
        return None if row is None else StoredPrograms(row["output_key"], written_programs(row["programs"]))


class TableReuse:
    """Where the outputs of a refinement over one partition are looked for; a context manager that closes the cache.

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
        self.reuse = NO_REUSE
        self._stored: StoredRows | None = None
        self._cache: ProgramCache | None = None
        if stage in _COLUMNS and config is not None and config.reuse_stored:
            self._stored = StoredRows(table, partition, stage, files)
            self._cache = ProgramCache(cache_path())
            self.reuse = Reuse(self._stored, self._cache)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._cache is not None:
            self._cache.close()

    def open_file(self, name: str) -> None:
        """Makes the stored outputs of an input file those that are found."""
        if self._stored is not None:
            self._stored.open_file(name)


class ShardReuse(TableReuse):
    """The same for one shard of a run.

    Args:
        lake: The lakehouse.
        plan: The run.
        stage: A map stage.
        shard: Shard of the plan.
    """

    def __init__(self, lake: Lakehouse, plan: RunPlan, stage: str, shard: Shard) -> None:
        place = stage_table(plan, stage)
        config = getattr(plan.parsed_recipe(), stage) if stage in _COLUMNS else None
        super().__init__(lake.table(place.identifier), place.partition, stage, config, shard.files)


def cache_path() -> Path:
    """Returns the file of this machine's cache of outputs."""
    return corpusmill_home() / "cache" / "programs.sqlite"
