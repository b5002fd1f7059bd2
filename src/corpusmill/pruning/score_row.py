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
    metrics, first, found = set(config.metrics), sums.first_mismatch, sums.memorization
    return {
        "nll_sum": sums.nll if "perplexity" in metrics else None,
        "el2n_sum": sums.el2n if "el2n" in metrics else None,
        "hits": None if metrics == {"memorization"} else sums.hits,  # it looks at the continuation only
        "top_k_hits": sums.top_k_hits if "top_k" in metrics else None,
        "excess_nll_sum": sums.excess_nll if config.baseline is not None else None,
        "first_mismatch": first,
        "prefix_match": None if first is None else first / config.mem_continuation,
        "memorization": found.score if found else None,
        "memorized": found.memorized if found else None,
    }
