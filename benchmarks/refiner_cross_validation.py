"""Cross-validates a kind of refiner by domain, on the pages whose lines people labelled.

Every fold holds out a part of the domains that have human-tier pages. The test pages are the human-tier pages of the
held-out domains; all pages of all other domains train, but for a seventh of the domains, which choose the checkpoint.
So no domain is trained on and tested on, and nothing of the test pages chooses anything. A test page is scored through
the refiner's programs, the parser and the executor, as the product runs them, and the figures are pooled over folds:
every human-tier page counts once for each seed.

    python benchmarks/refiner_cross_validation.py --kind labeller --minutes 10 --out runs/labeller
    python benchmarks/refiner_cross_validation.py --kind document --seeds 10

Progress goes to stderr, one JSON object to the last line of stdout. Each finished (fold, seed) is kept in ``--out``: a
run that was killed goes on where it was. The document kind (keep or drop of whole texts, people's verdicts) is repeated
stratified cross-validation inside one process; every choice is made inside the folds.
"""

import argparse
import gzip
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.prox.labelled_pages import LabelledPage, read_labelled_pages
from corpusmill.prox.line_scores import macro_scores, micro_scores
from corpusmill.prox.trainers import KINDS, Kind, trainer_of

DATA = Path(os.environ.get("CORPUSMILL_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
DEV_SHARE = 7
"""One in this many training domains chooses the checkpoint: about the share of the data's own dev file."""
METRICS = ("keep_f1", "char_f1", "remove_f1")
Row = dict[str, Any]


@dataclass(frozen=True)
class Fold:
    """Rows of one fold, as they stand in the labelled files."""

    train: list[Row]
    dev: list[Row]
    test: list[Row]


@dataclass(frozen=True)
class Job:
    """One training run and its scoring."""

    kind: Kind
    fold: int
    seed: int
    steps: int | None
    minutes: float | None
    folder: Path

    @property
    def name(self) -> str:
        """Returns the name of the run's model folder and result file."""
        return f"fold{self.fold}-seed{self.seed}"


def folds_by_domain(rows: Sequence[Row], n_folds: int) -> list[Fold]:
    """Returns folds whose test pages are the human-tier pages of held-out domains; the same on every machine.

    Domains are dealt to the folds by their number of human-tier pages, ties by hash, always to the smallest fold.
    """
    human: dict[str, int] = {}
    for row in rows:
        if row["tier"] == "human":
            human[row["domain"]] = human.get(row["domain"], 0) + 1
    if len(human) < n_folds:
        raise SystemExit(f"--folds {n_folds}: only {len(human)} domains have human-tier pages; give fewer folds")
    sizes, place = [0] * n_folds, dict[str, int]()
    for domain in sorted(human, key=lambda domain: (-human[domain], _hash("fold", domain))):
        place[domain] = sizes.index(min(sizes))
        sizes[place[domain]] += human[domain]
    return [_fold(rows, place, k) for k in range(n_folds)]


def _fold(rows: Sequence[Row], place: Mapping[str, int], k: int) -> Fold:
    rest = [row for row in rows if place.get(row["domain"]) != k]
    dev: set[str] = set()
    for judged in (True, False):  # domains with human-tier pages and the others in the same shares
        domains = {row["domain"] for row in rest if (row["domain"] in place) == judged}
        dev |= set(sorted(domains, key=lambda domain: _hash(f"dev{k}", domain))[::DEV_SHARE])
    return Fold(
        [row for row in rest if row["domain"] not in dev],
        [row for row in rest if row["domain"] in dev],
        [row for row in rows if place.get(row["domain"]) == k and row["tier"] == "human"],
    )


def _hash(salt: str, domain: str) -> str:
    return hashlib.sha256(f"{salt} {domain}".encode()).hexdigest()


def run_job(job: Job) -> Row:
    """Trains and scores one run; returns and stores which lines of which test page went."""
    done = job.folder / f"{job.name}.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    from corpusmill.prox.refiner import load_chunk_refiner
    from corpusmill.prox.refiner_evaluation import chunk_settings, run_pages

    fold, model = job.folder / f"fold{job.fold}", job.folder / job.name
    started = time.monotonic()
    trainer_of(job.kind)(
        fold / "train.jsonl.gz",
        fold / "dev.jsonl.gz",
        model,
        steps=job.steps,
        minutes=job.minutes,
        seed=job.seed,
        progress=partial(_say, job.name),
    )
    trained = time.monotonic() - started
    pages = read_labelled_pages(fold / "test.jsonl.gz")
    started = time.monotonic()
    results = run_pages(load_chunk_refiner(chunk_settings(model)), pages)
    n_programs = sum(result.n_programs for result in results)
    row = {
        "fold": job.fold,
        "seed": job.seed,
        "removed": [np.flatnonzero(result.removed).tolist() for result in results],
        "validity": sum(result.n_valid for result in results) / max(1, n_programs),
        "train_seconds": trained,
        "docs_per_s": len(pages) / (time.monotonic() - started),
    }
    _write(done, json.dumps(row))
    return row


def summary(pages: Sequence[Sequence[LabelledPage]], results: Sequence[Row]) -> Row:
    """Returns the pooled figures: mean over seeds, and sd over seeds where there are two or more.

    Args:
        pages: Test pages of each fold.
        results: One row a (fold, seed); a seed that lacks a fold is pooled over the folds it has.
    """
    seeds = sorted({row["seed"] for row in results})
    by_seed = [_scores([row for row in results if row["seed"] == seed], pages) for seed in seeds]
    folds = sorted({row["fold"] for row in results})
    by_fold = {
        str(fold): _spread([_scores([row], pages)["micro"] for row in results if row["fold"] == fold]) for fold in folds
    }
    return {
        **_spread([scores["micro"] for scores in by_seed]),
        "macro": _spread([scores["macro"] for scores in by_seed]),
        "validity": float(np.mean([row["validity"] for row in results])),
        "train_seconds": float(np.mean([row["train_seconds"] for row in results])),
        "per_fold": by_fold,
        "seeds": len(seeds),
        "runs": len(results),
        "n_pages": sum(len(pages[fold]) for fold in folds),
    }


def _scores(rows: Sequence[Row], pages: Sequence[Sequence[LabelledPage]]) -> dict[str, dict[str, float]]:
    met = [page for row in rows for page in pages[row["fold"]]]
    removed = []
    for page, lines in zip(met, [lines for row in rows for lines in row["removed"]], strict=True):
        gone = np.zeros(len(page.lines), dtype=np.bool_)
        gone[lines] = True
        removed.append(gone)
    return {"micro": asdict(micro_scores(met, removed)), "macro": asdict(macro_scores(met, removed))}


def _spread(scores: Sequence[Mapping[str, float]]) -> Row:
    figures: Row = {}
    for name in METRICS:
        values = [score[name] for score in scores]
        figures[name] = round(float(np.mean(values)), 4)
        if len(values) > 1:
            figures[f"{name}_sd"] = round(float(np.std(values, ddof=1)), 4)
    return figures


def _read_rows(files: Iterable[Path]) -> list[Row]:
    rows = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows += [json.loads(line) for line in file]
    return rows


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _prepare(options: argparse.Namespace) -> list[list[LabelledPage]]:
    """Writes the fold files once and returns each fold's test pages; refuses a folder of another protocol."""
    settings = {
        "kind": options.kind,
        "folds": options.folds,
        "steps": options.steps,
        "minutes": options.minutes,
        "data_sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in options.files},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    stored = options.out / "settings.json"
    if stored.exists() and json.loads(stored.read_text(encoding="utf-8")) != settings:
        raise SystemExit(f"--out {str(options.out)!r} holds a run with other settings; give a new folder or remove it")
    for k, fold in enumerate(folds_by_domain(_read_rows(options.files), options.folds)):
        (options.out / f"fold{k}").mkdir(exist_ok=True)
        for name, rows in asdict(fold).items():
            path = options.out / f"fold{k}" / f"{name}.jsonl.gz"
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_bytes(gzip.compress(text.encode("utf-8", "surrogatepass"), mtime=0))
    _write(stored, json.dumps(settings, indent=1))
    return [read_labelled_pages(options.out / f"fold{k}" / "test.jsonl.gz") for k in range(options.folds)]


def _cross_validate_pages(options: argparse.Namespace) -> Row:
    pages = _prepare(options)
    # seed by seed, so that a run that ends early has whole seeds
    jobs = [
        Job(options.kind, fold, seed, options.steps, options.minutes, options.out)
        for seed in range(options.seeds)
        for fold in range(options.folds)
    ]
    results = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        for future in as_completed([pool.submit(run_job, job) for job in jobs]):
            results.append(future.result())
            now = summary(pages, results)
            _say("all", f"{len(results)}/{len(jobs)} runs, keep-F1 {now['keep_f1']}, char-F1 {now['char_f1']}")
    return summary(pages, sorted(results, key=lambda row: (row["seed"], row["fold"])))


def _cross_validate_documents(options: argparse.Namespace) -> Row:
    from corpusmill.prox.document_head_training import cross_validate_documents

    return cross_validate_documents(
        options.judged, options.files[0], folds=options.folds, seeds=options.seeds, progress=partial(_say, "document")
    )


def _say(name: str, line: str) -> None:
    print(f"{name}: {line}", file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, choices=[*KINDS, "document"])
    parser.add_argument("--out", type=Path, help="folder of fold files, models and results; documents need none")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ..; for documents: repeats of the folds")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimiser steps of each run: the same on every run of one machine")
    length.add_argument("--minutes", type=float, help="minutes of each run (default: 10)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; with more than one, torch takes one thread"
    )
    parser.add_argument(
        "--files", type=Path, nargs="+", default=[DATA / "refine" / f"{n}.jsonl.gz" for n in ("train", "dev")]
    )
    parser.add_argument("--judged", type=Path, default=DATA / "oracles" / "dclm_human_quality.jsonl.gz")
    options = parser.parse_args(arguments)
    if options.out is None and options.kind != "document":
        parser.error("--out is needed: each finished run is kept there")
    if options.steps is None and options.minutes is None and options.kind != "document":
        options.minutes = 10.0
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the cross-validation that the command line names."""
    options = _options(arguments)
    if options.jobs > 1:  # read by the child processes when they load torch
        os.environ["OMP_NUM_THREADS"] = "1"
    found = _cross_validate_documents(options) if options.kind == "document" else _cross_validate_pages(options)
    print(json.dumps({"kind": options.kind, "steps": options.steps, "minutes": options.minutes, **found}))


if __name__ == "__main__":
    main()
