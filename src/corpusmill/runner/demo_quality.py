"""How well the demo's refiner did: its decisions against what the writer of the demo pages meant.

No demo page was trained on, and the builder of the bundled crawls knows of every written page which lines are content
and which are noise, and which pages nobody wants.
"""

from importlib import resources
from pathlib import Path
from typing import Any

from corpusmill.demo.quality import line_quality, read_gold
from corpusmill.lakehouse.catalog import Lakehouse
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
    documents = _rows(lake, plan, "clean", ["doc_id", "url", "text"])
    urls = {row["doc_id"]: row["url"] for row in documents}
    before = {row["doc_id"]: row["text"] for row in documents}
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
    }


def quality_sentences(quality: dict[str, Any]) -> list[str]:
    """Returns the quality as two lines for a person."""
    return [
        f"lines kept as the pages' writer meant: F1 {quality['keep_f1']:.3f} ({quality['baseline_keep_f1']:.3f} if no "
        f"line were removed), {quality['lines']} lines of {quality['documents']} pages that were not trained on",
        f"documents: {quality['unwanted_dropped']} of {quality['unwanted_documents']} unwanted pages dropped, "
        f"{quality['wanted_dropped']} of {quality['wanted_documents']} wanted ones lost",
    ]


def _rows(lake: Lakehouse, plan: RunPlan, stage: str, columns: list[str]) -> list[dict[str, Any]]:
    table, partition = input_table(lake, plan, stage)
    return table.scan(partition, columns=columns).to_pylist()
