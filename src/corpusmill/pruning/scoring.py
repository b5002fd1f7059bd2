"""The scoring stage: one row of score sums per document or packed sequence, under one reference model or several."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from corpusmill.batches import rows_to_table
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.loaded_models import LoadedModels, load_models
from corpusmill.pruning.score_row import TOO_FEW_TOKENS, UnitSums, measures
from corpusmill.pruning.window_scorer import WindowScorer
from corpusmill.pruning.windows import Unit, cut_windows, read_ahead, sequence_units, text_units
from corpusmill.schema import SCORES
from corpusmill.stage import StageOutput

__all__ = ["TOO_FEW_TOKENS", "ScoreStage"]

IDENTITY = ("crawl", "doc_id", "warc_file", "language")
INPUT_COLUMNS = {
    "document": (*IDENTITY, "text"),
    "sequence": (*IDENTITY, "n_bytes", "tokens", "tokenizer_sha256"),
}
"""Columns read by unit. A sequence's ``doc_id`` is its own id, ``n_bytes`` the bytes of its decoded tokens (counted
here where null), ``tokens`` ids of the tokenizer that ``tokenizer_sha256`` names."""


@dataclass
class ScoreStage:
    """Writes score sums for every unit and removes none; a unit that fails is a removed row with its reason.

    A unit is cut in windows of ``context`` tokens that do not overlap, padded on the right; the first token of a window
    has no context and is not scored unless ``prefix="eod"``. A thread encodes texts ahead of the model. Batches are
    planned over groups of rows of one call; another plan moves scores by rounding (1e-5 relative in float32).
    """

    config: ScoringConfig
    name: str = "score"
    output_schema: pa.Schema = field(default_factory=lambda: SCORES.schema)
    _models: LoadedModels | None = field(default=None, repr=False)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that `process` reads; they depend on the unit."""
        return INPUT_COLUMNS[self.config.unit]

    def setup(self) -> None:
        """Loads models and tokenizers and checks that they belong together.

        Raises:
            ModelError: A model cannot be loaded or is not the expected one.
            ConfigError: The context does not fit a model, tokenizers differ, or a prefix is asked of a model without
                end-of-document token.
        """
        self._models = load_models(self.config)

    @property
    def score_key(self) -> str:
        """Identity of the scores that this stage writes."""
        return self._ready().key

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns one row of sums per unit, in the order of the batch.

        Raises:
            ConfigError: Packed sequences were made with another tokenizer.
        """
        scorer = WindowScorer(self._ready(), self.config)
        rows: list[dict[str, Any]] = []
        n_windows = n_long = 0
        for units in read_ahead(batch, self._reader()):
            measured, windows, long = self._score(units, scorer)
            rows += measured
            n_windows, n_long = n_windows + windows, n_long + long
        columns = {name: batch.column(name).to_pylist() for name in IDENTITY}
        rows = [{**{name: values[i] for name, values in columns.items()}, **row} for i, row in enumerate(rows)]
        failed = [row for row in rows if (row["skipped_reason"] or "").startswith("error.")]
        kept = [row for row in rows if not (row["skipped_reason"] or "").startswith("error.")]
        metrics = {
            "n_tokens": float(sum(row["n_tokens"] for row in rows)),
            "n_scored_tokens": float(sum(row["n_scored"] for row in rows)),
            "n_windows": float(n_windows),
            f"n_unscored_{self.config.unit}s": float(sum(row["skipped_reason"] is not None for row in rows)),
            f"n_{self.config.unit}s_longer_than_context": float(n_long),
            "nll_sum": sum(row.get("nll_sum") or 0.0 for row in rows),
        }
        return StageOutput(
            rows_to_table(kept, self.output_schema), rows_to_table(failed, self.output_schema), metrics=metrics
        )

    def _ready(self) -> LoadedModels:
        if self._models is None:
            self.setup()
        assert self._models is not None
        return self._models

    def _reader(self) -> Callable[[pa.Table], list[Unit]]:
        tokenizer = self._ready().main.tokenizer
        read = text_units if self.config.unit == "document" else sequence_units
        return lambda part: read(part, tokenizer)

    def _score(self, units: list[Unit], scorer: WindowScorer) -> tuple[list[dict[str, Any]], int, int]:
        """Returns the measures of each unit, the number of windows, and of units that are longer than one."""
        models = self._ready()
        windows = [
            window
            for number, unit in enumerate(units)
            for window in cut_windows(number, unit.ids, models.context, models.prefix)
        ]
        n_long = len({window.unit for window in windows if not window.first})
        windows = scorer.needed(windows)
        sums = [UnitSums() for _ in units]
        for window, part in zip(windows, scorer.score(windows), strict=True):
            sums[window.unit].add(window, part)
        rows = [measures(unit, total, self.config, models.key) for unit, total in zip(units, sums, strict=True)]
        return rows, len(windows), n_long
