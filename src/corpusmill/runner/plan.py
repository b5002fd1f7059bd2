"""The plan of a run: shards, commit keys, model pins and deduplication base, fixed before any work starts.

A plan is a record in the warehouse that every later task of the run reads; tasks exchange its URI. Everything a commit
key depends on is known here, so that a task can say before it starts whether its result is committed already.
"""

import datetime as dt
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpusmill import __version__
from corpusmill.config import StageConfig, fingerprint
from corpusmill.dedup.config import LINES_VERSION, NearConfig, Survivor
from corpusmill.dedup.crawl_order import crawls_before
from corpusmill.dedup.spark_master import spark_master
from corpusmill.errors import ConfigError
from corpusmill.ingest.crawl import list_files, path_list_digest
from corpusmill.ingest.extract import extraction_fingerprint
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.lakehouse.shards import RunToken
from corpusmill.pruning.packing_config import PACKING_VERSION, packing_of
from corpusmill.recipe import BUNDLED_CRAWLS, Recipe, parse_recipe
from corpusmill.runner.models import PinnedModel, pin_models_of, without_models
from corpusmill.runner.pinned_files import pin_files
from corpusmill.runner.published_content import published_content
from corpusmill.runner.records import find_record, read_record, record_uri, write_record
from corpusmill.runner.reference_building.pool_check import check_score_model

log = logging.getLogger(__name__)

RAW = "raw"
"""Namespace of the tables that all recipes share."""


class Shard(StageConfig):
    """A group of input files that one mapped task works on."""

    name: str
    """Number in the plan, five digits."""
    files: tuple[str, ...]
    """Paths as the crawl's manifest lists them, in its order."""

    @property
    def identity(self) -> str:
        """Name under which the shard's result is stored: it holds the files, so that another cut finds nothing."""
        return f"{self.name}-{fingerprint(self.files)[:8]}"


class BaseCrawl(StageConfig):
    """One published crawl that this run deduplicates against."""

    crawl: str
    """Crawl id."""
    key: str
    """Content key of its partition of the corpus when the plan was made."""


class RunPlan(StageConfig):
    """Everything a run decided before it started."""

    recipe: dict[str, Any]
    """The recipe, as given."""
    crawl: str
    """Crawl id: the identity of the run."""
    run_id: str
    """The orchestrator's run id."""
    epoch: int
    """Fencing number of this run for (recipe, crawl); a higher one supersedes it."""
    base_location: str
    """Folder or URL that holds the crawl."""
    extraction: str
    """Fingerprint of extractor, version and options: the second partition of ``raw.pages``."""
    shards: tuple[Shard, ...]
    """Groups of input files."""
    models: dict[str, PinnedModel]
    """Pinned model of each model stage."""
    base: tuple[BaseCrawl, ...]
    """Published crawls whose copies stay, oldest first: the older ones, or under ``first_published`` all others."""
    keys: dict[str, str]
    """Commit key of every stage."""
    started_at: str
    """UTC time of planning, ISO 8601; for the report only."""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.recipe["name"])

    def parsed_recipe(self) -> Recipe:
        """Returns the recipe as settings."""
        return parse_recipe(self.recipe)

    @property
    def packs_sequences(self) -> bool:
        """True where packed token sequences are scored and published beside their documents."""
        return "corpus_sequences" in self.keys

    def shard(self, name: str) -> Shard:
        """Returns a shard by its name.

        Raises:
            ConfigError: The plan has no such shard.
        """
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise ConfigError(f"shard={name!r} is not in the plan; its shards are 00000 to {self.shards[-1].name}")

    @property
    def files(self) -> tuple[str, ...]:
        """All input files in manifest order."""
        return tuple(f for shard in self.shards for f in shard.files)

    def token(self, stage: str) -> RunToken:
        """Returns the identity under which a stage commits."""
        return RunToken(
            recipe=self.name,
            crawl=self.crawl,
            run_id=self.run_id,
            epoch=self.epoch,
            key=self.keys[stage],
            versions={"corpusmill": __version__, "config": self.parsed_recipe().method_fingerprint()},
        )

    def uri(self, lake: Lakehouse) -> str:
        """Returns where the plan is stored."""
        return plan_uri(lake, self.name, self.crawl, self.epoch)


def plan_uri(lake: Lakehouse, recipe: str, crawl: str, epoch: int) -> str:
    """Returns the URI of the plan of one run."""
    return record_uri(lake, recipe, crawl, f"epoch-{epoch:05d}", "plan.json")


def resolve_base(base: str) -> str:
    """Returns the folder or URL of a recipe's source; ``bundled:crawls`` is the demo's folder in the package."""
    if base != BUNDLED_CRAWLS:
        return base if "://" in base else str(Path(base).expanduser().absolute())
    from importlib import resources

    return str(Path(str(resources.files("corpusmill.demo") / "crawls")))


