"""Synthesis of a build's examples, and the table that keeps them: the build's data snapshot."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from corpusmill.batches import rows_to_table
from corpusmill.build_schema import REFINER_EXAMPLES
from corpusmill.errors import PermanentDataError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.prox.answer_store import read_answers
from corpusmill.prox.example_sets import drop_duplicates, split_examples
from corpusmill.prox.program_synthesis import Reject, Synthesis, synthesise
from corpusmill.prox.training_examples import ChunkExample, DocumentExample, Example, Provenance
from corpusmill.runner.building.annotation import local_answers
from corpusmill.runner.building.plan import EXAMPLES_TABLE, BuildPlan
from corpusmill.runner.building.sampling import seed_of_shard, shards_of
from corpusmill.runner.records import find_record, write_record
from corpusmill.runner.whole_crawl import commit_rows

TRAIN, VALIDATION, REJECTED = "train", "validation", "rejected"


def synthesise_examples(lake: Lakehouse, plan: BuildPlan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Commits the examples of all shards, split by domain, and the refused documents with their reasons.

    Returns:
        Counts by split and by reason, and each shard's report.

    Raises:
        PermanentDataError: No example is left to train on, or none to validate on; the message says why.
    """
    token, uri = plan.token("examples"), plan.record(lake, "synthesis.json")
    stored = find_record(lake, uri)
    if stored is not None and lake.table(EXAMPLES_TABLE).partition_key(plan.partition) == token.key:
        return {**stored, "skipped": True}
    labels = plan.parsed().labels
    made = [_of_shard(lake, plan, shard, progress) for shard in shards_of(lake, plan)]
    examples = list(drop_duplicates(example for part in made for example in part.examples))
    rejects = [reject for part in made for reject in part.rejects]
    train, validation = split_examples(examples, labels.validation_share)
    report: dict[str, Any] = {
        TRAIN: len(train),
        VALIDATION: len(validation),
        REJECTED: len(rejects),
        "reasons": dict(sorted(Counter(reject.reason for reject in rejects).items())),
        "shards": [part.report.as_dict() for part in made],
    }
    if not train or not validation:
        raise PermanentDataError(
            f"{len(train)} training and {len(validation)} validation examples from {plan.source}; expected some of "
            f"each. Refused: {report['reasons'] or 'nothing'}; first: {[r.message for r in rejects[:3]]}. Sample more "
            "documents, of more domains, or look at why they were refused"
        )
    rows = [*_rows(plan, TRAIN, train), *_rows(plan, VALIDATION, validation), *_reject_rows(plan, rejects)]
    commit_rows(lake, EXAMPLES_TABLE, plan.partition, rows_to_table(rows, REFINER_EXAMPLES.schema), token)
    write_record(lake, uri, report)
    progress(f"{len(train)} training, {len(validation)} validation examples, {len(rejects)} refused")
    return report


def _of_shard(lake: Lakehouse, plan: BuildPlan, shard: str, progress: Callable[[str], None]) -> Synthesis:
    labels = plan.parsed().labels
    answers = None if labels.teacher is None else read_answers([local_answers(lake, plan, shard)])
    made = synthesise(labels.route, seed_of_shard(lake, plan, shard), answers, labels.synthesis)
    progress(f"shard {shard}: {made.report.n_examples} examples of {made.report.n_documents} documents")
    return made


def examples_of(lake: Lakehouse, plan: BuildPlan, split: str) -> list[Example]:
    """Returns the committed examples of a split, windows of a document together and in order."""
    table = lake.table(EXAMPLES_TABLE).scan(plan.partition, filter=f"split == '{split}'")
    rows = table.sort_by([("doc_id", "ascending"), ("first_line", "ascending")]).to_pylist()
    return [_example(row) for row in rows]


def _rows(plan: BuildPlan, split: str, examples: Iterable[Example]) -> list[dict[str, Any]]:
    return [{**plan.partition, "split": split, "reason": "", **_example_columns(example)} for example in examples]


def _example_columns(example: Example) -> dict[str, Any]:
    provenance = example.provenance
    row = {
        "kind": example.kind,
        "doc_id": example.doc_id,
        "route": provenance.route,
        "teacher": provenance.teacher,
        "provenance": provenance.model_dump_json(),
    }
    if isinstance(example, DocumentExample):
        return row | {"domain": "", "first_line": 0, "text": example.text, "unsure": None, "label": example.decision}
    return row | {
        "domain": example.domain,
        "first_line": example.first_line,
        "text": "\n".join(example.lines),
        "unsure": list(example.unsure),
        "label": example.program,
    }


def _reject_rows(plan: BuildPlan, rejects: Iterable[Reject]) -> list[dict[str, Any]]:
    labels = plan.parsed().labels
    teacher = labels.teacher.model if labels.teacher else ""
    return [
        {
            **plan.partition,
            "split": REJECTED,
            "kind": "reject",
            "doc_id": reject.doc_id,
            "domain": "",
            "first_line": reject.first_line or 0,
            "text": reject.message,
            "unsure": None,
            "label": "",
            "reason": reject.reason,
            "route": labels.route,
            "teacher": teacher,
            "provenance": "{}",
        }
        for reject in rejects
    ]


def _example(row: dict[str, Any]) -> Example:
    provenance = Provenance.model_validate(json.loads(row["provenance"]))
    if row["kind"] == "document":
        return DocumentExample(doc_id=row["doc_id"], text=row["text"], decision=row["label"], provenance=provenance)
    return ChunkExample(
        doc_id=row["doc_id"],
        first_line=row["first_line"],
        lines=tuple(row["text"].split("\n")),
        program=row["label"],
        unsure=tuple(row["unsure"] or ()),
        domain=row["domain"],
        provenance=provenance,
    )
