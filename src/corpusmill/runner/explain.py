"""Explains one document: every measure, reason, program, score and where it is published."""

from typing import Any

from pyiceberg.expressions import EqualTo

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.schema import RECIPE_TABLES


def explain(lake: Lakehouse, recipe: str, doc_id: str, crawl: str | None) -> dict[str, Any]:
    """Returns the document's rows in every table of a recipe, and the partition keys they belong to.

    Args:
        lake: The lakehouse.
        recipe: Namespace.
        doc_id: Document id.
        crawl: Crawl id; None looks in all crawls.
    """
    found: dict[str, Any] = {"doc_id": doc_id, "recipe": recipe}
    for spec in RECIPE_TABLES:
        table = lake.table(f"{recipe}.{spec.name}")
        rows = []
        for partition in table.partitions():
            if crawl is not None and partition["crawl"] != crawl:
                continue
            for row in table.scan(partition, filter=EqualTo("doc_id", doc_id)).to_pylist():
                shown = {k: v for k, v in row.items() if v is not None}
                rows.append(shown | {"content_key": table.partition_key(partition)})
        found[spec.name] = rows
    found["published"] = bool(found["corpus"])
    return found
