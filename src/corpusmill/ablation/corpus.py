"""The corpus of an arm: all of the pool, a part of it by chance or by score, or what stages make of it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.ablation.arms import Arm
from corpusmill.ablation.config import PoolConfig
from corpusmill.ablation.noise import CLEAN, Document
from corpusmill.ablation.pool import read_part, read_units, units_of, write_table
from corpusmill.ablation.scoring_pool import read_scores
from corpusmill.errors import ModelError
from corpusmill.modeling.flops import inference_flops
from corpusmill.pruning.selection import rows_of, select

Progress = Callable[[str], None]
STRATA = ("language", "domain")
"""Columns of the units that an arm may select within."""
BATCH_DOCUMENTS = 256
"""Documents that a stage sees at once."""


@dataclass(frozen=True)
class Corpus:
    """What an arm trains on.

    Attributes:
        texts: Its documents or passages.
        facts: ``n_units``, ``n_bytes``, ``kept_bytes`` (share of the pool's bytes), ``purity`` (share of the kept bytes
            that are clean text, None where nobody knows), ``selecting_flops`` (None where nobody knows),
            ``reference_flops``, ``selecting_seconds`` (CPU seconds of stages), ``warnings``.
        manifest: The selection, None for arms without one.
    """

    texts: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] | None = None


def corpus_of(
    arm: Arm, config: PoolConfig, seed: int, pool: Path, scores: Path | None, cache: Path, progress: Progress
) -> Corpus:
    """Returns the corpus of an arm; what stages made is stored and found again.

    Args:
        arm: The arm.
        config: Settings of the pool: what stages leave is cut in the same units as what selections choose from.
        seed: Of a random arm's draw.
        pool: Folder of the prepared pool.
        scores: Score file of the arm's reference, with a record of its cost beside it (``.json``).
        cache: Parquet file for the output of stages.
        progress: Receives lines of stages.

    Raises:
        ModelError: A unit has no such score, for instance because passages are too short for memorization.
    """
    if arm.kind == "stages":
        return _by_stages(arm, config, pool, cache, progress)
    units = read_units(pool)
    ids = [unit.unit_id for unit in units]
    total = sum(_size(unit.text) for unit in units)
    if arm.kind == "none":
        return Corpus([u.text for u in units], _facts([u.text for u in units], [u.clean_bytes for u in units], total))
    costs: dict[str, Any] = {}
    if arm.kind == "random":
        table = pa.table({"doc_id": pa.array(ids, pa.large_string())})
    else:
        assert scores is not None, "an arm by score has a score file"
        table, costs = read_scores(scores), json.loads(scores.with_suffix(".json").read_text())
        for name in STRATA:
            table = table.append_column(name, pa.array([getattr(unit, name) for unit in units], pa.string()))
    selection = arm.selection(seed)
    rows = rows_of(table, selection)
    if np.isnan(rows.values).all():
        raise ModelError(f"none of {len(units)} units has a score {arm.column!r}; use larger passages")
    manifest = select(rows.values, rows.doc_ids, selection, rows.strata, rows.weights)
    keep = manifest.keep(rows.values, rows.doc_ids, rows.strata)
    kept = [unit for unit, chosen in zip(units, keep, strict=True) if chosen]
    facts = _facts([unit.text for unit in kept], [unit.clean_bytes for unit in kept], total)
    facts |= {
        "n_unscored": manifest.n_unscored,
        "selecting_flops": costs.get("scoring_flops", 0.0),
        "reference_flops": costs.get("training_flops", 0.0),
        "warnings": list(manifest.warnings),
    }
    return Corpus([unit.text for unit in kept], facts, json.loads(manifest.to_json()))


def _facts(texts: Sequence[str], clean: Sequence[int | None], total: int) -> dict[str, Any]:
    n_bytes = sum(map(_size, texts))
    known = [value for value in clean if value is not None]
    return {
        "n_units": len(texts),
        "n_bytes": n_bytes,
        "kept_bytes": n_bytes / max(total, 1),
        "purity": min(sum(known) / max(n_bytes, 1), 1.0) if len(known) == len(clean) and clean else None,
        "selecting_flops": 0.0,
        "reference_flops": 0.0,
        "selecting_seconds": 0.0,
        "warnings": [],
    }


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _by_stages(arm: Arm, config: PoolConfig, pool: Path, cache: Path, progress: Progress) -> Corpus:
    record = cache.with_suffix(".json")
    if record.exists():
        return Corpus([str(t) for t in pq.read_table(cache)["text"].to_pylist()], json.loads(record.read_text()))
    documents = read_part(pool, "pool")
    total = sum(_size(document.text) for document in documents)
    clean_lines = {d.doc_id: _clean_lines(d) for d in documents}
    started, parts = time.process_time(), []
    rows = {document.doc_id: document.text for document in documents}
    for stage, settings in arm.steps:
        rows, stage_flops = _through(stage, settings, rows, progress)
        parts.append(stage_flops)
    clean = [_clean_size(text, clean_lines[doc_id]) for doc_id, text in rows.items()]
    facts = _facts(list(rows.values()), clean, total)
    flops = [part for part in parts if part is not None]
    known = sum(flops) if len(flops) == len(parts) else None
    facts |= {"selecting_flops": known, "selecting_seconds": round(time.process_time() - started, 2)}
    texts = [unit.text for unit in units_of([Document(doc_id, text) for doc_id, text in rows.items()], config)]
    facts["n_units"] = len(texts)
    cache.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.table({"text": pa.array(texts, pa.large_string())}), cache)
    record.write_text(json.dumps(facts))
    return Corpus(texts, facts)


def _clean_lines(document: Document) -> frozenset[str] | None:
    if document.kinds is None:
        return None
    pairs = zip(document.text.split("\n"), document.kinds, strict=True)
    return frozenset(line.strip() for line, kind in pairs if kind == CLEAN)


def _clean_size(text: str, clean: frozenset[str] | None) -> int | None:
    """Returns the bytes of a refined text's lines that stood in the clean text, None where nobody knows."""
    if clean is None:
        return None
    return sum(_size(line) for line in text.split("\n") if line.strip() in clean)


