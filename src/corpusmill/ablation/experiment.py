"""The steps of an ablation as functions of JSON values: what operators, the worker and the command line call.

All results lie in one folder under the keys of what they depend on. A step whose result is there does nothing, so that
a killed or failed run costs itself alone, and a recipe that grows by an arm trains that arm alone. Workers on several
machines must share the folder.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from corpusmill.ablation.arms import (
    Run,
    arms_of,
    checkpoints_of,
    columns_of,
    reference_key,
    run_key,
    run_of,
    runs_of,
    score_key,
    used_references,
)
from corpusmill.ablation.config import BUNDLED_PAIRS, AblationRecipe, ReferenceConfig, parse_ablation
from corpusmill.ablation.corpus import Corpus, corpus_of
from corpusmill.ablation.costs import Costs
from corpusmill.ablation.pool import read_part, unit_column, write_pool
from corpusmill.ablation.sources import source_content
from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.modeling.decoder_shapes import PRESETS
from corpusmill.modeling.flops import training_flops

log = logging.getLogger(__name__)
Progress = Callable[[str], None]
POOL_VERSION = 2
"""Raised when code changes what a pool holds."""


@dataclass(frozen=True)
class Plan:
    """Everything an experiment decided before it started, and where its results lie.

    Attributes:
        recipe: The recipe.
        folder: Folder of all results.
        pool_key: Identity of the pool's content and settings.
        content: Digests of models that arms name, by name.
        measures: What is measured, with digests of the files.
    """

    recipe: AblationRecipe
    folder: Path
    pool_key: str
    content: dict[str, str]
    measures: dict[str, Any]

    @property
    def pool(self) -> Path:
        """Folder of the prepared pool."""
        return self.folder / "pools" / self.pool_key

    def reference(self, name: str) -> Path:
        """Returns the folder of a trained reference's models."""
        return self.folder / "references" / reference_key(self.recipe, self.pool_key, name)

    def scores(self, name: str) -> Path:
        """Returns the score file of a reference."""
        key = fingerprint([score_key(self.recipe, self.pool_key, name), self.content])
        return self.folder / "scores" / f"{key}.parquet"

    def run(self, run: Run) -> Path:
        """Returns the folder of a run."""
        key = fingerprint([run_key(self.recipe, self.pool_key, run, self.measures), self._content_of(run)])
        return self.folder / "runs" / key

    def result(self, run: Run) -> dict[str, Any] | None:
        """Returns the stored result of a run, None where there is none."""
        path = self.run(run) / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _content_of(self, run: Run) -> dict[str, str]:
        reference = self.recipe.references.get(run.arm.reference)
        baseline = None if reference is None else reference.baseline
        names = {f"student:{run.student}", f"arm:{run.arm.label}"}
        names |= {f"reference:{name}" for name in (run.arm.reference, baseline)}
        return {name: digest for name, digest in self.content.items() if name in names}


def prepare(recipe: Mapping[str, Any], out: str, progress: Progress = log.info) -> dict[str, Any]:
    """Prepares the pool and fixes the plan; returns the plan's file, the references and the number of runs.

    Raises:
        ConfigError: The recipe names files, presets or models that do not exist.
        PermanentDataError: There is too little text.
    """
    parsed = parse_ablation(recipe)
    _check_presets(parsed)
    folder = Path(out)
    key = fingerprint(
        [POOL_VERSION, parsed.pool.model_dump(exclude={"files", "clean_files"}), source_content(parsed.pool)]
    )
    plan = Plan(parsed, folder, key, _model_digests(parsed), _measure_digests(parsed))
    write_pool(parsed.pool, plan.pool)
    _check_strata(parsed, plan.pool)
    path = folder / "plans" / f"{fingerprint([parsed.model_dump(mode='json'), key, plan.content])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(
        path,
        {
            "recipe": parsed.model_dump(mode="json"),
            "pool_key": key,
            "content": plan.content,
            "measures": plan.measures,
        },
    )
    runs = runs_of(parsed)
    n_done = sum(plan.result(run) is not None for run in runs)
    references = used_references(parsed)
    progress(f"{parsed.name}: {len(arms_of(parsed))} arms, {len(runs)} runs, {n_done} of them done already")
    return {"plan": str(path), "references": references, "n_runs": len(runs), "n_done": n_done}


def load_plan(path: str) -> Plan:
    """Returns the plan of a file that `prepare` wrote.

    Raises:
        PermanentDataError: There is no such file.
    """
    place = Path(path)
    if not place.is_file():
        raise PermanentDataError(f"plan={path!r} is not a file; workers must share the folder: clear 'prepare' again")
    values = json.loads(place.read_text())
    recipe = parse_ablation(values["recipe"])
    return Plan(recipe, place.parent.parent, values["pool_key"], values["content"], values["measures"])


