"""The plan of a reference model's build: which content it reads, and under which identities its results are kept.

Two identities, so that nothing is done twice: that of the packed text (corpus, tokenizer, context), which builds with
other trainings share, and that of the build (packed text, shape, training). Seeds, gate and description belong to
neither: another seed adds its model to the ones that are there.
"""

import glob
from importlib import resources
from pathlib import Path
from typing import Any

from corpusmill.config import StageConfig, fingerprint
from corpusmill.errors import ConfigError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.table import LakeTable
from corpusmill.reference_model_recipe import CorpusConfig, ReferenceModelRecipe, parse_reference_model_recipe
from corpusmill.runner.building.plan import file_sha256
from corpusmill.runner.models import pin_model
from corpusmill.runner.records import read_record, record_uri, write_record

NAMESPACE = "reference_models"
BUNDLED = "bundled:"
NOT_TRAINING = {"name", "description", "corpus", "tokenizer", "model", "validation", "gate", "seeds"}


class ReferencePlan(StageConfig):
    """Everything a build decided before it started."""

    recipe: dict[str, Any]
    """The recipe, as given."""
    text: str
    """16 hex digits: identity of the packed text."""
    build: str
    """16 hex digits: identity of the build."""
    run_id: str
    """The orchestrator's run id."""
    source: dict[str, Any]
    """What is read: table, crawls, partition keys and snapshot, or the files with their digests."""

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.recipe["name"])

    def parsed(self) -> ReferenceModelRecipe:
        """Returns the recipe as settings."""
        return parse_reference_model_recipe(self.recipe)

    def seed(self, label: str) -> int:
        """Returns the seed that a mapped task's label names.

        Raises:
            ConfigError: The recipe has no such seed.
        """
        for seed in self.parsed().seeds:
            if label == seed_label(seed):
                return seed
        raise ConfigError(f"seed={label!r} is not in the recipe; it has {list(self.parsed().seeds)}")

    def scratch(self) -> Path:
        """Returns the local folder of the build, made if missing; the same for every attempt on a machine."""
        folder = corpusmill_home() / "scratch" / NAMESPACE / self.name / self.build
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record(self, lake: Lakehouse, *parts: str) -> str:
        """Returns the URI of a record of this build."""
        return record_uri(lake, NAMESPACE, self.name, self.build, *parts)

    def text_folder(self, lake: Lakehouse) -> str:
        """Returns the URI of the packed text's folder in the warehouse."""
        return "/".join([str(lake.settings.warehouse).rstrip("/"), "_reference_text", self.text])


def seed_label(seed: int) -> str:
    """Returns the name of a seed's mapped task."""
    return f"seed{seed}"


def plan_reference_model(lake: Lakehouse, recipe: ReferenceModelRecipe, run_id: str) -> ReferencePlan:
    """Identifies the build and stores the plan.

    Raises:
        ConfigError: What the recipe reads does not exist.
    """
    source, content = _content(lake, recipe.corpus)
    tokenizer = recipe.tokenizer.model_dump(mode="json")
    if recipe.tokenizer.reuse:
        tokenizer = {"reuse": pin_model(recipe.tokenizer.reuse, recipe.tokenizer.revision).identity()}
    corpus = recipe.corpus.model_dump(mode="json", exclude={"files", "crawls"})
    held_out = recipe.validation.model_dump(mode="json")
    text = fingerprint([corpus, content, tokenizer, held_out, recipe.shape().context])
    method = recipe.model_dump(mode="json", exclude=NOT_TRAINING)
    build = fingerprint([text, method, recipe.shape_facts()])
    plan = ReferencePlan(recipe=recipe.model_dump(mode="json"), text=text, build=build, run_id=run_id, source=source)
    write_record(lake, plan_uri(lake, plan), plan.model_dump(mode="json"))
    return plan


def plan_uri(lake: Lakehouse, plan: ReferencePlan) -> str:
    """Returns where the plan is stored: one for each run, since runs may differ in seeds and gate."""
    return plan.record(lake, f"plan-{fingerprint([plan.run_id, plan.recipe])}.json")


def load_reference_plan(lake: Lakehouse, uri: str) -> ReferencePlan:
    """Returns the plan stored at a URI."""
    return ReferencePlan.load(read_record(lake, uri))


def corpus_files(corpus: CorpusConfig) -> list[Path]:
    """Returns the files that the patterns of a recipe name, sorted; ``bundled:`` is the demo's folder in the package.

    Raises:
        ConfigError: A pattern names no file.
    """
    found: set[str] = set()
    for pattern in corpus.files:
        place = pattern
        if pattern.startswith(BUNDLED):
            place = str(Path(str(resources.files("corpusmill.demo"))) / pattern.removeprefix(BUNDLED))
        names = [name for name in glob.glob(place) if Path(name).is_file()]
        if not names:
            raise ConfigError(
                f"corpus.files: {pattern!r} names no file; expected .jsonl, .parquet or .txt, or .gz of them"
            )
        found.update(names)
    return [Path(name) for name in sorted(found)]


def corpus_partitions(table: LakeTable, crawls: tuple[str, ...]) -> list[dict[str, str]]:
    """Returns the partitions of a table that a recipe reads, in order.

    Raises:
        ConfigError: The table has none of a crawl, or none at all.
    """
    partitions = [dict(p) for p in table.partitions()]
    known = sorted({p["crawl"] for p in partitions if "crawl" in p})
    missing = sorted(set(crawls) - set(known))
    wanted = [p for p in partitions if not crawls or p.get("crawl") in crawls]
    if missing or not wanted:
        raise ConfigError(f"corpus: {table.identifier} has no rows of crawls={missing or 'any'}; it has {known[-10:]}")
    return wanted


def _content(lake: Lakehouse, corpus: CorpusConfig) -> tuple[dict[str, Any], Any]:
    """Returns the facts of what is read, and what identifies its content: never a path or a snapshot id."""
    if corpus.files:
        digests = {path.name: file_sha256(path) for path in corpus_files(corpus)}
        return {"files": digests}, digests
    table = lake.table(str(corpus.table))
    if missing := sorted({"crawl", "doc_id", "text", "warc_file"} - set(table.spec.schema.names)):
        raise ConfigError(
            f"corpus.table={corpus.table!r} has no columns {missing}; take a table of documents or a corpus"
        )
    partitions = corpus_partitions(table, corpus.crawls)
    keys = {table.partition_path(p): str(table.partition_key(p)) for p in partitions}
    source = {
        "table": corpus.table,
        "crawls": sorted({p["crawl"] for p in partitions if "crawl" in p}),
        "partitions": keys,
        "snapshot": table.snapshot_id(),
    }
    return source, keys
