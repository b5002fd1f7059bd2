"""The band join of a crawl, cut into tasks: bands, and of large indexes shares of their keys.

`index_bands` makes the indexes and names the parts, `join_bands` finds the pairs of one part and stores them, and
deduplication reads them (`runner.pair_files`). What no task has stored, deduplication joins itself: so one process and
a chain of tasks end in the same tables.
"""

import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from corpusmill.dedup.candidates import JoinPart
from corpusmill.dedup.config import NearConfig
from corpusmill.dedup.shuffles import Shuffles
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


def whole_join(plan: RunPlan) -> str:
    """Returns the name of a join in one part."""
    return JoinPart(0, _near(plan).bands).name


def join_bands(lake: Lakehouse, plan: RunPlan, name: str) -> dict[str, Any]:
    """Finds and stores the candidate pairs of one part of the join; does nothing where they are stored.

    Args:
        lake: The lakehouse.
        plan: The run.
        name: Name of the part.

    Returns:
        ``crawl``, ``part``, ``documents`` that were looked up, ``pairs`` found, ``skipped``, ``seconds``.

    Raises:
        ConfigError: A join has no such part.
    """
    started, config, files = time.monotonic(), _near(plan), PairFiles(lake, plan)
    part, indexes = JoinPart.of_name(name, config.bands), indexes_of(lake, plan, config)
    own, n_pairs, joined = indexes[-1], 0, 0
    with ExitStack() as stack:
        engine: Shuffles | None = None
        for index in indexes:  # one at a time: the pairs with all older crawls need not be in memory together
            codes = files.find(index, part)
            if codes is None:
                engine = engine or stack.enter_context(open_shuffles(lake, files.scratch, config.bands))
                codes = engine.pairs(own, np.ones(len(own), dtype=np.bool_), index, part)
                files.write(index, part, codes)
                joined += 1
            n_pairs += len(codes)
    return {
        "crawl": plan.crawl,
        "part": name,
        "documents": len(own),
        "pairs": n_pairs,
        "skipped": not joined,
        "seconds": round(time.monotonic() - started, 3),
    }


def _near(plan: RunPlan) -> NearConfig:
    config = plan.parsed_recipe().deduplication.near
    if config is None:
        raise ConfigError(f"recipe {plan.name!r} has deduplication.near=None: there are no bands to join")
    return config
