"""The plan of a build: which content it samples, and the keys under which its tables are committed."""

import glob
import hashlib
from pathlib import Path
from typing import Any

from corpusmill import __version__
from corpusmill.config import StageConfig, fingerprint
from corpusmill.errors import ConfigError
from corpusmill.ingest.crawl import list_files, path_list_digest
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.shards import RunToken
from corpusmill.prox.refiner import folder_digest, local_place
from corpusmill.refiner_recipe import RefinerRecipe, SeedConfig, parse_refiner_recipe
from corpusmill.runner.plan import resolve_base
from corpusmill.runner.records import read_record, record_uri, write_record

NAMESPACE = "refiners"
SEEDS_TABLE, EXAMPLES_TABLE = "ops.seed_documents", "ops.refiner_examples"
_NOT_CONTENT = {"description", "gate", "evaluate"}


class BuildPlan(StageConfig):
    """Everything a build decided before it started."""

    recipe: dict[str, Any]
    """The refiner recipe, as given."""
    build: str
    """16 hex digits over the recipe's content and what it samples: the identity of the build."""
    run_id: str
    """The orchestrator's run id."""
    epoch: int
    """Fencing number of this run for the build."""
    source: str
    """What is sampled: table, files or crawl, for the examples' provenance."""

    @property
    def name(self) -> str:
        """The refiner's name."""
        return str(self.recipe["name"])

    @property
    def partition(self) -> dict[str, str]:
        """Partition of the build's tables."""
        return {"refiner": self.name, "build": self.build}

    def parsed(self) -> RefinerRecipe:
        """Returns the recipe as settings."""
        return parse_refiner_recipe(self.recipe)

    def token(self, step: str) -> RunToken:
        """Returns the identity under which a step commits."""
        return RunToken(
            recipe=f"{NAMESPACE}/{self.name}",
            crawl=self.build,
            run_id=self.run_id,
            epoch=self.epoch,
            key=fingerprint([self.build, step]),
            versions={"corpusmill": __version__, "config": self.parsed().fingerprint()},
        )

    def scratch(self) -> Path:
        """Returns the local folder of the build, made if missing; the same for every attempt on a machine."""
        folder = corpusmill_home() / "scratch" / "builds" / self.name / self.build
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def record(self, lake: Lakehouse, *parts: str) -> str:
        """Returns the URI of a record of this build."""
        return record_uri(lake, NAMESPACE, self.name, self.build, *parts)


def plan_build(lake: Lakehouse, recipe: RefinerRecipe, run_id: str) -> BuildPlan:
    """Identifies the build, takes its next epoch and stores the plan.

    Raises:
        ConfigError: What the recipe samples or measures on does not exist.
        ModelError: The folder of its base does not exist.
    """
    if recipe.evaluate and not Path(recipe.evaluate).is_file():  # told now, not when all is labelled and trained
        raise ConfigError(f"evaluate={recipe.evaluate!r} is no file; expected labelled pages or judged documents")
    source, content = _sampled_content(lake, recipe.seed)
    method = recipe.model_dump(mode="json", exclude={*_NOT_CONTENT, "seed"})
    sample = recipe.seed.model_dump(mode="json", exclude={"files", "base", "max_shards"})
    base = local_place(recipe.train.base) if recipe.train.kind == "program-model" else None
    trained_from = [] if base is None else [folder_digest(base)]
    build = fingerprint([method, sample, content, *trained_from])
    plan = BuildPlan(
        recipe=recipe.model_dump(mode="json"),
        build=build,
        run_id=run_id,
        epoch=take_epoch(lake, f"{NAMESPACE}/{recipe.name}", build, run_id),
        source=source,
    )
    write_record(lake, plan_uri(lake, plan), plan.model_dump(mode="json"))
    return plan


def plan_uri(lake: Lakehouse, plan: BuildPlan) -> str:
    """Returns where the plan is stored."""
    return plan.record(lake, f"epoch-{plan.epoch:05d}", "plan.json")


def load_build(lake: Lakehouse, uri: str) -> BuildPlan:
    """Returns the plan stored at a URI."""
    return BuildPlan.load(read_record(lake, uri))


def seed_files(seed: SeedConfig) -> list[Path]:
    """Returns the files that the patterns of a recipe name, sorted.

    Raises:
        ConfigError: A pattern names no file.
    """
    found: set[str] = set()
    for pattern in seed.files:
        names = [name for name in glob.glob(pattern) if Path(name).is_file()]
        if not names:
            raise ConfigError(f"seed.files: {pattern!r} names no file; expected JSON lines with 'text' or 'lines'")
        found.update(names)
    return [Path(name) for name in sorted(found)]


def _sampled_content(lake: Lakehouse, seed: SeedConfig) -> tuple[str, Any]:
    """Returns what is sampled in words, and what identifies its content."""
    if seed.files:
        digests = {path.name: file_sha256(path) for path in seed_files(seed)}
        return ", ".join(digests), digests
    if seed.crawl:
        base = resolve_base(seed.base)
        return seed.crawl, path_list_digest(list_files(base, seed.crawl))
    table = lake.table(str(seed.table))
    wanted = [dict(p) for p in table.partitions() if seed.partition is None or p.get("crawl") == seed.partition]
    keys = {table.partition_path(p): table.partition_key(p) for p in wanted}
    if not keys:
        raise ConfigError(
            f"seed.table={seed.table!r} has no rows of partition={seed.partition!r}; it has "
            f"{sorted(str(p.get('crawl')) for p in table.partitions())[-10:]}"
        )
    return f"{seed.table}/{seed.partition or '*'}@{table.snapshot_id()}", keys


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
