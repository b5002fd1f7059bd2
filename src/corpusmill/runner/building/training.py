"""Training, measuring and registering what a build made."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpusmill.errors import ModelError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.prox.example_sets import write_labelled_pages
from corpusmill.prox.trainers import trainer_of
from corpusmill.prox.training_examples import write_examples
from corpusmill.runner.building.examples import TRAIN, VALIDATION, examples_of
from corpusmill.runner.building.plan import EXAMPLES_TABLE, BuildPlan, file_sha256
from corpusmill.runner.model_registry import RegisteredModel, fetch_model, register_model, store_model
from corpusmill.runner.records import find_record, read_record, write_record

Progress = Callable[[str], None]


class GateFailedError(ModelError, Permanent):
    """A refiner does not reach what its recipe asks for."""


def train_refiner(lake: Lakehouse, plan: BuildPlan, progress: Progress) -> dict[str, Any]:
    """Trains on the build's examples and stores the model folder; a second run finds it.

    Raises:
        ModelError: Training diverged.
    """
    uri = plan.record(lake, "model.json")
    if (stored := find_record(lake, uri)) is not None:
        fetch_model(lake, RegisteredModel(**stored))  # raises where its files were changed
        return {**stored, "skipped": True}
    folder = plan.scratch() / "model"
    _train(lake, plan, folder, progress)
    settings = plan.parsed().train
    base = settings.base if settings.kind == "program-model" else ""
    model = dataclasses.replace(
        store_model(lake, plan.name, folder), kind=settings.kind, base=base, training_data=_training_data(lake, plan)
    )
    write_record(lake, uri, dataclasses.asdict(model))
    return dataclasses.asdict(model)


def evaluate_refiner(lake: Lakehouse, plan: BuildPlan, progress: Progress) -> dict[str, Any]:
    """Measures the stored model, once for each file, and holds it against the recipe's gate.

    Raises:
        GateFailedError: A figure is too low; the message names each.
    """
    from corpusmill.prox.refiner_evaluation import evaluate, gate

    recipe, model = plan.parsed(), _stored_model(lake, plan)
    folder = fetch_model(lake, model)
    file = Path(recipe.evaluate) if recipe.evaluate else _example_file(lake, plan, VALIDATION, "evaluation")
    uri, measured = plan.record(lake, "quality.json"), {"model": model.sha256, "file": file_sha256(file)}
    stored = find_record(lake, uri)
    quality = stored["quality"] if stored and stored["measured"] == measured else evaluate(folder, file)
    write_record(lake, uri, {"measured": measured, "quality": quality})
    progress(f"{recipe.train.kind} of {plan.name}: {json.dumps({k: v for k, v in quality.items() if k != 'all'})}")
    failures = gate(quality, recipe.gate)
    if failures:
        raise GateFailedError(
            f"refiner {plan.name!r} of build {plan.build} is not registered: {'; '.join(failures)}. Label more "
            "documents, train longer, or lower the gate in its recipe"
        )
    return {**quality, "measured_on": file.name}


def register_refiner(lake: Lakehouse, plan: BuildPlan) -> dict[str, Any]:
    """Adds the measured model to ``ops.models``; returns its reference and its figures."""
    quality = read_record(lake, plan.record(lake, "quality.json"))["quality"]
    model = dataclasses.replace(_stored_model(lake, plan), quality=json.dumps(quality, sort_keys=True))
    new = register_model(lake, model, plan.run_id)
    figures = {k: v for k, v in quality.items() if isinstance(v, int | float)}
    return {"model": model.reference, "kind": model.kind, "sha256": model.sha256, "new": new, **figures}


def _train(lake: Lakehouse, plan: BuildPlan, folder: Path, progress: Progress) -> None:
    recipe = plan.parsed()
    settings = recipe.train
    length: dict[str, Any] = {"minutes": settings.minutes, "steps": settings.steps, "seed": settings.seed}
    if settings.kind == "program-model":
        from corpusmill.prox.refiner_finetuning import finetune_refiner

        train, dev = (_example_file(lake, plan, split) for split in (TRAIN, VALIDATION))
        finetune_refiner(train, dev, folder, task=recipe.task, base=settings.base, progress=progress, **length)
        return
    train, dev = (_page_file(lake, plan, split) for split in (TRAIN, VALIDATION))
    trainer_of(settings.kind)(train, dev, folder, progress=progress, **length)


def _example_file(lake: Lakehouse, plan: BuildPlan, split: str, name: str = "") -> Path:
    path = plan.scratch() / f"{name or split}.examples.jsonl"
    write_examples(path, examples_of(lake, plan, split))
    return path


def _page_file(lake: Lakehouse, plan: BuildPlan, split: str) -> Path:
    path = plan.scratch() / f"{split}.pages.jsonl"
    write_labelled_pages(path, examples_of(lake, plan, split))
    return path


def _stored_model(lake: Lakehouse, plan: BuildPlan) -> RegisteredModel:
    return RegisteredModel(**read_record(lake, plan.record(lake, "model.json")))


def _training_data(lake: Lakehouse, plan: BuildPlan) -> str:
    """Returns what the model was trained on, as JSON: the examples' partition and snapshot, and their source."""
    table = lake.table(EXAMPLES_TABLE)
    state = table.partition_state(plan.partition)
    data = {
        "table": EXAMPLES_TABLE,
        **plan.partition,
        "snapshot": None if state is None else state.snapshot_id,
        "source": plan.source,
        "recipe": plan.parsed().fingerprint(),
    }
    return json.dumps(data, sort_keys=True)
