"""How well the demo's refiner did: its decisions against what the writer of the demo pages meant.

No demo page was trained on, and the builder of the bundled crawls knows of every written page which lines are content
and which are noise, and which pages nobody wants.
"""

import math
from importlib import resources
from pathlib import Path
from typing import Any

from corpusmill.demo.quality import line_quality, read_gold
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.inputs import surviving_documents
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import committed, input_table


def demo_quality(lake: Lakehouse, plan: RunPlan) -> dict[str, Any] | None:
    """Returns line quality and document decisions of a run on a bundled crawl, None on any other crawl.

    Returns:
        The keys of `corpusmill.demo.quality.line_quality`, and ``unwanted_documents`` that reached the document refiner
        with ``unwanted_dropped`` of them, and ``wanted_documents`` with ``wanted_dropped``.
    """
    gold = Path(str(resources.files("corpusmill.demo") / "gold" / f"{plan.crawl}.jsonl.gz"))
    stages = ("refine_documents", "refine_chunks")
    if not gold.is_file() or any(plan.recipe[s] is None or not committed(lake, plan, s) for s in stages):
        return None
    urls = {row["doc_id"]: row["url"] for row in _rows(lake, plan, "clean", ["doc_id", "url"])}
    read = surviving_documents(lake, plan, plan.files, upto="refine_documents")  # as the refiner read them
    before = {row["doc_id"]: row["text"] for _, rows in read for row in rows.select(["doc_id", "text"]).to_pylist()}
    refined = _rows(lake, plan, "refine_chunks", ["doc_id", "text"])
    texts = {urls[row["doc_id"]]: (before[row["doc_id"]], row["text"]) for row in refined}
    decisions = {urls[row["doc_id"]]: row["kept"] for row in _rows(lake, plan, "refine_documents", ["doc_id", "kept"])}
    wanted = [decisions[page.url] for page in read_gold(gold) if page.keep_doc and page.url in decisions]
    unwanted = [decisions[page.url] for page in read_gold(gold) if not page.keep_doc and page.url in decisions]
    return {
        **line_quality(gold, texts),
        "wanted_documents": len(wanted),
        "wanted_dropped": wanted.count(False),
        "unwanted_documents": len(unwanted),
        "unwanted_dropped": unwanted.count(False),
        **_reference_quality(lake, plan),
    }


def _reference_quality(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Returns the reference model's bits per byte over all documents of the crawl, {} where none were scored."""
    if plan.recipe["score"] is None or not committed(lake, plan, "score"):
        return {}
    rows = [r for r in _rows(lake, plan, "score", ["nll_sum", "n_bytes"]) if r["nll_sum"] is not None]
    n_bytes = sum(row["n_bytes"] for row in rows)
    if not n_bytes:
        return {}
    bits = math.fsum(row["nll_sum"] for row in rows) / math.log(2)
    return {"reference_bits_per_byte": bits / n_bytes, "reference_documents": len(rows)}


def quality_sentences(quality: dict[str, Any]) -> list[str]:
    """Returns the quality as a few lines for a person."""
    sentences = [
        f"lines kept as the pages' writer meant: F1 {quality['keep_f1']:.3f} ({quality['baseline_keep_f1']:.3f} if no "
        f"line were removed), {quality['lines']} lines of {quality['documents']} pages that were not trained on",
        f"documents: {quality['unwanted_dropped']} of {quality['unwanted_documents']} unwanted pages dropped, "
        f"{quality['wanted_dropped']} of {quality['wanted_documents']} wanted ones lost",
    ]
    if "reference_documents" in quality:
        sentences.append(
            f"reference model: {quality['reference_bits_per_byte']:.2f} bits per byte on the crawl's "
            f"{quality['reference_documents']} refined documents, none of which it was trained on"
        )
    return sentences


def _rows(lake: Lakehouse, plan: RunPlan, stage: str, columns: list[str]) -> list[dict[str, Any]]:
    table, partition = input_table(lake, plan, stage)
    return table.scan(partition, columns=columns).to_pylist()
