"""Executes the stored programs of a committed crawl again, without a model.

Without a policy it checks the tables: the same decision, operations and text must come out. With a policy it says what
a run with it would change and writes nothing. Texts come from the cleaned documents, one input file at a time.
"""

import difflib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.prox.chunk_refinement import execute_written, executed_columns, execution_settings, written_programs
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.doc_refinement import decide
from corpusmill.prox.program_execution import EDITED, KEPT, ExecutionSettings
from corpusmill.runner.committed_plan import committed_plan
from corpusmill.runner.duplicate_lines import committed_lines, compares_lines, shortened_texts
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import stage_table
from corpusmill.schema import text_digest

log = logging.getLogger(__name__)
Config = TypeVar("Config", DocRefinementConfig, ChunkRefinementConfig)

STAGES = {"refine_documents": "document_refinements", "refine_chunks": "chunk_refinements"}
"""Stages whose outputs are stored, and their tables."""
NOT_REPLAYED = frozenset({"stop_loops", "constrained"})
"""Fields of the execution policy that change what a model writes; only a run shows their effect."""
SHOWN = 10
"""Differences, or samples of changes, that a result names for each stage."""
SHOWN_LINES = 12
"""Changed lines of a sample."""
COMPARED = ("kept", "reason", "n_chunks", "operations", "n_errors", "n_normalize_misses", "n_truncated", "text")
"""Columns of ``chunk_refinements`` that must come out again, beside reason and errors of each program."""

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass
class StageReplay:
    """What came of one stage's rows.

    Attributes:
        describe: Returns what to tell of a row that came out otherwise, from the row and its new columns.
        n_documents: Rows of the stage's table.
        n_equal: Rows that came out as they are stored; those without a program do.
        n_without_program: Rows that hold none: the document has no words, or the refiner failed on it.
        n_text_missing: Rows that cannot be executed: the cleaned document was replaced since. Not equal.
        n_not_reached: Rows whose document the policy drops in the document stage.
        n_needs_model: Documents that the policy admits and that have no program yet.
        old: Rows by outcome as stored: ``kept``, ``edited`` (which both go on) or ``dropped``.
        new: The same as executed now, of the rows that are reached.
        differences: The first rows that came out otherwise.
    """

    describe: Callable[[Row, Row], Row]
    n_documents: int = 0
    n_equal: int = 0
    n_without_program: int = 0
    n_text_missing: int = 0
    n_not_reached: int = 0
    n_needs_model: int = 0
    old: Counter[str] = field(default_factory=Counter)
    new: Counter[str] = field(default_factory=Counter)
    differences: list[Row] = field(default_factory=list)

    def add(self, row: Row, replayed: Row) -> None:
        """Counts one row and the columns that came out of it, {} where there was nothing to execute."""
        self.n_documents += 1
        self.n_without_program += not replayed
        self.old[_outcome(row)] += 1
        self.new[_outcome({**row, **replayed})] += 1
        if all(row[name] == value for name, value in replayed.items()):
            self.n_equal += 1
        elif len(self.differences) < SHOWN:
            self.differences.append({"doc_id": row["doc_id"], **self.describe(row, replayed)})

    def add_unreached(self, row: Row) -> None:
        """Counts a row whose document the policy drops before this stage."""
        self.n_documents += 1
        self.n_not_reached += 1
        self.old[_outcome(row)] += 1

    def add_without_text(self, row: Row) -> None:
        """Counts a row whose text is gone."""
        self.n_documents += 1
        self.n_text_missing += 1
        self.old[_outcome(row)] += 1

    def to_json(self) -> dict[str, Any]:
        """Returns everything but the function as a plain mapping."""
        counts = {name: value for name, value in vars(self).items() if name.startswith("n_")}
        outcomes = {"old": dict(sorted(self.old.items())), "new": dict(sorted(self.new.items()))}
        return counts | outcomes | {"differences": self.differences}


