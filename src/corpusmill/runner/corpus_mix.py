"""Distributions of a run for its report: languages, lengths and scores, with the cut lines of the selection.

They are counted on a bounded number of input files, evenly spaced over the crawl and the same on every call, so that
the report of a crawl of 90,000 files costs what one of 32 files does; ``files_read`` and ``files`` say how many. Scores
are those of all scored units, kept or not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.cuts import Manifest
from corpusmill.pruning.order import END, START, Cut, float_of_key
from corpusmill.runner.assemble_sequences import SCORE_COLUMNS
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import find_record
from corpusmill.runner.selection_record import selection_uri
from corpusmill.runner.stage_tables import committed, input_table

MAX_FILES = 32
"""Input files that are counted; at some 30,000 pages each this is a million documents."""
MAX_LANGUAGES = 12
"""Languages that are named; the rest is summed as ``other``."""
BINS = 32
"""Bars of a score histogram."""
TAIL = 0.005
"""Share of the scores at either end that goes into the first or last bar, so that outliers do not flatten the rest."""
LENGTH_EDGES = (0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
"""Lower ends of the length classes in characters; the last one is open."""
SCORES = ("bits_per_byte", "perplexity", "mean_nll", "el2n", "memorization")
"""Published scores, see `assemble_sequences.SCORE_COLUMNS`."""
MAX_STRATA = 20
"""Strata whose cut lines are listed."""
UNKNOWN = "unknown"
OTHER = "other"


def corpus_mix(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Returns the distributions of a run as far as its stages are committed.

    Returns:
        ``files``, ``files_read``; ``languages`` and ``lengths``: counts of ``pages`` (all), ``cleaned`` (kept by the
        rules) and ``published`` documents; ``length_edges``; ``scores``: one histogram for each score that was
        computed, with ``edges``, ``counts``, ``missing`` and ``cuts``.

    Raises:
        RecordNotFoundError: A newer run replaced the stage tables while they were read.
    """
    files = sample_files(plan.files)
    mix: dict[str, Any] = {
        "files": len(plan.files), "files_read": len(files), "length_edges": list(LENGTH_EDGES),
        "languages": {}, "lengths": {}, "scores": [],
    }  # fmt: skip
    if committed(lake, plan, "clean"):
        _count_documents(mix, _rows(lake, plan, "clean", files, ["language", "n_chars_raw", "n_chars", "kept"]))
    if committed(lake, plan, "assemble"):
        _count_published(mix, _rows(lake, plan, "assemble", files, ["language", "n_chars"]))
    if plan.recipe["score"] is not None and committed(lake, plan, "score"):
        mix["scores"] = _score_histograms(lake, plan, files)
    return mix


def sample_files(files: Sequence[str], n: int = MAX_FILES) -> tuple[str, ...]:
    """Returns up to ``n`` of the files, evenly spaced."""
    step = max(1.0, len(files) / n)
    return tuple(files[int(i * step)] for i in range(min(n, len(files))))


