"""The scoring stage: one row of score sums per document or packed sequence, under one reference model or several."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from corpusmill.batches import rows_to_table
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.loaded_models import LoadedModels, load_models
from corpusmill.pruning.score_row import TOO_FEW_TOKENS, UnitSums, measures
from corpusmill.pruning.stored_scores import NO_SCORES, ScoreReuse, content_digests
from corpusmill.pruning.window_scorer import WindowScorer
from corpusmill.pruning.windows import Unit, cut_windows, group_bounds, read_ahead, sequence_units, text_units
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

    Attributes:
        config: The settings.
        reuse: Where existing scores are looked for; a model is loaded for the others only.
    """

    config: ScoringConfig
    reuse: ScoreReuse = NO_SCORES
    name: str = "score"
    output_schema: pa.Schema = field(default_factory=lambda: SCORES.schema)
    _models: LoadedModels | None = field(default=None, repr=False)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that `process` reads; they depend on the unit."""
        return INPUT_COLUMNS[self.config.unit]

    def setup(self) -> None:
        """Loads models and tokenizers, unless it may turn out that none is needed, and checks that they fit together.

        Raises:
            ModelError: A model cannot be loaded or is not the expected one.
            ConfigError: The context does not fit a model, tokenizers differ, or a prefix is asked of a model without
                end-of-document token.
        """
        if not self.reuse.is_on:
            self._ready()

    @property
    def score_key(self) -> str:
        """Identity of the scores that this stage writes."""
        return self._ready().key

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns one row of sums per unit, in the order of the batch.

        Raises:
            ConfigError: Packed sequences were made with another tokenizer.
        """
        counts: Counter[str] = Counter()
        digests = content_digests(batch)
        stored = [self.reuse.known(digest) for digest in digests]
        fresh = self._fresh_rows(batch, digests, [i for i, row in enumerate(stored) if row is None], counts)
        rows = [fresh[i] if row is None else _measures_of(row) for i, row in enumerate(stored)]
        columns = {name: batch.column(name).to_pylist() for name in IDENTITY}
        rows = [
            {**{name: values[i] for name, values in columns.items()}, **row, "text_digest": digests[i] or None}
            for i, row in enumerate(rows)
        ]
        failed = [row for row in rows if (row["skipped_reason"] or "").startswith("error.")]
        kept = [row for row in rows if not (row["skipped_reason"] or "").startswith("error.")]
        metrics = {
            "n_tokens": float(sum(row["n_tokens"] for row in rows)),
            "n_scored_tokens": float(sum(row["n_scored"] for row in rows)),
            "n_windows": float(counts["windows"]),
            f"n_unscored_{self.config.unit}s": float(sum(row["skipped_reason"] is not None for row in rows)),
            f"n_{self.config.unit}s_longer_than_context": float(counts["long"]),
            "nll_sum": sum(row.get("nll_sum") or 0.0 for row in rows),
            "reused_stored": float(len(rows) - len(fresh)),
            "reused_cache": float(counts["resumed"]),
            "model_calls": float(len(fresh) - counts["resumed"]),
        }
        return StageOutput(
            rows_to_table(kept, self.output_schema), rows_to_table(failed, self.output_schema), metrics=metrics
        )

    def _fresh_rows(
        self, batch: pa.Table, digests: list[str], unknown: list[int], counts: Counter[str]
    ) -> dict[int, dict[str, Any]]:
        """Returns the measures of the rows that are not stored, by place in the batch.

        Groups are cut from the whole batch, so that a shard that resumes asks the model for the same ones.
        """
        rows: dict[int, dict[str, Any]] = {}
        asked: list[list[int]] = []
        for start, end in group_bounds(batch.num_rows):
            group = [i for i in unknown if start <= i < end]
            resumed = self.reuse.resumed([digests[i] for i in group]) if group else None
            if resumed is not None:
                rows |= dict(zip(group, resumed, strict=True))
                counts["resumed"] += len(group)
            elif group:
                asked.append(group)
        if not asked:
            return rows
        scorer = WindowScorer(self._ready(), self.config)
        for group, units in zip(asked, read_ahead([batch.take(g) for g in asked], self._reader()), strict=True):
            measured, windows, long = self._score(units, scorer)
            self.reuse.keep([digests[i] for i in group], measured)
            rows |= dict(zip(group, measured, strict=True))
            counts.update(windows=windows, long=long)
        return rows

    def _ready(self) -> LoadedModels:
        if self._models is None:
            self._models = load_models(self.config)
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


def _measures_of(stored: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns of a stored row that the stage computes."""
    return {name: value for name, value in stored.items() if name not in IDENTITY}
