"""The plan of the run that wrote what a stage's table holds now."""

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.plan import RunPlan, load_plan, plan_uri
from corpusmill.runner.stage_tables import TABLE_OF


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
