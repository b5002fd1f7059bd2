"""Before / program / after examples of a crawl: what the refiner saw, what it wrote, what was left."""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import committed, input_table

MAX_CHARS = 6_000
"""Longer texts are cut in a report; the tables hold them whole."""
MAX_FILES = 8
"""Input files that examples are taken from, so that a report's cost does not grow with the crawl."""


def refinement_examples(lake: Lakehouse, plan: RunPlan, n: int) -> list[dict[str, Any]]:
    """Returns up to ``n`` documents whose text the chunk refiner changed, the same ones on every call.

    Each has ``doc_id``, ``url``, ``before``, ``program`` (as emitted), ``after``, ``reason``.
    """
    if plan.parsed_recipe().refine_chunks is None or not committed(lake, plan, "refine_chunks"):
        return []
    files = plan.files[:MAX_FILES]
    refined, at = input_table(lake, plan, "refine_chunks")
    documents, documents_at = input_table(lake, plan, "clean")
    columns = ["doc_id", "kept", "reason", "n_chars_before", "n_chars_after", "programs", "text"]
    picked: list[dict[str, Any]] = []
    for name, rows in refined.iter_groups(at, groups=files, columns=columns):
        changed = rows.filter(pc.and_(rows["kept"], pc.less(rows["n_chars_after"], rows["n_chars_before"])))
        chosen = sorted(changed.drop_columns(["text"]).to_pylist(), key=_order)[:n]
        before = _column_of(documents, documents_at, name, chosen)
        after = {row["doc_id"]: str(row["text"] or "") for row in changed.select(["doc_id", "text"]).to_pylist()}
        picked += [_example(row, before[row["doc_id"]], after[row["doc_id"]]) for row in chosen]
    return sorted(picked, key=_order)[:n]


def _order(row: dict[str, Any]) -> tuple[bool, str]:
    """Orders readable examples first, then by a hash of the document's id, which is no property of the text.

    Readable: a text of some length of which between 3 and 50 % was removed, by more than one call.
    """
    before = row.get("n_chars_before") or len(row.get("before", ""))
    after = row["n_chars_after"] if "n_chars_after" in row else len(row.get("after", ""))
    program = row.get("program") or "\n".join(p["output"] or "" for p in row.get("programs") or [])
    readable = 400 <= before <= MAX_CHARS and 0.5 * before <= after <= 0.97 * before and program.count("(") > 1
    return not readable, hashlib.blake2b(str(row["doc_id"]).encode(), digest_size=8).hexdigest()


def _column_of(
    table: Any, partition: dict[str, str], file: str, rows: list[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    ids = pa.array([row["doc_id"] for row in rows], pa.large_string())
    for _, found in table.iter_groups(partition, groups=[file], columns=["doc_id", "url", "text"]):
        wanted = found.filter(pc.is_in(found["doc_id"], value_set=ids)).to_pylist()
        return {row["doc_id"]: row for row in wanted}
    return {}


def _example(row: dict[str, Any], before: dict[str, Any], after: str) -> dict[str, Any]:
    program = "\n".join(p["output"] or "" for p in row["programs"] or [])
    return {
        "doc_id": row["doc_id"],
        "url": before["url"],
        "reason": row["reason"],
        "before": before["text"][:MAX_CHARS],
        "program": program[:MAX_CHARS],
        "after": (after or "")[:MAX_CHARS],
    }
