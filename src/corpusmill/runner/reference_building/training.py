"""Training one seed of a reference model: each saved checkpoint is a model folder in the warehouse."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.modeling.load import choose_device
from corpusmill.modeling.train_lm import TrainingSettings, new_model
from corpusmill.pruning.loss_plot import LossCurve, loss_curves_svg, thinned
from corpusmill.pruning.packed_text import open_sequences
from corpusmill.pruning.reference_card import RECORD, card_text
from corpusmill.pruning.reference_training import SavedModel, train_and_save
from corpusmill.reference_model_recipe import ReferenceModelRecipe
from corpusmill.runner.model_registry import store_model
from corpusmill.runner.records import write_record
from corpusmill.runner.reference_building.packing import (
    TOKENIZER,
    TRAIN,
    VALIDATION,
    TextFacts,
    fetch_text,
    text_facts,
    training_steps,
)
from corpusmill.runner.reference_building.plan import ReferencePlan, seed_label
from corpusmill.runner.reference_building.results import seed_report, seed_uri

Progress = Callable[[str], None]
KIND = "reference-model"
CURVE_POINTS = 200
"""Points of a loss curve in a registry row; ``training.json`` beside the model has every step."""
PLOT = "loss.svg"
LINES = 20
"""Lines of progress that a training writes about."""


def train_seed(lake: Lakehouse, plan: ReferencePlan, label: str, progress: Progress) -> dict[str, Any]:
    """Trains one seed and stores its models; one that was killed goes on.

    Raises:
        ModelError: Training diverged.
    """
    seed, scratch = plan.seed(label), plan.scratch() / label
    saved = _train(lake, plan, seed, scratch, progress)
    record = {"seed": seed, "models": [_store(lake, plan, model) for model in saved]}
    write_record(lake, seed_uri(lake, plan, label), record)
    shutil.rmtree(scratch)
    return seed_report(record)


def training_data(plan: ReferencePlan, facts: TextFacts) -> dict[str, Any]:
    """Returns the facts that say which pools a model may score (`corpusmill.pruning.reference_fit`)."""
    corpus = plan.parsed().corpus
    part = "all" if corpus.split is None else "reserved" if corpus.purpose == "perplexity" else "pool"
    return {
        "purpose": corpus.purpose,
        "part": part,
        "split": None if corpus.split is None else corpus.split.split().to_json(),
        **plan.source,
        "documents": facts.train.n_documents,
        "tokens": facts.train.n_tokens,
        "held_out_documents": facts.validation.n_documents,
        "text": plan.text,
        "build": plan.build,
        "recipe": plan.parsed().fingerprint(),
    }


def settings_of(recipe: ReferenceModelRecipe, steps: int, seed: int) -> TrainingSettings:
    """Returns how a seed is trained."""
    values = recipe.training.model_dump(exclude={"steps", "epochs", "device"})
    return TrainingSettings(steps=steps, seed=seed, **values)


def _train(lake: Lakehouse, plan: ReferencePlan, seed: int, scratch: Path, progress: Progress) -> list[SavedModel]:
    recipe, facts, text = plan.parsed(), text_facts(lake, plan), fetch_text(lake, plan)
    steps, marks = training_steps(plan, facts)
    device = choose_device(recipe.training.device)
    model = new_model(recipe.shape(), facts.n_vocab, facts.eod, seed).to(device)
    progress(f"{seed_label(seed)}: {steps} steps on {device}, models saved after {', '.join(map(str, sorted(marks)))}")

    def tell(step: int, loss: float) -> None:
        if step % max(1, steps // LINES) == 0 or step in marks:
            progress(f"{seed_label(seed)} step {step} of {steps}: loss {loss:.4f} nats per token")

    run, saved = train_and_save(
        model,
        open_sequences(text / TRAIN, facts.train),
        settings_of(recipe, steps, seed),
        {step: scratch / f"step{step}" for step in marks},
        write_tokenizer=lambda folder: _copy_files(text / TOKENIZER, folder),
        state_dir=scratch,
        validation=open_sequences(text / VALIDATION, facts.validation),
        about={
            "shape": recipe.shape_facts(),
            "n_vocab": facts.n_vocab,
            "tokenizer_sha256": facts.tokenizer_sha256,
            "n_tokens_dropped": facts.train.n_dropped,
            "bytes_per_token": facts.validation.bytes_per_token,
        },
        dtype=recipe.dtype,
        data_id=facts.train.sha256,
        progress=tell,
    )
    if run.resumed_at:
        progress(f"{seed_label(seed)}: went on from step {run.resumed_at}")
    return saved


def _copy_files(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        shutil.copyfile(path, folder / path.name)


def _store(lake: Lakehouse, plan: ReferencePlan, saved: SavedModel) -> dict[str, Any]:
    """Adds card and plot to a saved model, stores its folder, and returns its row and figures."""
    facts = text_facts(lake, plan)
    mark = training_steps(plan, facts)[1][saved.step]
    record = json.loads((saved.folder / RECORD).read_text(encoding="utf-8"))
    figures = _figures(record)
    label = seed_label(record["settings"]["seed"])
    name = f"{plan.name}.{label}.step{saved.step}"
    data = {**training_data(plan, facts), "seed": record["settings"]["seed"], "step": saved.step}
    data["epochs"] = record["epochs"]
    held_out = [] if saved.validation_nll is None else [(saved.step, saved.validation_nll)]
    curve = LossCurve(label, record["losses"], held_out)
    (saved.folder / PLOT).write_text(loss_curves_svg([curve], name), encoding="utf-8")
    card = card_text(name, {**record, **figures}, data, description=plan.parsed().description)
    (saved.folder / "README.md").write_text(card, encoding="utf-8")
    points = [[step, round(loss, 4)] for step, loss in thinned(record["losses"], CURVE_POINTS)]
    row = dataclasses.replace(
        store_model(lake, name, saved.folder),
        kind=KIND,
        base=f"new:{record['shape']['preset'] or 'shape'}",
        training_data=json.dumps(data, sort_keys=True),
        quality=json.dumps({**figures, "loss_curve": points}, sort_keys=True),
    )
    return {"step": saved.step, "mark": mark, "figures": figures, "model": dataclasses.asdict(row)}


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of a model that registry rows, reports and gates name."""
    nll = record["validation_nll"]
    figures = {
        "step": record["step"],
        "epochs": round(record["epochs"], 6),
        "tokens_seen": record["tokens_seen"],
        "flops": record["flops"],
        "n_parameters": record["n_parameters"],
        "loss": record["losses"][-1],
    }
    if nll is None:
        return figures
    return {
        **figures,
        "validation_nll": nll,
        "validation_perplexity": math.exp(min(nll, 700.0)),
        "bits_per_byte": nll / math.log(2) / record["bytes_per_token"],
    }
