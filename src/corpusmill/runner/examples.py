"""Before / program / after examples of a crawl: what the refiner saw, what it wrote, what was left."""

import hashlib
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.corpus_mix import sample_files
from corpusmill.runner.duplicate_lines import Shorten, shortened_texts
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import committed, input_table

MAX_CHARS = 6_000
"""Longer texts are cut in a report; the tables hold them whole."""
MAX_FILES = 8
"""Input files that examples are taken from, so that a report's cost does not grow with the crawl."""
COLUMNS = {
    "refine_chunks": ["doc_id", "kept", "reason", "n_chars_before", "n_chars_after", "programs", "text"],
    "refine_documents": ["doc_id", "kept", "reason", "decision", "program", "n_chars"],
}
"""Columns read of each refinement stage."""


def refinement_examples(lake: Lakehouse, plan: RunPlan, n: int) -> list[dict[str, Any]]:
    """Returns up to ``n`` documents that the refiners changed or removed, the same ones on every call.

    Each has ``doc_id``, ``url``, ``stage``, ``before``, ``program`` (as emitted), ``after`` (empty where the document
    was removed), ``reason``; every reason has its share. Readable ones come first.
    """
    picked: list[dict[str, Any]] = []
    for stage in ("refine_chunks", "refine_documents"):
        if plan.recipe[stage] is not None and committed(lake, plan, stage):
            picked += _examples_of(lake, plan, stage, n)
    return sorted(_each_reason(picked, n), key=_order)


def _examples_of(lake: Lakehouse, plan: RunPlan, stage: str, n: int) -> list[dict[str, Any]]:
    refined, at = input_table(lake, plan, stage)
    documents, documents_at = input_table(lake, plan, "clean")
    picked: list[dict[str, Any]] = []
    for name, rows in refined.iter_groups(at, groups=sample_files(plan.files, MAX_FILES), columns=COLUMNS[stage]):
        changed = pc.invert(rows["kept"])
        if stage == "refine_chunks":
            changed = pc.or_(changed, pc.less(rows["n_chars_after"], rows["n_chars_before"]))
        found = rows.filter(changed)
        texts = [c for c in found.column_names if c == "text"]
        chosen = _each_reason(sorted(found.drop_columns(texts).to_pylist(), key=_order), n)
        ids = pa.array([row["doc_id"] for row in chosen], pa.large_string())
        after: dict[str, str] = {}
        if texts:
            left = found.filter(pc.is_in(found["doc_id"], value_set=ids)).select(["doc_id", "text"]).to_pylist()
            after = {row["doc_id"]: str(row["text"] or "") for row in left}
        read = next(shortened_texts(lake, plan, [name]))  # refiners read documents without repeated lines
        before = _column_of(documents, documents_at, name, chosen, read)
        picked += [_example(stage, row, before[row["doc_id"]], after.get(row["doc_id"], "")) for row in chosen]
    return picked


def _each_reason(rows: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Returns up to ``n`` rows, as many of every reason as there are of it and as fit, in the order given."""
    reasons: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=_order):
        reasons.setdefault(row["reason"], []).append(row)
    turns = zip_longest(*reasons.values())
    return [row for turn in turns for row in turn if row is not None][:n]


def _order(row: dict[str, Any]) -> tuple[bool, str]:
    """Orders readable examples first, then by a hash of the document's id, which is no property of the text.

    Readable: a text of some length of which between 3 and 50 % was removed, by more than one call.
    """
    before = row.get("n_chars_before") or len(row.get("before", ""))
    after = row["n_chars_after"] if "n_chars_after" in row else len(row.get("after", ""))
    program = _program(row)
    readable = 400 <= before <= MAX_CHARS and 0.5 * before <= after <= 0.97 * before and program.count("(") > 1
    return not readable, hashlib.blake2b(str(row["doc_id"]).encode(), digest_size=8).hexdigest()


def _program(row: dict[str, Any]) -> str:
    """Returns what the refiner emitted; a document refiner that is no language model has only a decision."""
    if row.get("programs"):
        return "\n".join(p["output"] or "" for p in row["programs"])
    return str(row.get("program") or row.get("decision") or "")


def _column_of(
    table: Any, partition: dict[str, str], file: str, rows: list[dict[str, Any]], read: Shorten
) -> dict[str, dict[str, Any]]:
    ids = pa.array([row["doc_id"] for row in rows], pa.large_string())
    for _, found in table.iter_groups(partition, groups=[file], columns=["doc_id", "url", "text"]):
        wanted = read(found.filter(pc.is_in(found["doc_id"], value_set=ids))).to_pylist()
        return {row["doc_id"]: row for row in wanted}
    return {}


def _example(stage: str, row: dict[str, Any], before: dict[str, Any], after: str) -> dict[str, Any]:
    program = _program(row)
    return {
        "stage": stage,
        "doc_id": row["doc_id"],
        "url": before["url"],
        "reason": row["reason"],
        "before": before["text"][:MAX_CHARS],
        "program": program[:MAX_CHARS],
        "after": after[:MAX_CHARS] if row["kept"] else "",
        "cut": max(len(before["text"]), len(program), len(after)) > MAX_CHARS,
    }
