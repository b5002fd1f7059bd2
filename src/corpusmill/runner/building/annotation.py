"""Annotation of one shard: answers are appended to a local file as they come, and kept in the warehouse.

The local file survives a kill of the task on the same machine; the copy in the warehouse carries the answers to another
worker, and to synthesis.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.storage import copy_file_in, copy_file_out, file_size
from corpusmill.prox.annotator import load_teacher
from corpusmill.prox.answer_store import AnswerStore
from corpusmill.prox.seed_annotation import annotate
from corpusmill.runner.building.plan import BuildPlan
from corpusmill.runner.building.sampling import seed_of_shard


def annotate_shard(lake: Lakehouse, plan: BuildPlan, shard: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Asks the teacher what is not answered yet about the documents of a shard.

    Returns:
        The counts and the cost (`corpusmill.prox.seed_annotation.AnnotationReport`); for a route that asks nobody only
        ``n_documents``.

    Raises:
        TransientDataError: The teacher does not answer now; what it answered is kept.
        PermanentDataError: Too many questions failed for good.
    """
    recipe = plan.parsed()
    documents = seed_of_shard(lake, plan, shard)
    if recipe.labels.teacher is None:
        return {"n_documents": len(documents), "n_requests": 0}
    path = local_answers(lake, plan, shard)
    teacher = load_teacher(recipe.labels.teacher)
    try:
        with AnswerStore(path) as store:
            report = annotate(
                documents,
                recipe.labels.route,
                teacher,
                store,
                recipe.labels.synthesis.annotation,
                progress,
                prices=recipe.labels.teacher,
            )
    finally:
        teacher.close()
        if path.exists():
            copy_file_in(lake.io, path, answers_uri(lake, plan, shard))
    return asdict(report)


def answers_uri(lake: Lakehouse, plan: BuildPlan, shard: str) -> str:
    """Returns where a shard's answers are kept."""
    return plan.record(lake, "answers", f"{shard}.jsonl")


def local_answers(lake: Lakehouse, plan: BuildPlan, shard: str) -> Path:
    """Returns the local file of a shard's answers; one that is longer in the warehouse is fetched first."""
    path = plan.scratch() / f"answers-{shard}.jsonl"
    kept = file_size(lake.io, answers_uri(lake, plan, shard)) or 0
    if kept > (path.stat().st_size if path.exists() else 0):
        copy_file_out(lake.io, answers_uri(lake, plan, shard), path)
    return path
