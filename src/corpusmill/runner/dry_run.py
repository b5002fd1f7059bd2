"""Says what a run would change before anything does: from stored rows, without a model and without writing.

Documents are followed through the stages one input file at a time, as far as what is stored decides on them. Those that
a model would have to be asked about, or a page read for, are counted, and from there on the numbers are bounds.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.prox.doc_refinement import decide
from corpusmill.prox.stored_outputs import ReusingChunkRefiner, ReusingDocRefiner
from corpusmill.recipe import Recipe
from corpusmill.report import StageReport
from corpusmill.rules.decision import decide_with
from corpusmill.runner.audit import already_published
from corpusmill.runner.commit import stored_stage_report
from corpusmill.runner.committed_plan import plan_behind
from corpusmill.runner.duplicate_lines import committed_lines
from corpusmill.runner.frozen_selections import pin_cutoffs
from corpusmill.runner.models import with_model, without_models
from corpusmill.runner.plan import RunPlan, draft_plan, load_plan, plan_uri
from corpusmill.runner.records import RecordNotFoundError
from corpusmill.runner.select import decide_selection, selection_report
from corpusmill.runner.stage_tables import committed, stage_table
from corpusmill.runner.stored_results import (
    FileRows,
    StoredOutputRows,
    measured_alike,
    output_rows,
    scored_alike,
    scoring_identity,
)
from corpusmill.schema import RULE_MEASURES

log = logging.getLogger(__name__)

Fate = Literal["kept", "dropped", "asked", "executed"]
"""What stored rows say of a document in one stage: ``asked`` needs a model, ``executed`` is decided by programs that
are stored but were not executed here."""
RUNS_ASKED = 20
"""Earlier runs of a crawl that are asked for their pace."""


@dataclass
class StageForecast:
    """What would become of one stage.

    Attributes:
        stage: The stage.
        unchanged: Whether what is stored is what the run would write.
        n_now: Documents that it keeps now.
        n_least: Documents that it would keep at least.
        n_most: Documents that it would keep at most.
        n_computed: Documents that rules would measure, or that a model would read, at most.
        seconds: About how long that takes in one process, at the pace of the crawl's run that computed most; None
            where none computed anything.
    """

    stage: str
    unchanged: bool
    n_now: int
    n_least: int = 0
    n_most: int = 0
    n_computed: int = 0
    seconds: float | None = 0.0

    def add(self, fate: Fate) -> None:
        """Counts one document that reaches the stage."""
        self.n_least += fate == "kept"
        self.n_most += fate != "dropped"
        self.n_computed += fate == "asked"


def dry_run(
    lake: Lakehouse, recipe: Recipe, crawl: str, source: str | None = None, progress: Callable[[str], None] = log.info
) -> dict[str, Any]:
    """Returns what a run of a crawl that was run before would do now; memory is bounded by one input file's rows.

    Args:
        lake: The lakehouse; nothing is written to it.
        recipe: The recipe as it is now.
        crawl: Crawl id.
        source: Folder or URL in place of the recipe's.
        progress: Receives a line per input file.

    Returns:
        ``recipe``, ``crawl``, ``changes`` (whether the run has anything to do), ``stages`` (see `StageForecast`),
        ``model_documents`` (texts that a model would read, at most, over all stages) and ``seconds`` (None: unknown).

    Raises:
        ConfigError: The crawl has not been run with this recipe, or its pages would be extracted anew.
    """
    plan = draft_plan(lake, pin_cutoffs(lake, recipe), crawl, source)
    head = {"recipe": plan.name, "crawl": crawl}
    if already_published(lake, plan):
        return {**head, "changes": False, "stages": [], "model_documents": 0, "seconds": 0.0}
    before = plan_behind(lake, plan, "clean")
    if before is None:
        raise ConfigError(
            f"crawl={crawl!r} of recipe {plan.name!r} has not been run: a dry run compares with what is stored; run it "
            "once, or look at another crawl"
        )
    if not measured_alike(lake, plan):
        raise ConfigError(
            f"crawl={crawl!r}: the recipe reads, extracts or measures the pages in another way than the run "
            f"{before.run_id!r} did, so every page would be measured again and nothing stored says with what outcome"
        )
    stages = [*_followed(lake, plan, progress), *_selected(lake, plan)]
    seconds = [s.seconds for s in stages]
    return {
        **head,
        "changes": True,
        "stages": [asdict(s) for s in stages],
        "model_documents": sum(s.n_computed for s in stages if s.stage != "clean"),
        "seconds": None if None in seconds else round(sum(s for s in seconds if s is not None), 1),
    }


class _Judge(Protocol):
    """Says what stored rows tell of a document in one stage."""

    def open_file(self, name: str) -> None: ...

    def fate(self, doc_id: str) -> Fate: ...


def _followed(lake: Lakehouse, plan: RunPlan, progress: Callable[[str], None]) -> list[StageForecast]:
    """Follows every document of the crawl through the stages that the recipe has."""
    judges = _judges(lake, plan)
    forecasts = {stage: _empty(lake, plan, stage) for stage in ("clean", *judges)}
    removed = [_outcomes(lake, plan, stage) for stage in ("deduplicate", "lines")[: 1 + committed_lines(lake, plan)]]
    rules = plan.parsed_recipe().rules
    preset = rules.resolved()
    columns = ["doc_id", "language", "language_score", *RULE_MEASURES, "kept", "drop_reason"]
    place = stage_table(plan, "clean")
    groups = lake.table(place.identifier).iter_groups(place.partition, groups=plan.files, columns=columns)
    for n, (name, rows) in enumerate(groups, 1):
        for table in removed:
            table.open_file(name)
        for judge in judges.values():
            judge.open_file(name)
        for row in rows.to_pylist():
            error = (row["drop_reason"] or "").startswith("error.")
            kept = False if error else decide_with(row, rules, preset).kept
            admitted = kept and not row["kept"]
            forecasts["clean"].add("kept" if kept else "dropped")
            forecasts["clean"].n_computed += admitted or error
            if kept and (admitted or _stays(row["doc_id"], removed)):
                _follow(row["doc_id"], judges, forecasts, "asked" if admitted else "kept")
        progress(f"dry run {plan.crawl}: file {n} of {len(plan.files)}, {rows.num_rows} documents")
    for forecast in forecasts.values():
        forecast.seconds = _seconds(lake, plan, forecast)
    return list(forecasts.values())


def _outcomes(lake: Lakehouse, plan: RunPlan, stage: str) -> FileRows:
    place = stage_table(plan, stage)
    return FileRows(lake.table(place.identifier), place.partition, plan.files, ["doc_id", "kept"], "doc_id")


def _stays(doc_id: str, removed: list[FileRows]) -> bool:
    rows = [rows.find(doc_id) for rows in removed]
    return all(row is None or row["kept"] for row in rows)


def _follow(doc_id: str, judges: dict[str, _Judge], forecasts: dict[str, StageForecast], fate: Fate) -> None:
    """Takes a document through the stages until one drops it; what is not known stays so."""
    for stage, judge in judges.items():
        fate = judge.fate(doc_id) if fate == "kept" else "asked"
        forecasts[stage].add(fate)
        if fate == "dropped":
            return


def _judges(lake: Lakehouse, plan: RunPlan) -> dict[str, _Judge]:
    recipe = plan.parsed_recipe()
    judges: dict[str, _Judge] = {}
    if recipe.refine_documents is not None:
        judges["refine_documents"] = _Documents(lake, plan)
    if recipe.refine_chunks is not None:
        judges["refine_chunks"] = _Chunks(lake, plan)
    if recipe.score is not None and not plan.packs_sequences:
        judges["score"] = _Scores(lake, plan)
    return judges


class _Documents:
    """Decides again on the document refiner's stored answers."""

    def __init__(self, lake: Lakehouse, plan: RunPlan) -> None:
        config = plan.parsed_recipe().refine_documents
        assert config is not None
        self._config = with_model(config, plan.models["refine_documents"])
        self._refiner = ReusingDocRefiner(self._config)
        self._rows = _outputs(lake, plan, "refine_documents")
        self._stored = StoredOutputRows(self._rows)

    def open_file(self, name: str) -> None:
        self._rows.open_file(name)

    def fate(self, doc_id: str) -> Fate:
        found = self._stored.decision(doc_id)
        if found is None or not self._refiner.serves(found):
            return "asked"
        kept, _ = decide(found.decision.output, found.decision.margin, self._config)
        return "kept" if kept else "dropped"