def score(plan: str, reference: str, progress: Progress = log.info) -> dict[str, Any]:
    """Trains a reference where it has to be, and scores the pool with it; returns counts and operations."""
    from corpusmill.runner.device import device_slot

    loaded = load_plan(plan)
    path = loaded.scores(reference)
    record = path.with_suffix(".json")
    if record.exists():
        return {"reference": reference, "skipped": True, "n_units": json.loads(record.read_text())["n_units"]}
    from corpusmill.ablation.scoring_pool import score_units, train_references

    config = loaded.recipe.references[reference]
    with device_slot(progress):
        checkpoints = checkpoints_of(loaded.recipe, reference)
        folders = train_references(config, checkpoints, loaded.pool, loaded.reference(reference), progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = columns_of(loaded.recipe, reference)
        baselines = _baselines(loaded, config, columns, progress)
        cost = score_units(config, folders, loaded.pool, columns, path, progress, baselines)
    _write_json(record, cost)
    return {"reference": reference, **{k: v for k, v in cost.items() if isinstance(v, int | float)}}


def _baselines(plan: Plan, config: ReferenceConfig, columns: Sequence[str], progress: Progress) -> list[Path]:
    """Returns the models of the excess loss's second reference, trained if they must be; [] where it is unused."""
    from corpusmill.ablation.scoring_pool import train_references

    name = config.baseline
    if name is None or "excess_nll" not in columns:
        return []
    checkpoints = checkpoints_of(plan.recipe, name)
    return train_references(plan.recipe.references[name], checkpoints, plan.pool, plan.reference(name), progress)


def list_runs(plan: str, progress: Progress = log.info) -> list[str]:
    """Returns the labels of all runs, and says how often each arm by selection will be seen."""
    loaded = load_plan(plan)
    runs = runs_of(loaded.recipe)
    for run in runs:
        state = "done" if loaded.result(run) is not None else "to do"
        progress(f"{run.label}: {state}")
    return [run.label for run in runs]


def run_arm(plan: str, run: str, progress: Progress = log.info) -> dict[str, Any]:
    """Trains one student on one arm and measures it; returns its main figures."""
    loaded = load_plan(plan)
    chosen = run_of(loaded.recipe, run)
    stored = loaded.result(chosen)
    if stored is not None:
        return {"run": run, "skipped": True, **_headline(stored)}
    from corpusmill.runner.device import device_slot

    with device_slot(progress):
        result = _trained_and_measured(loaded, chosen, progress)
    _write_json(loaded.run(chosen) / "result.json", result)
    return {"run": run, **_headline(result)}


def report(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Writes ``report.html`` and ``report.json`` beside the results; returns their places and the best arms."""
    from corpusmill.ablation.report import write_report

    return write_report(load_plan(plan), progress)


def ablate(recipe: Mapping[str, Any], out: str, progress: Progress = log.info) -> dict[str, Any]:
    """Runs all steps in this process, in the order of the DAG; returns what `report` returns."""
    made = prepare(recipe, out, progress)
    for reference in made["references"]:
        score(made["plan"], reference, progress)
    labels = list_runs(made["plan"], lambda _: None)
    for number, label in enumerate(labels, 1):
        figures = run_arm(made["plan"], label, partial(_tell_of, label, progress))
        shown = ", ".join(f"{k} {v:.4g}" for k, v in figures.items() if isinstance(v, float))
        progress(f"run {number} of {len(labels)}: {label}: {shown}")
    return report(made["plan"], progress)


def _tell_of(label: str, progress: Progress, line: str) -> None:
    progress(f"{label}: {line}")


def _trained_and_measured(plan: Plan, run: Run, progress: Progress) -> dict[str, Any]:
    from corpusmill.ablation.students import encode_tests, measure_test, train_student

    recipe = plan.recipe
    corpus = _corpus(plan, run, progress)
    state = plan.run(run)
    state.mkdir(parents=True, exist_ok=True)
    tests = {name: [d.text for d in read_part(plan.pool, f"test_{name}")] for name in ("clean", "crawl")}
    student = recipe.students[run.student]
    trained = train_student(student, run.seed, corpus.texts, plan.pool, tests, state, progress)
    encoded = encode_tests(trained.tokenizer, tests)
    training = training_flops(trained.n_parameters, trained.tokens_seen)
    return {
        "arm": asdict(run.arm),
        "student": run.student,
        "kind": student.kind,
        "seed": run.seed,
        "corpus": {**corpus.facts, "n_tokens": trained.n_tokens},
        "manifest": corpus.manifest,
        "epochs": trained.epochs,
        "tokens_seen": trained.tokens_seen,
        "n_parameters": trained.n_parameters,
        "test": {name: measure_test(trained.model, test) for name, test in encoded.items()},
        "downstream": _downstream(plan, trained, state, progress),
        "costs": Costs(training, corpus.facts["selecting_flops"], corpus.facts["reference_flops"]).as_dict(),
        "losses": [round(loss, 4) for loss in trained.losses],
        "curve": trained.curve,
    }


def _corpus(plan: Plan, run: Run, progress: Progress) -> Corpus:
    scores = plan.scores(run.arm.reference) if run.arm.reference else None
    cache = plan.folder / "corpora" / f"{fingerprint([plan.pool_key, run.arm.steps, plan._content_of(run)])}.parquet"
    return corpus_of(run.arm, plan.recipe.pool, run.seed, plan.pool, scores, cache, progress)


def _downstream(plan: Plan, trained: Any, state: Path, progress: Progress) -> dict[str, Any]:
    from corpusmill.ablation.downstream import fine_tune, measure_pairs, read_pairs

    measures = plan.recipe.measures
    pairs = [pair for name in measures.minimal_pairs for pair in read_pairs(name)]
    out: dict[str, Any] = {"minimal_pairs": measure_pairs(trained.model, trained.tokenizer, pairs)} if pairs else {}
    if trained.network is not None:
        for name, task in measures.classification.items():
            progress(f"fine-tuning on {name}")
            out[name] = fine_tune(trained.network, trained.tokenizer, trained.eod, task, state / "weights", progress)
    return out


def _headline(result: Mapping[str, Any]) -> dict[str, float]:
    figures = {f"{name}_nll": float(values["nll"]) for name, values in result["test"].items()}
    figures["epochs"] = float(result["epochs"])
    if result["corpus"]["purity"] is not None:
        figures["purity"] = float(result["corpus"]["purity"])
    return figures


def _check_strata(recipe: AblationRecipe, pool: Path) -> None:
    """Refuses arms within a stratum that no unit has: they would be the arms without it, under another name."""
    for name in sorted({name for grid in recipe.scores for by in grid.strata for name in by}):
        if unit_column(pool, name).null_count == unit_column(pool, name).length():
            raise ConfigError(
                f"strata name {name!r}, but no document of the pool has one; take a table or files with the column "
                f"{'url' if name == 'domain' else name!r}, or leave the stratum out"
            )


def _check_presets(recipe: AblationRecipe) -> None:
    named: dict[str, Any] = {f"references.{name}": r.preset for name, r in recipe.references.items() if r.model is None}
    named |= {f"students.{n}": s.preset for n, s in recipe.students.items() if s.kind == "gpt" and s.base is None}
    for place, preset in named.items():
        if isinstance(preset, str) and preset not in PRESETS:
            raise ConfigError(f"{place}.preset={preset!r} is unknown; expected one of {sorted(PRESETS)}")


def _model_digests(recipe: AblationRecipe) -> dict[str, str]:
    """Returns what identifies the bytes of every model that the recipe names, so that a changed one is noticed."""
    from corpusmill.ablation.existing_models import model_place
    from corpusmill.modeling.load import model_sha256
    from corpusmill.runner.alone import configured

    out: dict[str, str] = {}
    for name, reference in recipe.references.items():
        if reference.model is not None:
            out[f"reference:{name}"] = model_sha256(model_place(reference.model, reference.revision))
    for name, student in recipe.students.items():
        if student.base is not None:
            out[f"student:{name}"] = model_sha256(model_place(student.base))
    for name, steps in recipe.corpora.items():
        identities = [configured(stage, settings)[1] for step in steps for stage, settings in step.items()]
        out[f"arm:{name}"] = fingerprint(identities)
    return out


def _measure_digests(recipe: AblationRecipe) -> dict[str, Any]:
    from corpusmill.ablation.sources import file_digests

    measures = recipe.measures
    tasks = {
        name: {**task.model_dump(mode="json", exclude={"train", "dev"}), "files": file_digests([*_files(task)])}
        for name, task in measures.classification.items()
    }
    pairs = [name for name in measures.minimal_pairs if name != BUNDLED_PAIRS]
    return {"pairs": [len(measures.minimal_pairs), file_digests(pairs)], "classification": tasks}


def _files(task: Any) -> list[str]:
    return [task.train] if task.dev is None else [task.train, task.dev]


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_text(json.dumps(value, sort_keys=True))
    os.replace(scratch, path)