def _through(
    stage: str, settings: Mapping[str, Any], rows: Mapping[str, str], progress: Progress
) -> tuple[dict[str, str], float | None]:
    """Returns the documents that a stage keeps, with the text it leaves, and its operations, None where unknown."""
    from corpusmill.batches import slices
    from corpusmill.runner.alone import configured
    from corpusmill.runner.map_stage import checked, make_stage

    config, _ = configured(stage, settings)
    made = make_stage(stage, config)
    made.setup()
    kept: dict[str, str] = {}
    prompt_tokens = 0.0
    for batch in slices(_table(rows).select(list(made.input_columns)), BATCH_DOCUMENTS):
        out = checked(made, batch)
        ids = [str(doc_id) for doc_id in out.kept["doc_id"].to_pylist()]
        rewritten = out.kept["text"].to_pylist() if "text" in out.kept.schema.names else [rows[i] for i in ids]
        kept.update(zip(ids, map(str, rewritten), strict=True))
        prompt_tokens += out.metrics.get("prompt_tokens", 0.0)
        progress(f"{stage}: {len(kept)} of {len(rows)} documents kept so far")
    n_parameters = _refiner_parameters(config)
    return kept, None if n_parameters is None else inference_flops(n_parameters, prompt_tokens)


def _refiner_parameters(config: Any) -> int | None:
    """Returns N of a stage's language model: 0 where it runs none, None where nobody knows it.

    Rules, labellers and program writers run no language model; their CPU seconds are stored. A server does not say how
    large its model is: it counts where ``model`` is a folder with the model's ``config.json``.
    """
    backend = getattr(config, "backend", None)
    if backend not in {"transformers", "vllm", "completions"}:
        return 0
    from corpusmill.ablation.scoring_pool import parameters_of
    from corpusmill.modeling.load import model_folder

    if backend == "completions" and not (Path(config.model) / "config.json").is_file():
        return None
    return parameters_of(model_folder(config.model, config.revision))


def _table(rows: Mapping[str, str]) -> pa.Table:
    n, string = len(rows), pa.large_string()
    return pa.table(
        {
            "doc_id": pa.array(list(rows), string),
            "text": pa.array(list(rows.values()), string),
            "url": pa.array([""] * n, string),
            **{name: pa.array(["ablation"] * n, string) for name in ("crawl", "warc_file")},
            "language": pa.array([None] * n, string),
        }
    )
