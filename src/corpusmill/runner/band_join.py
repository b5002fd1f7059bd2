"""The band join of a crawl, cut into tasks: bands, and of large indexes shares of their keys.

`index_bands` makes the indexes and names the parts, `join_bands` finds the pairs of one part and stores them, and
deduplication reads them (`runner.pair_files`). What no task has stored, deduplication joins itself: so one process and
a chain of tasks end in the same tables.
"""

import time
from typing import Any

import numpy as np

from corpusmill.dedup.config import NearConfig
from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.near_duplicates import indexes_of
from corpusmill.runner.pair_files import PairFiles, join_parts
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.spark_shuffles import open_shuffles


def index_bands(lake: Lakehouse, plan: RunPlan) -> list[str]:
    """Makes the indexes that a run joins, where they are missing, and returns the names of the join's parts."""
    config = _near(plan)
    return [part.name for part in join_parts(plan, config.bands, indexes_of(lake, plan, config))]


def join_bands(lake: Lakehouse, plan: RunPlan, name: str) -> dict[str, Any]:
    """Finds and stores the candidate pairs of one part of the join; does nothing where they are stored.

    Args:
        lake: The lakehouse.
        plan: The run.
        name: Name of the part.

    Returns:
        ``crawl``, ``part``, ``documents`` that were looked up, ``pairs`` found, ``skipped``, ``seconds``.

    Raises:
        ConfigError: The join has no such part.
    """
    started, config, files = time.monotonic(), _near(plan), PairFiles(lake, plan)
    indexes = indexes_of(lake, plan, config)
    parts = {part.name: part for part in join_parts(plan, config.bands, indexes)}
    if name not in parts:
        raise ConfigError(
            f"part={name!r} is not of this join; expected one of {sorted(parts)}. The settings of the shuffles differ "
            "between the tasks of this run: give all workers the same environment and clear 'index_bands'"
        )
    part, own = parts[name], indexes[-1]
    missing = [index for index in indexes if files.find(index, part) is None]
    if missing:
        everything = np.ones(len(own), dtype=np.bool_)
        with open_shuffles(lake, files.folder, config.bands) as engine:
            for index in missing:
                files.write(index, part, engine.pairs(own, everything, index, part))
    found = [files.find(index, part) for index in indexes]
    return {
        "crawl": plan.crawl,
        "part": name,
        "documents": len(own),
        "pairs": sum(len(codes) for codes in found if codes is not None),
        "skipped": not missing,
        "seconds": round(time.monotonic() - started, 3),
    }


def _near(plan: RunPlan) -> NearConfig:
    config = plan.parsed_recipe().deduplication.near
    if config is None:
        raise ConfigError(f"recipe {plan.name!r} has deduplication.near=None: there are no bands to join")
    return config
