"""Reference models of an ablation, and the scores that they give to the pool's units."""

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.ablation.arms import further_metrics
from corpusmill.ablation.config import ReferenceConfig
from corpusmill.ablation.existing_models import model_place
from corpusmill.ablation.pool import Unit, pool_tokenizer, read_part, read_units, write_table
from corpusmill.errors import ModelError
from corpusmill.modeling.flops import inference_flops, model_from_config, n_without_embeddings, training_flops

Progress = Callable[[str], None]
BATCH_UNITS = 512
"""Units that are scored between two lines of progress."""
SUMS = (
    "nll_sum", "el2n_sum", "n_scored", "n_bytes", "n_tokens", "hits", "memorization", "top_k_hits", "excess_nll_sum"
)  # fmt: skip
"""Columns of the stored scores; the derived ones are made of them."""


def train_references(
    config: ReferenceConfig, checkpoints: Sequence[int], pool: Path, folder: Path, progress: Progress
) -> list[Path]:
    """Returns the model folder of each seed; those that are there are not trained again, a killed one goes on.

    Where two references differ in their checkpoint alone, one training serves both: the second waits for the first.

    Args:
        config: The reference.
        checkpoints: Steps at which the models are saved on the way, its own among them.
        pool: Folder of the prepared pool.
        folder: Where this reference's models lie.
        progress: Receives a line every twentieth of the training.

    Raises:
        ModelError: There is no text of the wanted corpus.
    """
    from corpusmill.modeling.load import choose_device

    if config.model is not None:
        return [model_place(config.model, config.revision)]
    part = {"crawl": "reference", "clean": "clean", "pool": "pool"}[config.corpus]
    places = []
    for seed in config.seeds:
        place = folder / f"seed_{seed}"
        with _alone(folder):
            if not _is_trained(place, checkpoints):
                _train(config, checkpoints, pool, part, place, seed, choose_device("auto"), progress)
        places.append(place if config.checkpoint is None else place / f"step_{config.checkpoint}")
    return places


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder that the kernel frees when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_trained(place: Path, checkpoints: Sequence[int]) -> bool:
    return (place / "done.json").exists() and all((place / f"step_{step}").is_dir() for step in checkpoints)


