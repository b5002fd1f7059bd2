"""Everything the tables hold of one document, bounded and as JSON."""

import datetime as dt
from typing import Any

from corpusmill_operators.ui.recipes import recipe_of

MAX_TEXT = 4_000
"""Characters of one value."""
MAX_ROWS = 50
"""Rows of one table."""
MAX_ITEMS = 200
"""Items of one list."""


def explanation(dag_id: str, run_id: str, doc_id: str) -> dict[str, Any]:
    """Returns the document's rows by table, of the run's crawl; empty where there is no such document.

    It reads the recipe's tables and so costs more than the other pages; it is asked for one document at a time.
    """
    recipe = recipe_of(dag_id)
    from corpusmill.runner.explain import explain
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.run_history import find_run

    lake = open_lakehouse()
    run = None if recipe is None else find_run(lake, recipe, run_id)
    if recipe is None or run is None:
        return {"found": False, "doc_id": doc_id, "tables": []}
    rows = explain(lake, recipe, doc_id, run.crawl)
    tables = [
        {"table": name, "rows": [shown(row) for row in value[:MAX_ROWS]]}
        for name, value in rows.items()
        if isinstance(value, list) and value
    ]
    return {"found": bool(tables), "doc_id": doc_id, "published": bool(rows["published"]), "tables": tables}


def shown(value: Any) -> Any:
    """Returns a table's value as bounded JSON: times as text, long texts and lists cut, bytes as their length."""
    if isinstance(value, dict):
        return {str(k): shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown(v) for v in value[:MAX_ITEMS]]
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}... ({len(value):,} characters)"
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return value
