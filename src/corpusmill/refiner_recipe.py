"""The recipe of a refiner: one commented YAML file that says from what, by whom and how a refiner is made.

`build_refiner_<name>` is built from it. A new domain is a new file: nothing else knows of domains. Importing this
module is cheap (pydantic and YAML only), because DAG files read these recipes at parse time.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from corpusmill.config import StageConfig
from corpusmill.prox.annotation_config import SynthesisConfig, TeacherConfig
from corpusmill.prox.trainers import Kind
from corpusmill.prox.training_examples import Route
from corpusmill.settings_file import read_recipe

DECISIONS: tuple[Route, ...] = ("scores",)
"""Routes whose labels are keep or drop decisions; all others label lines."""
ASKING: tuple[Route, ...] = ("scores", "programs", "rewrite")
"""Routes that ask a large model."""


def _valid_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise ValueError("a refiner's name holds a-z, 0-9 and _, begins with a letter, and has at most 41 characters")
    return name


class SeedConfig(StageConfig):
    """Which documents labels are made for: exactly one of ``table``, ``files`` and ``crawl``."""

    table: str | None = None
    """Lakehouse table with ``doc_id``, ``text`` and perhaps ``url`` and ``kept``, for instance ``demo.documents``."""
    partition: str | None = None
    """Crawl to sample of ``table``; None: all of them."""
    files: tuple[str, ...] = ()
    """Paths or patterns of JSON lines: documents with ``text``, or labelled pages with ``lines`` and ``remove``."""
    crawl: str | None = None
    """Crawl whose pages are sampled with their HTML, for route ``extractor``."""
    base: str = "bundled:crawls"
    """For ``crawl``: folder or URL in Common Crawl's layout."""
    n_documents: Annotated[int, Field(ge=2)] = 500
    """Documents to sample; fewer where there are not as many."""
    min_characters: Annotated[int, Field(ge=0)] = 200
    """Shorter texts are not sampled."""
    max_characters: Annotated[int, Field(ge=1)] = 400_000
    """Longer texts are not sampled."""
    seed: int = 0
    """Which sample: documents are taken by the hash of (seed, doc_id), so a larger sample holds the smaller one."""
    max_shards: Annotated[int, Field(ge=1, le=1024)] = 4
    """Mapped tasks of annotation at most."""

    @model_validator(mode="after")
    def _one_source(self) -> "SeedConfig":
        given = [name for name in ("table", "files", "crawl") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"exactly one of table, files and crawl is needed; given: {given or 'none'}")
        return self


class LabelConfig(StageConfig):
    """How documents get labels."""

    route: Route
    """``scores`` or ``programs`` (the paper's), ``rewrite`` (RefineX's), ``gold`` or ``extractor``."""
    teacher: TeacherConfig | None = None
    """The large model; needed by ``scores``, ``programs`` and ``rewrite``."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """Domain, windows and checks."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the documents that choose the checkpoint and are measured, split by domain."""

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> "LabelConfig":
        if (self.route in ASKING) != (self.teacher is not None):
            need = "needs a teacher" if self.route in ASKING else "asks no teacher; leave it out"
            raise ValueError(f"route {self.route!r} {need}")
        return self


class TrainConfig(StageConfig):
    """What is trained, and for how long."""

    kind: Kind = "labeller"
    """``labeller``: a logit a line; ``program-writer``: a small decoder over lines; ``program-model``: a causal
    language model that reads the prompt and writes the program as text, the paper's kind."""
    base: str = "new:tiny"
    """For ``program-model``: hub id or folder (``./`` is the recipe's own) of a causal language model, or
    ``new:PRESET``."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Training time; exactly one of ``minutes`` and ``steps``."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps: repeatable to the bit with a seed."""
    seed: int = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("exactly one of minutes and steps is needed")
        return self


class RefinerRecipe(StageConfig):
    """One refiner: its seed documents, labels, training, and the figures that it must reach."""

    name: Annotated[str, AfterValidator(_valid_name)]
    """Under this name it is registered in ``ops.models``."""
    description: str = ""
    """One paragraph for the DAG's page."""
    seed: SeedConfig
    """Which documents."""
    labels: LabelConfig
    """How they get labels."""
    train: TrainConfig
    """What learns from them."""
    evaluate: str | None = None
    """File of labelled pages or judged documents that measures the refiner; None: the validation examples."""
    gate: dict[str, float] = Field(default_factory=dict)
    """Least value of each measured figure, for instance ``keep_f1: 0.8`` or ``all.keep_f1: 0.75``; below one of them
    the refiner is not registered."""

    @property
    def task(self) -> Literal["document", "chunk"]:
        """What the refiner does: decides for documents, or writes programs for windows of lines."""
        return "document" if self.labels.route in DECISIONS else "chunk"

    @model_validator(mode="after")
    def _kind_fits_task(self) -> "RefinerRecipe":
        if self.task == "document" and self.train.kind != "program-model":
            raise ValueError(
                f"route 'scores' labels documents, which train.kind={self.train.kind!r} does not learn; "
                "use 'program-model'"
            )
        if self.labels.route == "extractor" and not self.seed.crawl:
            raise ValueError("route 'extractor' needs pages with HTML: give seed.crawl (and seed.base)")
        return self


def load_refiner_recipe(path: Path) -> RefinerRecipe:
    """Returns the refiner recipe of a YAML file; its relative paths are taken from the file's folder.

    Raises:
        ConfigError: The file is absent, is not YAML, or holds wrong values.
    """
    values = read_recipe(path, "refiner recipe")
    return parse_refiner_recipe(_beside(path.parent, values))


def parse_refiner_recipe(values: dict[str, Any]) -> RefinerRecipe:
    """Returns the refiner recipe of a mapping.

    Raises:
        ConfigError: A value is wrong; the message names it.
    """
    return RefinerRecipe.load(values)


def _beside(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with environment variables filled in and file names made absolute."""
    import os

    def place(name: Any) -> Any:
        if not isinstance(name, str) or "://" in name or name.startswith("bundled:"):
            return name
        return str((folder / Path(os.path.expandvars(name)).expanduser()).absolute())

    out = dict(values)
    seed = out.get("seed")
    if isinstance(seed, dict):
        files = seed.get("files")
        out["seed"] = {
            **seed,
            **({"files": [place(name) for name in files]} if isinstance(files, list) else {}),
            **({"base": place(seed["base"])} if "base" in seed else {}),
        }
    train = out.get("train")
    if isinstance(train, dict) and str(train.get("base", "")).startswith(("./", "../", "~", "$")):  # else a hub id
        out["train"] = {**train, "base": place(train["base"])}
    if out.get("evaluate"):
        out["evaluate"] = place(out["evaluate"])
    return out