def _rows(lake: Lakehouse, plan: RunPlan, stage: str, files: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    table, partition = input_table(lake, plan, stage)
    for _, rows in table.iter_groups(partition, groups=files, columns=columns):
        yield rows


def _count_documents(mix: dict[str, Any], groups: Iterable[pa.Table]) -> None:
    languages: dict[str, Counter[str]] = {"pages": Counter(), "cleaned": Counter()}
    lengths = {name: np.zeros(len(LENGTH_EDGES), dtype=np.int64) for name in languages}
    for rows in groups:
        kept = rows.filter(rows["kept"])
        for name, part, column in (("pages", rows, "n_chars_raw"), ("cleaned", kept, "n_chars")):
            languages[name].update(str(v or UNKNOWN) for v in part["language"].to_pylist())
            lengths[name] += length_counts(part[column])
    mix["languages"] |= {name: _top(counts) for name, counts in languages.items()}
    mix["lengths"] |= {name: counts.tolist() for name, counts in lengths.items()}


def _count_published(mix: dict[str, Any], groups: Iterable[pa.Table]) -> None:
    languages: Counter[str] = Counter()
    lengths = np.zeros(len(LENGTH_EDGES), dtype=np.int64)
    for rows in groups:
        languages.update(str(v or UNKNOWN) for v in rows["language"].to_pylist())
        lengths += length_counts(rows["n_chars"])
    mix["languages"]["published"] = _top(languages)
    mix["lengths"]["published"] = lengths.tolist()


def length_counts(lengths: Any) -> np.ndarray:
    """Returns int64 counts of an Arrow column of lengths in the classes of `LENGTH_EDGES`."""
    values = np.asarray(lengths.to_numpy(), dtype=np.int64)
    places = np.searchsorted(np.array(LENGTH_EDGES), values, side="right") - 1
    return np.bincount(np.maximum(places, 0), minlength=len(LENGTH_EDGES)).astype(np.int64)


def _top(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = dict(ordered[:MAX_LANGUAGES])
    rest = sum(n for _, n in ordered[MAX_LANGUAGES:])
    return named | ({OTHER: named.get(OTHER, 0) + rest} if rest else {})


def _score_histograms(lake: Lakehouse, plan: RunPlan, files: Sequence[str]) -> list[dict[str, Any]]:
    columns = ["nll_sum", "el2n_sum", "n_scored", "n_bytes", "memorization"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
    connection = duckdb.connect()
    try:
        for rows in _rows(lake, plan, "score", files, columns):
            connection.register("s", rows)
            values = connection.sql(f"select {SCORE_COLUMNS} from s").to_arrow_table()
            for name in SCORES:
                column = values[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
                parts[name].append(np.asarray(column, dtype=np.float32))
    finally:
        connection.close()
    cuts = _cut_lines(lake, plan)
    found = []
    for name, arrays in parts.items():
        histogram = score_histogram(np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.float32))
        if histogram is not None:
            found.append({"column": name, **histogram, "cuts": cuts.get(name, [])})
    return found


def score_histogram(values: np.ndarray) -> dict[str, Any] | None:
    """Returns a histogram of finite scores, None where there are none.

    Args:
        values: Scores; NaN is "no score".

    Returns:
        ``edges`` (one more than ``counts``), ``counts``, ``missing`` and ``median``. The edges span all but `TAIL` of
        the scores at either end; what lies outside is in the first and last bar, and ``low`` and ``high`` are the
        smallest and largest score.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return None
    first, last = (float(q) for q in np.quantile(finite, [TAIL, 1 - TAIL]))
    if last <= first:
        first, last = first - 0.5, first + 0.5
    counts, edges = np.histogram(np.clip(finite, first, last), bins=BINS, range=(first, last))
    return {
        "edges": [round(float(e), 6) for e in edges],
        "counts": counts.tolist(),
        "missing": int(len(values) - len(finite)),
        "median": round(float(np.median(finite)), 6),
        "low": round(float(finite.min()), 6),
        "high": round(float(finite.max()), 6),
    }


def _cut_lines(lake: Lakehouse, plan: RunPlan) -> dict[str, list[dict[str, Any]]]:
    """Returns the cuts of the run's selection by score: what is kept lies from ``low`` to ``high``, None is open."""
    record = find_record(lake, selection_uri(lake, plan)) if plan.recipe["select"] is not None else None
    if record is None:
        return {}
    manifest = Manifest.from_json(record["manifest"])
    lines = [
        {"stratum": name, "low": _score_at(cuts.lo), "high": _score_at(cuts.hi)}
        for name, cuts in list(manifest.strata.items())[:MAX_STRATA]
    ]
    return {manifest.column: lines}


def _score_at(cut: Cut) -> float | None:
    return None if cut in (START, END) else round(float_of_key(cut.key), 6)