def _train(
    config: ReferenceConfig,
    checkpoints: Sequence[int],
    pool: Path,
    part: str,
    place: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> None:
    from corpusmill.modeling.train_lm import TrainingSettings
    from corpusmill.pruning.reference_models import train_reference_model

    texts = [document.text for document in read_part(pool, part)]
    if not texts:
        raise ModelError(
            f"corpus={config.corpus!r} of the reference is empty: raise pool.reference_share, or name pool.clean_files"
        )
    validation = [document.text for document in read_part(pool, "test_crawl" if part != "clean" else "test_clean")]
    every = max(config.steps // 20, 1)

    def tell(step: int, loss: float) -> None:
        if step % every == 0:
            progress(f"reference {config.preset} on {config.corpus}, seed {seed}: step {step}, loss {loss:.3f}")

    trained = train_reference_model(
        texts,
        place,
        config.preset,
        config.steps,
        seed,
        validation=validation,
        n_vocab=config.n_vocab,
        tokenizer=pool_tokenizer(pool) if config.tokenizer == "pool" else None,
        checkpoints=checkpoints,
        settings=TrainingSettings(
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=max(min(40, config.steps // 4), 1),
        ),
        device=device,
        progress=tell,
    )
    step_tokens = config.batch_size * _context_of(place)
    record = {
        "losses": [round(float(loss), 4) for loss in trained.losses],
        "validation_nll": trained.validation_nll,
        "flops": training_flops(parameters_of(place), config.steps * step_tokens),
    }
    (place / "done.json").write_text(json.dumps(record))


def _context_of(folder: Path) -> int:
    values = json.loads((folder / "config.json").read_text())
    return int(values.get("max_position_embeddings") or values["n_positions"])


def parameters_of(folder: Path) -> int:
    """Returns N of a model folder, without embeddings; nothing is loaded."""
    return n_without_embeddings(model_from_config(json.loads((folder / "config.json").read_text())))


def score_units(
    config: ReferenceConfig,
    folders: Sequence[Path],
    pool: Path,
    columns: Sequence[str],
    path: Path,
    progress: Progress,
    baselines: Sequence[Path] = (),
) -> dict[str, Any]:
    """Scores every unit of the pool with every model of a reference, writes means and returns what it cost.

    Args:
        config: The reference.
        folders: Its models, one for each seed.
        pool: Folder of the prepared pool.
        columns: Scores that arms need; memorization is decoded only if it is among them.
        path: Parquet file to write: ``unit_id`` and the mean over the models of each sum (`SUMS`).
        progress: Receives a line for every few hundred units.
        baselines: Models of ``excess_nll``'s second reference: one, or one for each model; () where no arm needs it.

    Returns:
        Units, tokens and FLOPs of scoring, and what training the models took.
    """
    units = read_units(pool)
    partners = [baselines[i % len(baselines)] if baselines else None for i in range(len(folders))]
    tables = [
        _scored_by(config, folder, partner, units, columns, progress)
        for folder, partner in zip(folders, partners, strict=True)
    ]
    means: dict[str, Any] = {"unit_id": pa.array([unit.unit_id for unit in units])}
    for name in SUMS:
        values = np.stack([table[name] for table in tables])
        means[name] = pa.array(values.mean(axis=0), pa.float64(), from_pandas=True)
    write_table(pa.table(means), path)
    read = [float(np.nansum(table["n_tokens"])) for table in tables]
    scoring = [
        inference_flops(parameters_of(model), n_tokens)
        for models, n_tokens in zip(zip(folders, partners, strict=True), read, strict=True)
        for model in models
        if model is not None
    ]
    trained = [_training_record(folder) for folder in folders]
    others = [_training_record(folder) for folder in baselines]
    return {
        "n_units": len(units),
        "n_models": len(folders),
        "n_parameters": parameters_of(folders[0]),
        "n_tokens": sum(read),
        "scoring_flops": sum(scoring),
        "training_flops": sum(record.get("flops", 0.0) for record in [*trained, *others]),
        "losses": [record["losses"] for record in trained if "losses" in record],
        "validation_nll": [record["validation_nll"] for record in trained if "validation_nll" in record],
    }


def _training_record(folder: Path) -> dict[str, Any]:
    for place in (folder, folder.parent):
        if (place / "done.json").exists():
            return dict(json.loads((place / "done.json").read_text()))
    return {}


def _scored_by(
    config: ReferenceConfig,
    folder: Path,
    baseline: Path | None,
    units: Sequence[Unit],
    columns: Sequence[str],
    progress: Progress,
) -> dict[str, np.ndarray]:
    from corpusmill.pruning.config import ScoringConfig
    from corpusmill.pruning.scoring import ScoreStage

    further = [metric for metric in further_metrics(columns) if metric != "excess"]
    settings: dict[str, Any] = {"model": str(folder.resolve()), "context": config.context, "dtype": config.dtype}
    settings |= {"metrics": ["perplexity", "el2n", *further], "top_k": config.top_k}
    if baseline is not None:
        settings["baseline"] = str(baseline.resolve())
    lengths = {"mem_prompt": config.mem_tokens, "mem_continuation": config.mem_tokens}
    stage = ScoreStage(ScoringConfig.load({**settings, **lengths}))
    stage.setup()
    parts: list[pa.Table] = []
    for start in range(0, len(units), BATCH_UNITS):
        batch = units[start : start + BATCH_UNITS]
        out = stage.process(_as_documents(batch))
        if out.removed.num_rows:
            first = out.removed.select(["doc_id", "skipped_reason"]).to_pylist()[0]
            raise ModelError(
                f"{out.removed.num_rows} units could not be scored by {str(folder)!r}; the first is {first}. Look at "
                "its text in units.parquet"
            )
        parts.append(out.kept)
        progress(f"scored {min(start + BATCH_UNITS, len(units))} of {len(units)} units by {folder.name}")
    table = pa.concat_tables(parts)
    if table["doc_id"].to_pylist() != [unit.unit_id for unit in units]:
        raise ModelError(f"scores of {str(folder)!r} are not in the order of the units; expected one row for each")
    return {name: np.asarray(table[name].cast(pa.float64()).to_numpy(), dtype=np.float64) for name in SUMS}


def _as_documents(units: Sequence[Unit]) -> pa.Table:
    n = len(units)
    string = pa.large_string()
    return pa.table(
        {
            "doc_id": pa.array([unit.unit_id for unit in units], string),
            "text": pa.array([unit.text for unit in units], string),
            **{name: pa.array(["ablation"] * n, string) for name in ("crawl", "warc_file")},
            "language": pa.array([None] * n, string),
        }
    )


def read_scores(path: Path) -> pa.Table:
    """Returns the stored scores of a pool in the form that selections read, sums as float64."""
    table = pq.read_table(path)
    return table.rename_columns(["doc_id" if name == "unit_id" else name for name in table.column_names])
