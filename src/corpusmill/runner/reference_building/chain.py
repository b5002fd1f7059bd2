"""The steps of a build as plain functions of JSON values: what operators, the worker and the command line call.

Every function opens the lakehouse that the environment names. All of them may be repeated: a result that is there is
found and left.
"""

import logging
from collections.abc import Callable
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.reference_model_recipe import parse_reference_model_recipe
from corpusmill.runner.device import device_slot
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.reference_building.plan import (
    ReferencePlan,
    load_reference_plan,
    plan_reference_model,
    plan_uri,
    seed_label,
)

log = logging.getLogger(__name__)
Progress = Callable[[str], None]


def plan(recipe: dict[str, Any], run_id: str, progress: Progress = log.info) -> dict[str, Any]:
    """Plans a build; returns the plan's URI, the build and the labels of its seeds."""
    lake = open_lakehouse()
    made = plan_reference_model(lake, parse_reference_model_recipe(recipe), run_id)
    progress(f"build {made.build} of {made.name}, text {made.text}")
    seeds = [seed_label(seed) for seed in made.parsed().seeds]
    return {"plan": plan_uri(lake, made), "build": made.build, "text": made.text, "seeds": seeds}


def pack(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Makes tokenizer and packed text; returns their counts."""
    from corpusmill.runner.reference_building.packing import pack_reference_text

    lake, loaded = _open(plan)
    return pack_reference_text(lake, loaded, progress)


def train(plan: str, seed: str, progress: Progress = log.info) -> dict[str, Any]:
    """Trains one seed and stores its models; returns the last one's figures. What is trained already is found."""
    from corpusmill.runner.reference_building.results import finished_seed

    lake, loaded = _open(plan)
    found = finished_seed(lake, loaded, seed)
    if found is not None:
        return found
    with device_slot(progress):
        from corpusmill.runner.reference_building.training import train_seed

        return train_seed(lake, loaded, seed, progress)


def evaluate(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Plots the seeds' loss curves and holds their last models against the gate; returns the figures.

    Raises:
        ReferenceGateError: A figure is above the recipe's gate.
    """
    from corpusmill.runner.reference_building.registration import evaluate_models

    lake, loaded = _open(plan)
    return evaluate_models(lake, loaded, progress)


def register(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Registers every model; returns the references that recipes can name."""
    from corpusmill.runner.reference_building.registration import register_models

    lake, loaded = _open(plan)
    registered = register_models(lake, loaded)
    progress(f"registered: name it in a recipe as model: {registered['model']}")
    return registered


def build(recipe: dict[str, Any], run_id: str, progress: Progress = log.info) -> dict[str, Any]:
    """Runs all steps in this process, in the order of the DAG; returns what `register` returns."""
    planned = plan(recipe, run_id, progress)
    uri = planned["plan"]
    pack(uri, progress)
    for seed in planned["seeds"]:
        train(uri, seed, progress)
    evaluate(uri, progress)
    return register(uri, progress)


def _open(uri: str) -> tuple[Lakehouse, ReferencePlan]:
    lake = open_lakehouse()
    return lake, load_reference_plan(lake, uri)