class _Chunks:
    """Tells whether stored programs serve; their outcome is the stored one where the execution policy is the same."""

    def __init__(self, lake: Lakehouse, plan: RunPlan) -> None:
        config = plan.parsed_recipe().refine_chunks
        assert config is not None
        self._refiner = ReusingChunkRefiner(with_model(config, plan.models["refine_chunks"]))
        self._rows = _outputs(lake, plan, "refine_chunks")
        self._stored = StoredOutputRows(self._rows)
        self._same_policy = _refined_alike(lake, plan)

    def open_file(self, name: str) -> None:
        self._rows.open_file(name)

    def fate(self, doc_id: str) -> Fate:
        found, row = self._stored.programs(doc_id), self._rows.find(doc_id)
        if found is None or row is None or not self._refiner.serves(found):
            return "asked"
        if not self._same_policy:
            return "executed"
        return "kept" if row["kept"] else "dropped"


class _Scores:
    """Tells whether a document's stored score serves; a document whose text may be another is scored again."""

    def __init__(self, lake: Lakehouse, plan: RunPlan) -> None:
        place, identity = stage_table(plan, "score"), scoring_identity(plan)
        self._rows = FileRows(lake.table(place.identifier), place.partition, plan.files, ["doc_id"], "doc_id")
        self._alike = identity is not None and scored_alike(lake, plan, identity) and _refined_alike(lake, plan)

    def open_file(self, name: str) -> None:
        self._rows.open_file(name)

    def fate(self, doc_id: str) -> Fate:
        return "kept" if self._alike and self._rows.find(doc_id) is not None else "asked"