def _outcome(row: Row) -> str:
    if not row["kept"]:
        return "dropped"
    return EDITED if row["reason"] == EDITED else KEPT


def replay(
    lake: Lakehouse, recipe: str, crawl: str, policy: Mapping[str, Any] | None = None, progress: Say = log.info
) -> dict[str, Any]:
    """Executes the programs of a crawl again and returns how the outcome compares with what is stored.

    Memory is bounded by one input file and the ids of the documents that a policy decides otherwise.

    Args:
        lake: The lakehouse; nothing is written to it.
        recipe: Recipe name.
        crawl: Crawl id.
        policy: Settings to try in place of the recipe's: ``refine_documents`` and ``refine_chunks``, each a mapping
            of fields of its execution policy; None: the recipe's own, as a check.
        progress: Receives a line per input file.

    Returns:
        ``recipe``, ``crawl``, ``policy``, ``n_documents`` and ``n_equal`` (over both stages), and for each stage that
        the recipe has the values of `StageReplay`.

    Raises:
        ConfigError: No program of the crawl is stored, or the policy names something else than execution policy.
    """
    plans = {stage: committed_plan(lake, recipe, crawl, stage) for stage in STAGES}
    refined = {stage: plan for stage, plan in plans.items() if plan is not None and plan.recipe[stage] is not None}
    if not refined:
        raise ConfigError(
            f"crawl={crawl!r} of recipe {recipe!r} has no stored programs; expected a crawl that the recipe has refined"
        )
    if unknown := sorted(set(policy or {}) - set(refined)):
        raise ConfigError(f"policy names {unknown}; the stages with stored programs are {sorted(refined)}")
    moved = _Moved()
    found: dict[str, StageReplay] = {}
    if (plan := refined.get("refine_documents")) is not None:
        documents = plan.parsed_recipe().refine_documents
        assert documents is not None
        found["refine_documents"] = _documents(lake, plan, _with_policy(documents, policy), moved, progress)
    if (plan := refined.get("refine_chunks")) is not None:
        chunks = plan.parsed_recipe().refine_chunks
        assert chunks is not None
        found["refine_chunks"] = _chunks(lake, plan, _with_policy(chunks, policy), moved, progress)
    return {
        "recipe": recipe,
        "crawl": crawl,
        "policy": policy,
        "n_documents": sum(r.n_documents for r in found.values()),
        "n_equal": sum(r.n_equal for r in found.values()),
        **{stage: r.to_json() for stage, r in found.items()},
    }


@dataclass
class _Moved:
    """Ids of the documents that the document stage admits now and did not, and the other way round."""

    admitted: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)


def _with_policy(config: Config, policy: Mapping[str, Any] | None) -> Config:
    """Returns a stage's settings with a policy's fields in place of its own."""
    stage = "refine_documents" if isinstance(config, DocRefinementConfig) else "refine_chunks"
    changes = (policy or {}).get(stage, {})
    allowed = sorted(config.execution_policy - NOT_REPLAYED)
    if not isinstance(changes, Mapping) or not set(changes) <= set(allowed):
        raise ConfigError(
            f"policy of {stage} is {changes!r}; expected a mapping with some of {allowed}: anything else changes what "
            "the model writes"
        )
    return type(config).load({**config.model_dump(), **changes})


def _documents(
    lake: Lakehouse, plan: RunPlan, config: DocRefinementConfig, moved: _Moved, progress: Say
) -> StageReplay:
    counts = StageReplay(_describe_decision)
    columns = ["doc_id", "kept", "reason", "margin", "program"]
    for rows in _stored(lake, plan, "refine_documents", columns, progress):
        for row in rows:
            replayed: Row = {}
            if row["program"] is not None:
                kept, reason = decide(row["program"], row["margin"], config)
                replayed = {"kept": kept, "reason": reason}
                if kept != row["kept"]:
                    (moved.admitted if kept else moved.dropped).add(row["doc_id"])
            counts.add(row, replayed)
    return counts


