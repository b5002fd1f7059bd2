"""What the trainings of a build left: one record for each seed, found without loading torch."""

from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.runner.model_registry import RegisteredModel, fetch_model
from corpusmill.runner.records import find_record, read_record
from corpusmill.runner.reference_building.plan import ReferencePlan, seed_label


def seed_uri(lake: Lakehouse, plan: ReferencePlan, label: str) -> str:
    """Returns where the record of a seed's training is stored."""
    return plan.record(lake, f"{label}.json")


def seed_report(record: dict[str, Any]) -> dict[str, Any]:
    """Returns what a seed's task reports: counts and figures of its last model."""
    return {"seed": record["seed"], "models": len(record["models"]), **record["models"][-1]["figures"]}


def finished_seed(lake: Lakehouse, plan: ReferencePlan, label: str) -> dict[str, Any] | None:
    """Returns the report of a training that is done, None where it is not.

    Raises:
        ConfigError: The recipe has no such seed.
        ModelError: A stored model was changed.
    """
    plan.seed(label)
    record = find_record(lake, seed_uri(lake, plan, label))
    if record is None:
        return None
    for member in record["models"]:
        fetch_model(lake, RegisteredModel(**member["model"]))  # raises where its files were changed
    return {**seed_report(record), "skipped": True}


def seed_records(lake: Lakehouse, plan: ReferencePlan) -> list[dict[str, Any]]:
    """Returns what each seed's task left, in the recipe's order.

    Raises:
        RecordNotFoundError: A seed is not trained yet.
    """
    return [read_record(lake, seed_uri(lake, plan, seed_label(seed))) for seed in plan.parsed().seeds]
