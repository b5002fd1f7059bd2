"""Measuring and registering what a build made: all seeds against the gate, one plot, a row for each model."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from corpusmill.errors import ModelError, Permanent
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.storage import write_whole
from corpusmill.pruning.loss_plot import LossCurve, loss_curves_svg
from corpusmill.pruning.reference_card import RECORD
from corpusmill.runner.model_registry import RegisteredModel, fetch_model, register_model
from corpusmill.runner.records import write_record
from corpusmill.runner.reference_building.plan import ReferencePlan, seed_label
from corpusmill.runner.reference_building.results import seed_records

Progress = Callable[[str], None]
GATED = ("validation_perplexity", "bits_per_byte")


class ReferenceGateError(ModelError, Permanent):
    """A reference model does not reach what its recipe asks for."""


def evaluate_models(lake: Lakehouse, plan: ReferencePlan, progress: Progress) -> dict[str, Any]:
    """Stores the loss curves of all seeds as JSON and as a plot, and holds each seed's last model against the gate.

    Raises:
        ReferenceGateError: A figure is too high; the message names each.
        ModelError: A stored model was changed.
    """
    records, curves, marks = seed_records(lake, plan), {}, {}
    for record in records:
        members = record["models"]
        folder = fetch_model(lake, RegisteredModel(**members[-1]["model"]))
        curves[seed_label(record["seed"])] = {
            "losses": json.loads((folder / RECORD).read_text(encoding="utf-8"))["losses"],
            "held_out": [[m["step"], m["figures"]["validation_nll"]] for m in members],
        }
        marks = {m["step"]: m["mark"] for m in members}
    write_record(lake, plan.record(lake, "loss_curves.json"), curves)
    plot = loss_curves_svg([LossCurve(k, c["losses"], c["held_out"]) for k, c in curves.items()], plan.name, marks)
    where = plan.record(lake, "loss_curves.svg")
    write_whole(lake.io, where, plot.encode())
    failures = [line for record in records for line in _failures(plan, record)]
    if failures:
        raise ReferenceGateError(
            f"reference model {plan.name!r} of build {plan.build} is not registered: {'; '.join(failures)}. Train "
            f"longer or on more text, or raise the gate in its recipe; loss curves: {where}"
        )
    figures = _figures(records)
    progress(", ".join(f"{key}: {value}" for key, value in figures.items()))
    return {**figures, "plot": where}


def register_models(lake: Lakehouse, plan: ReferencePlan) -> dict[str, Any]:
    """Adds every seed's every model to ``ops.models``, and the first seed's last one under the plain name.

    Returns:
        The plain name's reference, the references of all models, and the figures.
    """
    records = seed_records(lake, plan)
    members = [(record["seed"], m, RegisteredModel(**m["model"])) for record in records for m in record["models"]]
    new = [register_model(lake, model, plan.run_id) for _, _, model in members]
    first = RegisteredModel(**records[0]["models"][-1]["model"])
    figures = _figures(records)
    listed = [
        {"seed": seed, "step": m["step"], "mark": m["mark"], "model": model.reference, "location": model.location}
        for seed, m, model in members
    ]
    quality = {
        **json.loads(first.quality),
        **figures,
        "members": listed,
        "loss_curves": plan.record(lake, "loss_curves.svg"),
    }
    plain = dataclasses.replace(first, name=plan.name, quality=json.dumps(quality, sort_keys=True))
    new.append(register_model(lake, plain, plan.run_id))
    return {
        "model": plain.reference,
        "models": [entry["model"] for entry in listed],
        "kind": plain.kind,
        "sha256": plain.sha256,
        "new": sum(new),
        **figures,
    }


def _figures(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the worst seed's held-out figures, and the cost of all seeds."""
    last = [record["models"][-1]["figures"] for record in records]
    worst = {name: max(figures[name] for figures in last) for name in ("validation_nll", *GATED)}
    return {**worst, "seeds": len(records), "training_flops": sum(figures["flops"] for figures in last)}


def _failures(plan: ReferencePlan, record: dict[str, Any]) -> list[str]:
    limits, figures = plan.parsed().gate.model_dump(), record["models"][-1]["figures"]
    return [
        f"{name} of {seed_label(record['seed'])} is {figures[name]:.4g}, expected at most {limits[name]:g}"
        for name in GATED
        if limits[name] is not None and not figures[name] <= limits[name]
    ]