def _describe_decision(row: Row, replayed: Row) -> Row:
    return {"margin": row["margin"], "stored": {name: row[name] for name in replayed}, "replayed": replayed}


def _chunks(lake: Lakehouse, plan: RunPlan, config: ChunkRefinementConfig, moved: _Moved, progress: Say) -> StageReplay:
    counts, gates = StageReplay(_describe_execution, n_needs_model=len(moved.admitted)), execution_settings(config)
    table = lake.table(stage_table(plan, "refine_chunks").identifier)
    identity = ["text_digest"] if "text_digest" in table.spec.schema.names else []
    columns = ["doc_id", "n_chars_before", "programs", *COMPARED, *identity]
    for rows, texts in zip(_stored(lake, plan, "refine_chunks", columns, progress), _texts(lake, plan), strict=True):
        for row in rows:
            text = texts.get(row["doc_id"])
            if row["doc_id"] in moved.dropped:
                counts.add_unreached(row)
            elif row["programs"] is None:
                counts.add(row, {})
            elif text is None or not _is_its_text(row, text):
                counts.add_without_text(row)
            else:
                counts.add({**row, "outcomes": _outcomes(row["programs"])}, _executed(row["programs"], text, gates))
    return counts


def _executed(programs: list[Row], text: str, gates: ExecutionSettings) -> Row:
    """Returns the compared columns that come out of stored programs."""
    written = written_programs(programs)
    columns = executed_columns(written, execute_written(text, written, gates))
    return {name: columns[name] for name in COMPARED} | {"outcomes": _outcomes(columns["programs"])}


def _outcomes(programs: list[Row]) -> list[tuple[str, int]]:
    return [(program["reason"], program["n_errors"]) for program in programs]


def _is_its_text(row: Row, text: str) -> bool:
    """Returns whether a text is the one that a row's programs were written for."""
    if row.get("text_digest") is not None:
        return bool(row["text_digest"] == text_digest(text))
    return bool(row["n_chars_before"] == len(text))  # a row of a version that stored no digest


def _describe_execution(row: Row, replayed: Row) -> Row:
    before, after = ((text or "").split("\n") for text in (row["text"], replayed["text"]))
    diff = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    return {
        "changed": [name for name, value in replayed.items() if row[name] != value],
        "stored": {"reason": row["reason"], "n_chars": len(row["text"] or "")},
        "replayed": {"reason": replayed["reason"], "n_chars": len(replayed["text"] or "")},
        "diff": [line[:200] for line in diff if not line.startswith("@@")][:SHOWN_LINES],
    }


def _stored(lake: Lakehouse, plan: RunPlan, stage: str, columns: Sequence[str], progress: Say) -> Iterator[list[Row]]:
    """Yields the stage's rows, one input file at a time in the plan's order."""
    place = stage_table(plan, stage)
    groups = lake.table(place.identifier).iter_groups(place.partition, groups=plan.files, columns=columns)
    for n, (_, rows) in enumerate(groups, 1):
        progress(f"replay {stage} {plan.crawl}: file {n} of {len(plan.files)}, {rows.num_rows} documents")
        yield rows.to_pylist()


def _texts(lake: Lakehouse, plan: RunPlan) -> Iterator[dict[str, str]]:
    """Yields the texts that the chunk refiner read by document id, one input file at a time in the plan's order.

    Where the repeated lines that were taken from them are of another run by now, these are the whole texts: the
    refiner's rows tell that they are others.
    """
    place = stage_table(plan, "clean")
    table, columns = lake.table(place.identifier), ["doc_id", "kept", "text"]
    there = not compares_lines(plan) or committed_lines(lake, plan)
    shorten = shortened_texts(lake, plan, plan.files) if there else None
    for _, rows in table.iter_groups(place.partition, groups=plan.files, columns=columns):
        kept = rows.filter(rows["kept"])
        read = next(shorten)(kept) if shorten is not None else kept
        yield {row["doc_id"]: row["text"] for row in read.to_pylist()}
