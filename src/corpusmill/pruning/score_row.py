"""One row of the score table: sums of a unit over its windows."""

from dataclasses import dataclass
from typing import Any

from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.memorization import Memorization
from corpusmill.pruning.window_scorer import WindowScores
from corpusmill.pruning.windows import Unit, Window

TOO_FEW_TOKENS = "score.too_few_tokens"
"""Reason of a unit in which no token can be scored; its sums are null."""


@dataclass
class UnitSums:
    """Score sums of one unit, added up over its windows in order."""

    nll: float = 0.0
    el2n: float = 0.0
    hits: int = 0
    top_k_hits: int = 0
    excess_nll: float = 0.0
    n_scored: int = 0
    first_mismatch: int | None = None
    memorization: Memorization | None = None
    error: str | None = None

    def add(self, window: Window, part: WindowScores) -> None:
        """Adds a window's scores; memorization is that of the first."""
        self.nll += part.nll
        self.el2n += part.el2n
        self.hits += part.hits
        self.top_k_hits += part.top_k_hits
        self.excess_nll += part.excess_nll
        self.n_scored += part.n_scored
        self.error = self.error or part.error
        if window.first:
            self.first_mismatch = part.first_mismatch
            self.memorization = part.memorization


def measures(unit: Unit, sums: UnitSums, config: ScoringConfig, key: str) -> dict[str, Any]:
    """Returns the columns of a score row that the stage computes; null is what was not asked for or has no score."""
    reason = unit.fault or sums.error or (None if sums.n_scored else TOO_FEW_TOKENS)
    row: dict[str, Any] = {
        "unit": config.unit,
        "n_scored": 0 if reason else sums.n_scored,
        "n_bytes": unit.n_bytes,
        "n_tokens": len(unit.ids),
        "score_key": key,
        "skipped_reason": reason,
    }
    return row if reason else row | _scores(sums, config)


def _scores(sums: UnitSums, config: ScoringConfig) -> dict[str, Any]:
    found = sums.memorization
    asked = {
        "nll_sum": (sums.nll, "perplexity" in config.metrics),
        "el2n_sum": (sums.el2n, "el2n" in config.metrics),
        "hits": (sums.hits, set(config.metrics) != {"memorization"}),
        "top_k_hits": (sums.top_k_hits, "top_k" in config.metrics),
        "excess_nll_sum": (sums.excess_nll, config.baseline is not None),
        "first_mismatch": (sums.first_mismatch, True),
        "prefix_match": (sums.first_mismatch / config.mem_continuation, True)
        if sums.first_mismatch is not None
        else (None, False),
        "memorization": (found.score, True) if found else (None, False),
        "memorized": (found.memorized, True) if found else (None, False),
    }
    return {name: value if wanted else None for name, (value, wanted) in asked.items()}
