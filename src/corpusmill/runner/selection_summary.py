"""What a run's report says of its selection: share, drift, warnings, and how often training repeats the corpus."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.epoch_planner import plan_epochs
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import find_record
from corpusmill.runner.selection_record import selection_uri


def selection_summary(lake: Lakehouse, plan: RunPlan) -> dict[str, Any] | None:
    """Returns the run's selection in a few numbers, None where nothing was selected."""
    if plan.recipe["select"] is None:
        return None
    record = find_record(lake, selection_uri(lake, plan))
    if record is None:
        return None
    manifest = Manifest.from_json(record["manifest"])
    weight = sum(cuts.weight_scored for cuts in manifest.strata.values())
    kept = sum(cuts.weight_kept for cuts in manifest.strata.values())
    return {
        "column": manifest.column,
        "which": manifest.which,
        "mode": manifest.mode,
        "fraction": manifest.fraction,
        "weight": manifest.weight,
        "n_scored": manifest.n_scored,
        "n_kept": manifest.n_kept,
        "kept_share": round(kept / weight, 6) if weight else 0.0,
        "drift": None if manifest.drift is None else manifest.drift._asdict(),
        "warnings": list(manifest.warnings),
    }


def epoch_summary(lake: Lakehouse, plan: RunPlan) -> dict[str, Any] | None:
    """Returns how often the recipe's token budget repeats the published corpus, None where it names no budget.

    Tokens are the reference model's; ``kept_tokens`` is 0 and ``epochs`` None where nothing is published or scored.
    """
    budget = plan.parsed_recipe().token_budget
    if budget is None:
        return None
    tokens = corpus_tokens(lake, plan.name)
    if tokens:
        return plan_epochs(tokens, budget).to_json()
    return {"budget": budget, "kept_tokens": 0, "epochs": None, "warning": NO_TOKENS}


NO_TOKENS = "the published corpus has no token counts: nothing is published, or the recipe has no 'score' stage"


def corpus_tokens(lake: Lakehouse, recipe: str) -> int:
    """Returns the tokens of a recipe's published corpus over all crawls, as its reference model's tokenizer counts.

    Where packed sequences are published, they are counted; their tokens are what a trainer reads.
    """
    for name in (f"{recipe}.corpus_sequences", f"{recipe}.corpus"):
        table = lake.table(name)
        n = 0
        for partition in table.partitions():
            column = table.scan(partition, columns=["n_tokens"])["n_tokens"]
            n += int(pc.sum(column.cast(pa.int64())).as_py() or 0)
        if n:
            return n
    return 0


def selection_sentences(report: dict[str, Any]) -> list[str]:
    """Returns what a run's report says of drift, of a selection that needs a look, and of repeated tokens."""
    selection, epochs = report.get("selection") or {}, report.get("epochs") or {}
    lines = []
    if drift := selection.get("drift"):
        lines.append(
            f"frozen cut-offs keep {drift['kept_share']:.1%} (frozen at {drift['frozen_share']:.1%}); drift of the "
            f"scores: Kolmogorov-Smirnov {drift['ks']:.3f}, population stability index {drift['psi']:.3f}"
        )
    lines += [f"selection: {warning}" for warning in selection.get("warnings", [])]
    if epochs.get("epochs") is not None:
        lines.append(
            f"a budget of {epochs['budget']:,} tokens reads the corpus of {epochs['kept_tokens']:,} tokens "
            f"{epochs['epochs']:.2f} times"
        )
    if epochs.get("warning"):
        lines.append(f"token budget: {epochs['warning']}")
    return lines
