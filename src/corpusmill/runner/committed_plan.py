"""The plan of the run that wrote what a stage's table holds now."""

import logging

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.plan import RunPlan, load_plan, plan_uri
from corpusmill.runner.records import RecordNotFoundError
from corpusmill.runner.stage_tables import TABLE_OF, committed

log = logging.getLogger(__name__)


def committed_plan(lake: Lakehouse, recipe: str, crawl: str, stage: str) -> RunPlan | None:
    """Returns the plan of the run that committed a crawl's partition of a stage's table last, None where none did.

    Args:
        lake: The lakehouse.
        recipe: Recipe name.
        crawl: Crawl id.
        stage: A stage with a table of the recipe; not ingestion, whose table recipes share.

    Raises:
        RecordNotFoundError: The plan is gone.
        ConfigError: The plan is of a version with other settings.
    """
    epoch = lake.table(f"{recipe}.{TABLE_OF[stage]}").partition_epoch({"crawl": crawl})
    return None if epoch is None else load_plan(lake, plan_uri(lake, recipe, crawl, epoch))


def plan_behind(lake: Lakehouse, plan: RunPlan, stage: str) -> RunPlan | None:
    """Returns the plan that names what a stage's partition of this run's crawl holds now.

    None where nothing is there, or where what is there was written by no plan that can be read.
    """
    try:
        before = committed_plan(lake, plan.name, plan.crawl, stage)
        if before is None or not committed(lake, before, stage):
            return None
        before.parsed_recipe()
    except (RecordNotFoundError, ConfigError) as error:
        log.info(
            "what %s holds of %s is not reused, the run that wrote it cannot be read: %s", stage, plan.crawl, error
        )
        return None
    return before
