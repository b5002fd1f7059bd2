"""The steps of a build as plain functions of JSON values: what operators, the worker and the command line call.

Every function opens the lakehouse that the environment names. All of them may be repeated: a result that is there is
found and left.
"""

import logging
from collections.abc import Callable
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.refiner_recipe import parse_refiner_recipe
from corpusmill.runner.building.annotation import annotate_shard
from corpusmill.runner.building.plan import BuildPlan, load_build, plan_build, plan_uri
from corpusmill.runner.building.sampling import sample_seed
from corpusmill.runner.device import device_slot
from corpusmill.runner.open_lakehouse import open_lakehouse

log = logging.getLogger(__name__)
Progress = Callable[[str], None]


def sample(recipe: dict[str, Any], run_id: str, progress: Progress = log.info) -> dict[str, Any]:
    """Plans a build and samples its documents; returns the plan's URI, the build and the shard names."""
    lake = open_lakehouse()
    plan = plan_build(lake, parse_refiner_recipe(recipe), run_id)
    return {"plan": plan_uri(lake, plan), "build": plan.build, **sample_seed(lake, plan, progress)}


def teacher_endpoint(plan: str) -> str | None:
    """Returns the endpoint that a build's teacher is behind, None where there is none."""
    teacher = _open(plan)[1].parsed().labels.teacher
    return None if teacher is None else teacher.endpoint


def annotate(plan: str, shard: str, progress: Progress = log.info) -> dict[str, Any]:
    """Asks the teacher about the documents of a shard; returns counts and cost."""
    lake, loaded = _open(plan)
    return annotate_shard(lake, loaded, shard, progress)


def synthesise(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Makes and commits the examples; returns counts by split and reason."""
    from corpusmill.runner.building.examples import synthesise_examples

    lake, loaded = _open(plan)
    return {k: v for k, v in synthesise_examples(lake, loaded, progress).items() if k != "shards"}


def train(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Trains the refiner and stores it; returns what identifies it."""
    from corpusmill.runner.building.training import train_refiner

    lake, loaded = _open(plan)
    with device_slot(progress):
        return train_refiner(lake, loaded, progress)


def evaluate(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Measures the refiner; returns its figures.

    Raises:
        GateFailedError: A figure is below the recipe's gate.
    """
    from corpusmill.runner.building.training import evaluate_refiner

    lake, loaded = _open(plan)
    with device_slot(progress):
        return evaluate_refiner(lake, loaded, progress)


def register(plan: str, progress: Progress = log.info) -> dict[str, Any]:
    """Registers the refiner; returns the reference that recipes can name."""
    from corpusmill.runner.building.training import register_refiner

    lake, loaded = _open(plan)
    registered = register_refiner(lake, loaded)
    progress(f"registered: name it in a recipe as model: {registered['model']}")
    return registered


def build(recipe: dict[str, Any], run_id: str, progress: Progress = log.info) -> dict[str, Any]:
    """Runs all steps in this process, in the order of the DAG; returns what `register` returns."""
    sampled = sample(recipe, run_id, progress)
    plan = sampled["plan"]
    for shard in sampled["shards"]:
        annotate(plan, shard, progress)
    for step in (synthesise, train, evaluate):
        step(plan, progress)
    return register(plan, progress)


def _open(uri: str) -> tuple[Lakehouse, BuildPlan]:
    lake = open_lakehouse()
    return lake, load_build(lake, uri)
