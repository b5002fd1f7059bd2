"""A recipe: one commented YAML file that reads like a paper's method section.

A recipe names the source and the settings of every stage. `corpus_refresh_<name>` is built from it, its fingerprint is
stored with every published document, and a stage that it leaves out (``null``) is passed through. Importing this module
is cheap (pydantic and YAML only), because DAG files read recipes at parse time.
"""

import datetime as dt
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from corpusmill.config import StageConfig
from corpusmill.dedup.config import DeduplicationConfig
from corpusmill.errors import ConfigError
from corpusmill.ingest.config import IngestConfig
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.pruning.config import ScoringConfig, SelectionConfig
from corpusmill.pruning.packing_config import packing_of
from corpusmill.rules.config import RulesConfig
from corpusmill.settings_file import read_recipe
from corpusmill.validation.config import ValidationConfig

BUNDLED_CRAWLS = "bundled:crawls"
"""The base that stands for the demo crawls inside the package."""


def _valid_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name) or name in {"raw", "ops"}:
        raise ValueError("a recipe's name is a namespace: a-z, 0-9 and _, at most 41 characters, not 'raw' or 'ops'")
    return name


class SourceConfig(StageConfig):
    """Where crawls come from."""

    base: str = "https://data.commoncrawl.org/"
    """Folder or URL (http, https, s3) in Common Crawl's layout, or ``bundled:crawls`` for the demo crawls."""
    releases: str | None = None
    """Release list that ``crawl_watch`` keeps and the timetable reads; None: the base's own where it is a local folder
    with one, else a file below ``CORPUSMILL_RELEASE_LISTS`` (``CORPUSMILL_HOME``)."""


class ScheduleConfig(StageConfig):
    """When runs are made: one run per release."""

    start_date: dt.date = dt.date(2013, 1, 1)
    """First day of which releases are run, UTC; earlier crawls are reached by moving it back."""
    catchup: bool = False
    """True: every release since ``start_date`` gets a run; False: only the newest, older ones by backfill."""


class ShardConfig(StageConfig):
    """How a crawl is cut into mapped tasks. Results do not depend on it."""

    max_shards: Annotated[int, Field(ge=1, le=1024)] = 256
    """Mapped tasks per stage at most; Airflow's ``max_map_length`` is 1024 by default."""


class Recipe(StageConfig):
    """One corpus: its source and the settings of each stage, in the order they run."""

    name: Annotated[str, AfterValidator(_valid_name)]
    """Name of the corpus and of its lakehouse namespace."""
    description: str = ""
    """One paragraph for the DAG's page."""
    source: SourceConfig = SourceConfig()
    """Where crawls come from."""
    schedule: ScheduleConfig = ScheduleConfig()
    """When runs are made."""
    shards: ShardConfig = ShardConfig()
    """How a crawl is cut into mapped tasks."""
    ingest: IngestConfig = IngestConfig()
    """Reading and text extraction."""
    rules: RulesConfig = RulesConfig()
    """Language, heuristic quality rules, masking."""
    deduplication: DeduplicationConfig = DeduplicationConfig()
    """Duplicates within the crawl and against published crawls."""
    refine_documents: DocRefinementConfig | None = None
    """ProX document programs (keep or drop); None passes every document."""
    refine_chunks: ChunkRefinementConfig | None = None
    """ProX chunk programs (remove lines, normalise strings); None passes the text unchanged."""
    score: ScoringConfig | None = None
    """Scores under a reference model; None leaves the scores empty."""
    select: SelectionConfig | None = None
    """Which scored documents stay; None keeps all."""
    token_budget: int | None = Field(default=None, ge=1)
    """Tokens that training on the corpus will read; the report then says how often that repeats it. It decides no
    content."""
    validation: ValidationConfig = ValidationConfig()
    """Checks on the audit branch before publication."""

    @property
    def packs_sequences(self) -> bool:
        """True where packed token sequences are scored, selected and published, not documents."""
        return self.score is not None and self.score.unit == "sequence"

    def method_fingerprint(self) -> str:
        """Returns the fingerprint of everything that decides content: not the source, schedule or shard count."""
        from corpusmill.config import fingerprint

        parts = {name: self.stage_fingerprint(name) for name in CONTENT_STAGES}
        return fingerprint({"name": self.name, **parts})

    def stage_fingerprint(self, field: str) -> str | None:
        """Returns the fingerprint of one stage's settings, None where the recipe leaves the stage out."""
        config = getattr(self, field)
        return None if config is None else config.fingerprint()


CONTENT_STAGES = ("ingest", "rules", "deduplication", "refine_documents", "refine_chunks", "score", "select")
"""Recipe fields that decide what a published document is."""


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """Returns the recipe of a mapping, checked across stages.

    Raises:
        ConfigError: A value is wrong, the recipe selects by a score that it does not compute, or asks of sequences what
            only documents have.
    """
    recipe = Recipe.load(values)
    if recipe.select is not None and recipe.score is None:
        raise ConfigError(
            f"recipe {recipe.name!r} selects by column={recipe.select.column!r} but has no 'score' stage; add one "
            "(selection reads the scores table, also for 'random')"
        )
    _check_sequences(recipe)
    return recipe


def _check_sequences(recipe: Recipe) -> None:
    """Refuses what sequences cannot do: have no known length, or belong to a language or domain."""
    if recipe.score is None or not recipe.packs_sequences:
        return
    packing_of(recipe.score)
    strata = set(recipe.select.by if recipe.select is not None else ()) - {"crawl"}
    if strata:
        raise ConfigError(
            f"recipe {recipe.name!r}: select.by={tuple(sorted(strata))!r} with score.unit='sequence': a sequence holds "
            "documents of several languages and domains; select by 'crawl' or by nothing, or score documents"
        )


def load_recipe(path: Path) -> Recipe:
    """Returns the recipe of a YAML file.

    Raises:
        ConfigError: The file is absent, is not YAML, or holds wrong values.
    """
    values = read_recipe(path, "recipe file", "a mapping of stages")
    recipe = parse_recipe(values)
    base = recipe.source.base
    if base == BUNDLED_CRAWLS or "://" in base:
        return recipe
    absolute = str((path.parent / Path(base).expanduser()).absolute())  # a folder is meant relative to the recipe's own
    return recipe.model_copy(update={"source": recipe.source.model_copy(update={"base": absolute})})
