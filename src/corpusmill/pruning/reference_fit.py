"""Whether a reference model may score a pool: for perplexity it must not have seen it, for memorization it must have.

Decided from the facts that stand with every registered model (``training_data`` of ``ops.models``): which crawls, which
part of a split, how much of the text. A document is the same in every recipe's tables, since its id is that of the WARC
record, so only crawls are compared, not tables. Models without facts (hub models, folders) cannot be checked.

Source: "When Less is More" (arXiv 2309.04564v1), section 3.2. EL2N is measured by early checkpoints of either kind.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from corpusmill.pruning.corpus_split import CorpusSplit

WHOLE_PASS = 0.999
"""Share of a pass over the text from which on a model has seen all of it; the last batch of a pass may be cut."""


@dataclass(frozen=True)
class PoolConflict:
    """Why a score of a model over a pool does not mean what it should.

    Attributes:
        severity: ``error``: the score is of no use; ``warning``: a part of the pool is affected.
        metric: The score.
        message: What is wrong and what to do.
    """

    severity: Literal["error", "warning"]
    metric: str
    message: str


def pool_conflicts(
    training_data: Mapping[str, Any],
    crawl: str,
    metrics: Sequence[str],
    *,
    pool_split: CorpusSplit | None = None,
) -> list[PoolConflict]:
    """Returns what speaks against scoring a crawl with a model; [] where nothing does or nothing is known.

    Args:
        training_data: Facts of a registered model.
        crawl: The crawl whose documents are the pool.
        metrics: Scores asked for.
        pool_split: Split whose reserved part is left out of the pool; None: all documents are scored.
    """
    if not training_data.get("part"):
        return []
    found = []
    if "perplexity" in metrics:
        found.append(_of_perplexity(training_data, crawl, pool_split))
    if "memorization" in metrics:
        found.append(_of_memorization(training_data, crawl))
    return [conflict for conflict in found if conflict is not None]


def trained_on(training_data: Mapping[str, Any], crawl: str, doc_ids: Iterable[str]) -> list[bool]:
    """Returns for each document of a crawl whether the model's training text held it, as far as its facts tell."""
    ids = list(doc_ids)
    if crawl not in training_data.get("crawls", ()):
        return [False] * len(ids)
    if training_data["part"] == "all":
        return [True] * len(ids)
    return CorpusSplit.from_json(training_data["split"]).in_part(ids, training_data["part"])


def _of_perplexity(data: Mapping[str, Any], crawl: str, pool_split: CorpusSplit | None) -> PoolConflict | None:
    if crawl not in data.get("crawls", ()):
        return None
    if data["part"] in ("all", "pool"):
        which = "all documents" if data["part"] == "all" else "the pool"
        return PoolConflict(
            "error",
            "perplexity",
            f"the reference model was trained on {which} of {crawl!r}: what it saw has low perplexity whatever its "
            "quality. Train it on a reserved split (corpus.split, purpose: perplexity), or score another crawl",
        )
    if pool_split is not None and pool_split.to_json() == data["split"]:
        return None
    share, seed = data["split"]["share"], data["split"]["seed"]
    return PoolConflict(
        "warning",
        "perplexity",
        f"the reference model was trained on {share} of the documents of {crawl!r}; leave that part out of the pool "
        f"(split share {share}, seed {seed})",
    )


def _of_memorization(data: Mapping[str, Any], crawl: str) -> PoolConflict | None:
    if crawl not in data.get("crawls", ()) or data["part"] == "reserved":
        seen = f"crawls {list(data['crawls'])}" if data.get("crawls") else f"files {sorted(data.get('files') or {})}"
        part = " (their reserved part alone)" if data["part"] == "reserved" else ""
        return PoolConflict(
            "error" if data.get("crawls") else "warning",
            "memorization",
            f"the reference model saw {seen}{part}, not the pool of {crawl!r}, so it cannot have memorized it; build "
            "one with purpose: memorization on this crawl",
        )
    epochs = float(data.get("epochs", 1.0))
    if epochs < WHOLE_PASS:
        return PoolConflict(
            "warning",
            "memorization",
            f"the reference model saw {epochs:.0%} of its text before it was saved, so most of {crawl!r} is new to it; "
            "use a later checkpoint",
        )
    return None
