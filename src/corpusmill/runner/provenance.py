"""Which plan's stored tables a published crawl was assembled from."""

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.plan import RunPlan, load_plan, provenance_uri
from corpusmill.runner.records import read_record

__all__ = ["provenance_uri", "source_plan"]


def source_plan(lake: Lakehouse, recipe: str, crawl: str, key: str) -> RunPlan:
    """Returns the plan whose stored tables a corpus partition was assembled from, by the partition's content key."""
    return load_plan(lake, read_record(lake, provenance_uri(lake, recipe, crawl, key))["plan"])
