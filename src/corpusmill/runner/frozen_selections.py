"""Frozen cut-offs by crawl: what a recipe selected of an earlier crawl, taken from ``ops.cutoffs`` into the plan."""

import json

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.selection import CRAWL
from corpusmill.recipe import Recipe


def pin_cutoffs(lake: Lakehouse, recipe: Recipe) -> Recipe:
    """Returns the recipe with the cut-offs of the crawl it names, so that they count in commit keys.

    What was counted on that crawl is left out: a new run of it with these very cut-offs gives the same plan.

    Raises:
        ConfigError: The recipe has selected nothing of that crawl, or the cut-offs are not JSON.
    """
    cutoffs = None if recipe.select is None else recipe.select.cutoffs
    if recipe.select is None or not isinstance(cutoffs, str):
        return recipe
    if cutoffs.startswith(CRAWL):
        manifest = stored_cutoffs(lake, recipe.name, cutoffs.removeprefix(CRAWL)).frozen()
    elif cutoffs.lstrip().startswith("{"):
        manifest = Manifest.from_json(cutoffs)
    else:
        return recipe  # a path, which `pinned_files` reads
    pinned = recipe.select.model_copy(update={"cutoffs": json.loads(manifest.to_json())})
    return recipe.model_copy(update={"select": pinned})


def stored_cutoffs(lake: Lakehouse, recipe: str, crawl: str) -> Manifest:
    """Returns the manifest that a recipe's last selection of a crawl left in ``ops.cutoffs``.

    Raises:
        ConfigError: There is none; the message names the crawls that have one.
    """
    table = lake.table("ops.cutoffs")
    rows = table.scan({"recipe": recipe, "crawl": crawl}, columns=["manifest"])
    if not rows.num_rows:
        known = sorted(p["crawl"] for p in table.partitions() if p["recipe"] == recipe)
        raise ConfigError(
            f"cutoffs='{CRAWL}{crawl}': ops.cutoffs has no selection of recipe {recipe!r} for that crawl; it has "
            f"{known or 'none'}. Run that crawl with mode 'rank' first, then freeze it"
        )
    return Manifest.from_json(str(rows["manifest"][0].as_py()))
