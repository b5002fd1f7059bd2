"""The contract between a stage and the runner.

A map stage is a pure function of one Arrow batch and a frozen config. It never opens a table, a clock or the network;
the runner reads its input, checks its output and writes it. Global steps (deduplication, selection, training) are
plain functions and do not pretend to be map stages.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import pyarrow as pa

from corpusmill.config import StageConfig


@dataclass(frozen=True)
class QuarantinedInput:
    """An input that could not be processed, as it will stand in ``ops.quarantine``.

    Attributes:
        where: Where it came from: file and offset, or document id.
        reason: Stable machine reason, ``stage.what`` (for instance ``"ingest.bad_gzip_member"``).
        message: What was wrong, with the value and what was expected.
        first_bytes: The first bytes of the payload, at most 200, for a person to look at.
        url: URL of the page, ``""`` where unknown.
        n_bytes_lost: Bytes of the input that were skipped, 0 where nothing was lost but this record.
    """

    where: str
    reason: str
    message: str
    first_bytes: bytes = b""
    url: str = ""
    n_bytes_lost: int = 0


@dataclass
class StageOutput:
    """What a stage made of one batch. Both tables have the stage's ``output_schema``.

    Attributes:
        kept: Rows whose document goes on.
        removed: Rows whose document stops here; ``drop_reason`` (or ``reason``) says why, measures are kept.
        quarantine: Inputs that could not be processed at all.
        metrics: Additive counts for the report.
    """

    kept: pa.Table
    removed: pa.Table
    quarantine: list[QuarantinedInput] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Stage(Protocol):
    """A map stage. ``kept.num_rows + removed.num_rows == batch.num_rows``; the runner checks it on every batch."""

    @property
    def name(self) -> str:
        """Stage name: table suffix, task id and metric prefix."""

    @property
    def config(self) -> StageConfig:
        """The frozen settings."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that `process` reads; the runner selects exactly these."""

    @property
    def output_schema(self) -> pa.Schema:
        """Schema of both output tables, from `corpusmill.schema`."""

    def setup(self) -> None:
        """Loads models and other expensive state once per process."""
        ...

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns kept and removed rows of one batch; a batch never spans two input files."""
        ...
