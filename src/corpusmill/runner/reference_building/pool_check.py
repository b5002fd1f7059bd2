"""Checks the reference model of a score stage against the crawl that it is to score, before it runs."""

import json
from collections.abc import Callable
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.corpus_split import CorpusSplit
from corpusmill.pruning.reference_fit import pool_conflicts
from corpusmill.runner.model_registry import REGISTERED, find_model


def check_score_model(
    lake: Lakehouse,
    model: str,
    crawl: str,
    metrics: tuple[str, ...],
    *,
    warn: Callable[[str], None],
    pool_split: CorpusSplit | None = None,
) -> None:
    """Refuses a registered model whose training data makes its scores of a crawl useless; warns where a part does.

    Models without facts (folders, bundled and hub models) pass.

    Args:
        lake: The lakehouse.
        model: As the recipe names it.
        crawl: The crawl to score.
        metrics: Scores asked for.
        warn: Receives each warning.
        pool_split: Split whose reserved part is left out of the pool.

    Raises:
        ConfigError: A score would be of no use; the message says why and what to do.
    """
    if not model.startswith(REGISTERED):
        return
    facts: dict[str, Any] = json.loads(find_model(lake, model).training_data or "{}")
    conflicts = pool_conflicts(facts, crawl, metrics, pool_split=pool_split)
    errors = [c.message for c in conflicts if c.severity == "error"]
    for conflict in conflicts:
        if conflict.severity == "warning":
            warn(f"score.model={model!r}: {conflict.message}")
    if errors:
        raise ConfigError(f"score.model={model!r} cannot score {crawl!r}: {'; '.join(errors)}")