def cut_shards(files: Sequence[str], max_shards: int) -> tuple[Shard, ...]:
    """Returns the files as at most ``max_shards`` groups of nearly equal size, in order."""
    n = min(max_shards, len(files))
    bounds = [len(files) * i // n for i in range(n + 1)]
    return tuple(Shard(name=f"{i:05d}", files=tuple(files[bounds[i] : bounds[i + 1]])) for i in range(n))


def provenance_uri(lake: Lakehouse, recipe: str, crawl: str, key: str) -> str:
    """Returns where the plan that a corpus partition was assembled from is named, by the partition's content key."""
    return record_uri(lake, recipe, crawl, "corpora", f"{key}.json")


def published_base(
    lake: Lakehouse, recipe: str, crawl: str, survivor: Survivor = "oldest_crawl"
) -> tuple[BaseCrawl, ...]:
    """Returns the crawls in the published corpus whose copies stay, with their content keys, oldest first."""
    corpus = lake.table(f"{recipe}.corpus")
    before = crawls_before(crawl, [p["crawl"] for p in corpus.partitions()], survivor)
    keys = [(c, corpus.partition_key({"crawl": c})) for c in before]
    return tuple(BaseCrawl(crawl=c, key=k) for c, k in keys if k is not None)


def commit_keys(
    recipe: Recipe,
    crawl: str,
    *,
    extraction: str,
    paths_digest: str,
    models: dict[str, PinnedModel],
    base: Sequence[BaseCrawl],
) -> dict[str, str]:
    """Returns the commit key of every stage (design decision 9).

    A key covers the recipe's name, the crawl, the stage's settings, its model's content and the keys it reads; never a
    snapshot id, a path of this machine or the number of shards.
    """
    keys = {"ingest": fingerprint([crawl, "ingest", extraction, paths_digest])}

    def add(stage: str, field: str, *inputs: Any) -> None:
        config, pinned = getattr(recipe, field), models.get(stage)
        settings = without_models(config) if pinned else config
        keys[stage] = fingerprint(
            [
                *(recipe.name, crawl, stage),
                settings.fingerprint() if settings else None,
                pinned.identity() if pinned else None,
                *inputs,
            ]
        )

    add("clean", "rules", keys["ingest"])
    if recipe.deduplication.near is not None:
        keys["minhash"] = minhash_key(recipe.name, crawl, recipe.deduplication.near, keys["clean"])
    if recipe.deduplication.lines is not None:
        lines = [LINES_VERSION, recipe.deduplication.method, recipe.deduplication.lines.fingerprint()]
        keys["lines"] = fingerprint([recipe.name, crawl, "lines", *lines, keys["clean"]])
    across = recipe.deduplication.compares_crawls
    add("deduplicate", "deduplication", keys["clean"], [[b.crawl, b.key] for b in base] if across else [])
    add("refine_documents", "refine_documents", keys["deduplicate"])
    add("refine_chunks", "refine_chunks", keys["refine_documents"])
    if recipe.packs_sequences:
        keys["pack"] = _packing_key(recipe, crawl, models.get("score"), keys["refine_chunks"])
    add("score", "score", keys.get("pack", keys["refine_chunks"]))
    add("select", "select", keys["score"])
    keys["corpus"] = fingerprint([recipe.name, crawl, "corpus", keys["select"]])
    if recipe.packs_sequences:
        keys["corpus_sequences"] = sequences_key(keys["corpus"])
    return keys


def minhash_key(recipe: str, crawl: str, config: NearConfig, documents: str) -> str:
    """Returns the commit key of a crawl's deduplication index, from the key of its documents; no threshold is in it."""
    return fingerprint([recipe, crawl, "minhash", config.index_fingerprint(), documents])


def _packing_key(recipe: Recipe, crawl: str, pinned: PinnedModel | None, texts: str) -> str:
    """Returns the commit key of packing; the model stands for its tokenizer, as its files are pinned together."""
    assert recipe.score is not None
    config = packing_of(recipe.score)
    identity = pinned.model_copy(update={"further": ()}).identity() if pinned else config.model
    return fingerprint([recipe.name, crawl, "pack", PACKING_VERSION, config.length, identity, texts])


def sequences_key(corpus_key: str) -> str:
    """Returns the key of the published sequences that belong to a corpus partition with the given key."""
    return fingerprint([corpus_key, "sequences"])


def pin_models(recipe: Recipe) -> dict[str, PinnedModel]:
    """Returns the pinned model of each model stage that the recipe has."""
    pins = {}
    for stage in ("refine_documents", "refine_chunks", "score"):
        config = getattr(recipe, stage)
        if config is not None and config.model:
            pins[stage] = pin_models_of(config)
    return pins


def draft_plan(lake: Lakehouse, recipe: Recipe, crawl: str, source: str | None = None) -> RunPlan:
    """Returns the plan that `plan_run` would make now, without an epoch and without storing anything.

    Args:
        lake: An initialised lakehouse.
        recipe: The recipe.
        crawl: Crawl id.
        source: Folder or URL in place of the recipe's.

    Raises:
        ConfigError: The crawl or a model does not exist, or the engine that the environment names for deduplication is
            not installed.
    """
    if recipe.deduplication.near is not None:
        spark_master()
    recipe = pin_files(recipe)
    base_location = resolve_base(source or recipe.source.base)
    files = list_files(base_location, crawl, recipe.ingest.kind)
    if recipe.ingest.max_files is not None:
        files = files[: recipe.ingest.max_files]
    if recipe.score is not None:
        check_score_model(lake, recipe.score.model, crawl, recipe.score.metrics, warn=log.warning)
    models = pin_models(recipe)
    base = published_base(lake, recipe.name, crawl, recipe.deduplication.survivor)
    extraction = extraction_fingerprint(recipe.ingest)
    drafted = RunPlan(
        recipe=recipe.model_dump(mode="json"),
        crawl=crawl,
        run_id="",
        epoch=0,
        base_location=base_location,
        extraction=extraction,
        shards=cut_shards(files, recipe.shards.max_shards),
        models=models,
        base=base,
        keys=commit_keys(
            recipe, crawl, extraction=extraction, paths_digest=path_list_digest(files), models=models, base=base
        ),
        started_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return _as_published(lake, drafted) if recipe.deduplication.survivor == "first_published" else drafted


def _as_published(lake: Lakehouse, plan: RunPlan) -> RunPlan:
    """Returns the plan on the base that its crawl was published on, where it would give just what is published.

    Crawls that were published since gave way to this one, so they are no reason to decide it again; one of the base
    with other content by now is. Another key is not: keys name their bases, so those of two crawls that gave way to
    each other at different times would never settle.
    """
    corpus = lake.table(f"{plan.name}.corpus")
    key = corpus.partition_key({"crawl": plan.crawl})
    record = None if key is None else find_record(lake, provenance_uri(lake, plan.name, plan.crawl, key))
    if record is None or "base" not in record:
        return plan
    base = [BaseCrawl.load(values) for values in record["base"]]
    contents = record.get("contents", {})
    unchanged = all(
        corpus.partition_key({"crawl": b.crawl}) == b.key or contents.get(b.crawl) == published_content(corpus, b.crawl)
        for b in base
    )
    before = rebased(plan, base)
    return before if unchanged and before.keys["corpus"] == key else plan


def plan_run(lake: Lakehouse, recipe: Recipe, crawl: str, run_id: str, source: str | None = None) -> RunPlan:
    """Resolves the crawl, cuts shards, pins models, takes the next epoch and stores the plan.

    Args:
        lake: An initialised lakehouse.
        recipe: The recipe.
        crawl: Crawl id.
        run_id: The orchestrator's run id.
        source: Folder or URL in place of the recipe's.

    Raises:
        ConfigError: The crawl or a model does not exist.
        NotInitialisedError: The lakehouse lacks a table that the recipe needs; `corpusmill init` makes it.
    """
    plan = draft_plan(lake, recipe, crawl, source)
    if "lines" in plan.keys:
        lake.table(f"{plan.name}.duplicate_lines")  # a lakehouse of an older version lacks it: said before any work
    plan = plan.model_copy(update={"run_id": run_id, "epoch": take_epoch(lake, recipe.name, crawl, run_id)})
    write_record(lake, plan.uri(lake), plan.model_dump(mode="json"))
    log.info(
        "planned %s of recipe %s: %d files in %d shards, epoch %d, %d older crawls published",
        crawl,
        recipe.name,
        len(plan.files),
        len(plan.shards),
        plan.epoch,
        len(plan.base),
    )
    return plan


def load_plan(lake: Lakehouse, uri: str) -> RunPlan:
    """Returns the plan stored at a URI."""
    return RunPlan.load(read_record(lake, uri))


def rebased(plan: RunPlan, base: Sequence[BaseCrawl]) -> RunPlan:
    """Returns the plan as it would be with another deduplication base; only keys from deduplication on change."""
    recipe = plan.parsed_recipe()
    keys = commit_keys(
        recipe,
        plan.crawl,
        extraction=plan.extraction,
        paths_digest=path_list_digest(list(plan.files)),
        models=plan.models,
        base=base,
    )
    return plan.model_copy(update={"base": tuple(base), "keys": keys})