def _outputs(lake: Lakehouse, plan: RunPlan, stage: str) -> FileRows:
    place = stage_table(plan, stage)
    return output_rows(lake.table(place.identifier), place.partition, stage, plan.files, "doc_id")


def _refined_alike(lake: Lakehouse, plan: RunPlan) -> bool:
    """Returns whether the stored chunk refinements are those of the same model under the same settings."""
    before = plan_behind(lake, plan, "refine_chunks")
    if before is None:
        return plan.parsed_recipe().refine_chunks is None
    configs = [p.parsed_recipe().refine_chunks for p in (before, plan)]
    settings = [None if config is None else without_models(config).fingerprint() for config in configs]
    models = [p.models["refine_chunks"].identity() if "refine_chunks" in p.models else None for p in (before, plan)]
    return settings[0] == settings[1] and models[0] == models[1]


def _selected(lake: Lakehouse, plan: RunPlan) -> list[StageForecast]:
    """Returns the forecast of the selection: exact where the scores are there, else nothing."""
    if plan.parsed_recipe().select is None or not committed(lake, plan, "score"):
        return []
    manifest = decide_selection(lake, plan).manifest
    assert manifest is not None
    kept = selection_report(plan.crawl, manifest).documents_kept
    before = plan_behind(lake, plan, "score")
    stored = None if before is None else stored_stage_report(lake, before, "select")
    n_now = stored.documents_kept if stored is not None else 0
    return [StageForecast("select", unchanged=n_now == kept, n_now=n_now, n_least=kept, n_most=kept)]


def _empty(lake: Lakehouse, plan: RunPlan, stage: str) -> StageForecast:
    before = plan_behind(lake, plan, stage)
    stored = None if before is None else stored_stage_report(lake, before, stage)
    kept = stored.documents_kept if stored is not None else 0
    return StageForecast(stage, unchanged=committed(lake, plan, stage), n_now=kept)


def _seconds(lake: Lakehouse, plan: RunPlan, forecast: StageForecast) -> float | None:
    """Returns how long computing takes at the pace of the crawl's run that computed most.

    A run that computed little says more about the time that its models took to load.
    """
    if not forecast.n_computed:
        return 0.0
    before = plan_behind(lake, plan, forecast.stage)
    paces = []
    for epoch in range(before.epoch if before is not None else 0, 0, -1)[:RUNS_ASKED]:
        try:
            earlier = load_plan(lake, plan_uri(lake, plan.name, plan.crawl, epoch))
        except (RecordNotFoundError, ConfigError):  # expired, or of a version with other settings
            continue
        stored = stored_stage_report(lake, earlier, forecast.stage)
        n_computed = 0.0 if stored is None else _n_computed(stored)
        if stored is not None and n_computed:
            paces.append((n_computed, stored.seconds / n_computed))
    return round(forecast.n_computed * max(paces)[1], 1) if paces else None


def _n_computed(report: StageReport) -> float:
    """Returns how many documents a stage computed, where others were taken from what was stored."""
    counts = report.metrics
    if report.stage == "clean":
        return counts.get("n_measured", 0)
    computed = counts.get("model_calls", 0)  # in chunks, for the chunk refiner
    total = computed + counts.get("reused_stored", 0) + counts.get("reused_cache", 0)
    return report.documents_in * computed / total if total else 0.0


def forecast_lines(found: dict[str, Any]) -> list[str]:
    """Returns what `dry_run` found as lines for a person."""
    title = f"dry run of {found['recipe']} {found['crawl']}"
    if not found["changes"]:
        return [f"{title}: nothing to do, the corpus is published with the same inputs and settings"]
    lines = [
        f"{title}: nothing was written",
        f"  {'stage':<18}{'keeps now':>11}{'would keep':>20}{'computed':>10}   about",
    ]
    for step in found["stages"]:
        least, most = step["n_least"], step["n_most"]
        then = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        took = "" if not step["n_computed"] else _duration(step["seconds"])
        lines.append(f"  {step['stage']:<18}{step['n_now']:>11,}{then:>20}{step['n_computed']:>10,}   {took}".rstrip())
    took = _duration(found["seconds"])
    lines.append(f"  models would read at most {found['model_documents']:,} texts; all of it takes about {took}")
    if not any(step["stage"] == "select" for step in found["stages"]):
        lines.append("  what a selection would keep is known when the scores are")
    return lines


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown: no run to go by"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
