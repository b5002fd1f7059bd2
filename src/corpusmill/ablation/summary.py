"""From results of runs to the figures of the report: means over seeds, gains, repetition, cost, break-even."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from corpusmill.ablation.arms import NO_PRUNING
from corpusmill.ablation.costs import break_even, step_reaching

Result = Mapping[str, Any]
TEST_FIGURES = ("nll", "perplexity", "bits_per_byte")


def summarise(results: Sequence[Result], max_epochs: float) -> list[dict[str, Any]]:
    """Returns one row for each student and arm.

    A gain is the paper's: how much lower the test perplexity is than that of the named arm of the same student, as a
    share (0.01 is 1 %). It compares means over seeds, taken of the nats per token.

    Args:
        results: Stored results of runs.
        max_epochs: Repetitions above which a row has a warning.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result["student"], result["arm"]["label"]), []).append(result)
    rows = {key: _row(runs, max_epochs) for key, runs in groups.items()}
    for (student, label), row in rows.items():
        baseline = rows.get((student, NO_PRUNING))
        chance = _random_of(rows, student, row["arm"]["fraction"])
        row["gain_over_all"] = _gain(row, baseline)
        row["gain_over_random"] = _gain(row, chance)
        if baseline is not None and label != NO_PRUNING:
            row["break_even"] = _break_even(groups[student, label], groups[student, NO_PRUNING])
    return list(rows.values())


def _row(runs: Sequence[Result], max_epochs: float) -> dict[str, Any]:
    first = runs[0]
    tests = {
        name: {
            what: mean_std(run["test"][name][what] for run in runs) for what in ("nll", "perplexity", "bits_per_byte")
        }
        for name in first["test"]
    }
    epochs = statistics.fmean(run["epochs"] for run in runs)
    warnings = sorted({w for run in runs for w in run["corpus"]["warnings"]})
    if epochs > max_epochs:
        warnings.append(f"its corpus was seen {epochs:.1f} times, more than {max_epochs:g}")
    return {
        "arm": first["arm"],
        "student": first["student"],
        "kind": first["kind"],
        "seeds": [run["seed"] for run in runs],
        "test": tests,
        "downstream": _downstream(runs),
        "purity": _mean(run["corpus"]["purity"] for run in runs),
        "kept_bytes": _mean(run["corpus"]["kept_bytes"] for run in runs),
        "n_tokens": _mean(run["corpus"]["n_tokens"] for run in runs),
        "epochs": epochs,
        "n_parameters": first["n_parameters"],
        "costs": {name: _mean(run["costs"][name] for run in runs) for name in first["costs"]},
        "selecting_seconds": _mean(run["corpus"]["selecting_seconds"] for run in runs),
        "break_even": None,
        "warnings": warnings,
    }


def _downstream(runs: Sequence[Result]) -> dict[str, dict[str, float]]:
    names = sorted({name for run in runs for name in run["downstream"]})
    return {
        name: mean_std(run["downstream"][name]["accuracy"] for run in runs if name in run["downstream"])
        for name in names
    }


def mean_std(values: Iterable[float]) -> dict[str, float]:
    """Returns mean and sample standard deviation, 0 for one value."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": math.nan, "std": math.nan}
    return {"mean": statistics.fmean(known), "std": statistics.stdev(known) if len(known) > 1 else 0.0}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _random_of(rows: Mapping[tuple[str, str], dict[str, Any]], student: str, fraction: str) -> dict[str, Any] | None:
    for (name, _), row in rows.items():
        if name == student and row["arm"]["kind"] == "random" and row["arm"]["fraction"] == fraction:
            return row
    return None


def _gain(row: Mapping[str, Any], other: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Returns the share by which perplexity is lower than the other's, by test set; None where there is no other."""
    if other is None or other is row:
        return None
    return {
        name: 1.0 - math.exp(row["test"][name]["nll"]["mean"] - other["test"][name]["nll"]["mean"])
        for name in row["test"]
        if name in other["test"]
    }


def _break_even(runs: Sequence[Result], baseline: Sequence[Result]) -> dict[str, Any] | None:
    """Returns the break-even by the clean test set (the crawl's where there is none), on the first common seed."""
    by_seed = {run["seed"]: run for run in baseline}
    run = next((run for run in runs if run["seed"] in by_seed and run["curve"]), None)
    if run is None:
        return None
    full = by_seed[run["seed"]]["curve"]
    test = "clean" if "clean" in run["test"] else "crawl"
    if not full or test not in full[-1]:
        return None
    step_tokens = run["tokens_seen"] / full[-1]["step"]
    reached = step_reaching(run["curve"], test, full[-1][test])
    selecting = run["costs"]["selecting_flops"]
    return break_even(run["n_parameters"], step_tokens, full[-1]["step"], reached, selecting)


def histogram(values: Sequence[float], n_bins: int = 60) -> dict[str, list[float]]:
    """Returns ``edges`` [n_bins + 1] and ``counts`` [n_bins] of finite values; one bin where all are equal."""
    known = sorted(value for value in values if math.isfinite(value))
    if not known:
        return {"edges": [0.0, 1.0], "counts": [0.0]}
    lo, hi = known[0], known[-1]
    if lo == hi:
        return {"edges": [lo - 0.5, hi + 0.5], "counts": [float(len(known))]}
    counts = [0.0] * n_bins
    for value in known:
        counts[min(int((value - lo) / (hi - lo) * n_bins), n_bins - 1)] += 1
    return {"edges": [lo + (hi - lo) * i / n_bins for i in range(n_bins + 1)], "counts": counts}
