"""The recipe of a reference model: one commented YAML file that says on what, how long and how often it is trained.

`build_reference_model_<name>` is built from it. Importing this module is cheap (pydantic and YAML only), because DAG
files read these recipes at parse time.
"""

import os
import re
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from corpusmill.config import StageConfig
from corpusmill.modeling.decoder_shapes import PAPER_VOCABULARY, PRESETS, Architecture, Preset
from corpusmill.pruning.corpus_split import CorpusSplit
from corpusmill.settings_file import read_recipe

Purpose = Literal["perplexity", "memorization"]
NAMES = re.compile(r"[a-z][a-z0-9_]{0,40}")


def _valid_name(name: str) -> str:
    if not NAMES.fullmatch(name):
        raise ValueError("a reference model's name holds a-z, 0-9 and _, begins with a letter, at most 41 characters")
    return name


def _share(value: Any) -> str:
    try:
        share = Fraction(str(value).strip())
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{value!r} is not a share; expected for instance '1/10' or '0.1'") from error
    if not 0 < share < 1:
        raise ValueError(f"{value!r} lies outside (0, 1); expected a share such as '1/10'")
    return str(share)


Share = Annotated[str, BeforeValidator(_share)]
"""An exact share in (0, 1): ``"1/10"`` or ``"0.1"``."""


class SplitConfig(StageConfig):
    """Which part of a crawl is reserved for reference models, by the hash of each doc_id; the rest is the pool."""

    share: Share = "1/10"
    """Of the documents that are reserved."""
    seed: int = 0
    """Another seed, another split. Two models that shall know the same part must have the same share and seed."""

    def split(self) -> CorpusSplit:
        """Returns the split."""
        return CorpusSplit(Fraction(self.share), self.seed)


class CorpusConfig(StageConfig):
    """What the model is trained on: exactly one of ``table`` and ``files``."""

    table: str | None = None
    """Lakehouse table with ``doc_id`` and ``text``: a published corpus such as ``demo.corpus``, or a crawl's documents
    such as ``demo.documents``, of which those that the rules kept are read."""
    crawls: tuple[str, ...] = ()
    """Crawls of ``table``; (): all that it has when the build is planned."""
    files: tuple[str, ...] = ()
    """Paths or patterns: JSON lines or Parquet with ``text`` (and ``doc_id`` or ``id``), or plain text, in which blank
    lines part documents; .gz as well."""
    purpose: Purpose = "perplexity"
    """``perplexity`` (and EL2N): trained on the reserved part, so that the pool is new to it. ``memorization``: trained
    on the pool itself, and measured on the reserved part."""
    split: SplitConfig | None = None
    """None: everything is trained on; for a clean corpus that no pool is taken from."""
    min_characters: Annotated[int, Field(ge=1)] = 1
    """Shorter texts are left out, and counted."""
    max_characters: Annotated[int, Field(ge=1)] = 10_000_000
    """Longer texts are left out, and counted; memory is bounded by it."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("table", "files") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"exactly one of table and files is needed; given: {given or 'none'}")
        if self.crawls and not self.table:
            raise ValueError("crawls are those of a table; files have none")
        if self.purpose == "memorization" and self.split is None:
            raise ValueError(
                "purpose 'memorization' trains on the whole pool, so it needs a split: its reserved part is the "
                "held-out text"
            )
        return self


class TokenizerConfig(StageConfig):
    """How text becomes ids: a byte-level BPE trained on a sample, or another model's tokenizer."""

    n_vocab: Annotated[int, Field(ge=258)] = PAPER_VOCABULARY
    """Ids, 256 bytes and two special ones included (the paper: 51,200); fewer where the sample gives fewer merges."""
    sample_characters: Annotated[int, Field(ge=1)] = 50_000_000
    """Text that the BPE is trained on, taken by the hash of doc_id; memory is bounded by it."""
    reuse: str | None = None
    """Model whose tokenizer is taken instead: a folder, ``bundled:NAME`` or a hub id."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""


class ShapeConfig(StageConfig):
    """A decoder's shape in full, for sizes that have no name."""

    architecture: Architecture = "gpt2"
    """``llama`` (rotary positions, tied embeddings) or ``gpt2`` (learned positions)."""
    hidden: Annotated[int, Field(ge=1)]
    """Width."""
    layers: Annotated[int, Field(ge=1)]
    """Blocks."""
    heads: Annotated[int, Field(ge=1)]
    """Attention heads; they divide the width."""
    feed_forward: Annotated[int, Field(ge=1)]
    """Width of the feed-forward layer."""
    context: Annotated[int, Field(ge=2)] = 2048
    """Positions: the length of the packed sequences."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads or (self.architecture == "llama" and self.hidden // self.heads % 2):
            raise ValueError(f"heads={self.heads} do not divide hidden={self.hidden} in equal (llama: even) parts")
        return self


class TrainingConfig(StageConfig):
    """The paper's optimiser settings, and what a machine needs."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimiser steps; exactly one of ``steps`` and ``epochs``."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the packed text, rounded up to whole steps."""
    batch_size: Annotated[int, Field(ge=1)] = 2048
    """Sequences of a step (the paper: 2048; 512 for its 1.5B model)."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Sequences of one forward pass; gradients add up to the batch. None: the whole batch at once."""
    learning_rate: Annotated[float, Field(gt=0)] = 1.5e-4
    """Peak (the paper: 1.5e-4 for 124M, 1.2e-4 for 1.5B)."""
    schedule: Literal["cosine", "ramp"] = "cosine"
    """Two readings of the paper: ``cosine`` warms up linearly and falls to a tenth as a cosine ("linear cosine
    scaling"), ``ramp`` rises over all of training ("linearly increases from 0 ... over the course of training")."""
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    """Of ``cosine``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """AdamW's, on matrices only."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest gradient norm."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    """Steps that a kill can cost."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on a GPU, float32 on a CPU; the weights are float32."""
    compiled: Literal["auto", "yes", "no"] = "auto"
    """torch.compile; ``auto``: on a GPU."""
    device: str = "auto"
    """``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs is needed")
        return self


class ValidationConfig(StageConfig):
    """What is held out to measure the model; never trained on."""

    share: Share = "1/50"
    """Of the documents, by the hash of doc_id. ``memorization`` is measured on the reserved part instead."""
    max_sequences: Annotated[int, Field(ge=1)] = 512
    """Packed sequences that are measured at most."""


class GateConfig(StageConfig):
    """Highest figures with which every seed's last model is registered; None: no limit."""

    validation_perplexity: Annotated[float, Field(gt=0)] | None = None
    """exp of the mean NLL of a held-out token; depends on the tokenizer."""
    bits_per_byte: Annotated[float, Field(gt=0)] | None = None
    """Held-out bits per UTF-8 byte; compares models of different tokenizers."""


def _valid_mark(mark: Any) -> str | int:
    text = str(mark).strip()
    if re.fullmatch(r"[1-9][0-9]*", text):
        return int(text)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", text) and float(text[:-1]) > 0:
        return text
    raise ValueError(f"{mark!r} is neither a step above 0 nor a share of the data such as '14%'")


class ReferenceModelRecipe(StageConfig):
    """One reference model: its corpus, tokenizer, shape, training, seeds, and the figures that it must reach."""

    name: Annotated[str, AfterValidator(_valid_name)]
    """Under this name it is registered in ``ops.models``, each seed and checkpoint under ``NAME.seedS.stepN``."""
    description: str = ""
    """One paragraph for the DAG's page."""
    corpus: CorpusConfig
    """What it is trained on."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How text becomes ids."""
    model: str | ShapeConfig = "gpt-124m"
    """A preset's name (test, tiny, small, gpt-124m), or a shape in full."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the stored weights."""
    training: TrainingConfig
    """How it is trained."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1, max_length=1024)] = (0,)
    """One mapped task each: initialisation and data order. The first one's last model carries the plain name."""
    checkpoints: tuple[Annotated[str | int, BeforeValidator(_valid_mark)], ...] = ()
    """Where the model is saved on the way, as steps or shares of one pass over the data (the paper: 14% and 55%)."""
    validation: ValidationConfig = ValidationConfig()
    """What is held out."""
    gate: GateConfig = GateConfig()
    """What it must reach to be registered."""

    @field_validator("model")
    @classmethod
    def _known_preset(cls, value: str | ShapeConfig) -> str | ShapeConfig:
        if isinstance(value, str) and value not in PRESETS:
            raise ValueError(f"preset {value!r} is unknown; expected one of {sorted(PRESETS)}, or a shape")
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value) or min(value) < 0:
            raise ValueError(f"seeds {value} must differ, and be 0 or more")
        return value

    def shape(self) -> Preset:
        """Returns the shape that ``model`` names or gives."""
        return PRESETS[self.model] if isinstance(self.model, str) else Preset(**self.model.model_dump())

    def shape_facts(self) -> dict[str, Any]:
        """Returns the shape, with its name where it has one, for records and cards."""
        return {"preset": self.model if isinstance(self.model, str) else None, **asdict(self.shape())}


def load_reference_model_recipe(path: Path) -> ReferenceModelRecipe:
    """Returns the recipe of a YAML file; its relative paths are taken from the file's folder.

    Raises:
        ConfigError: The file is absent, is not YAML, or holds wrong values.
    """
    values = read_recipe(path, "reference model recipe")
    return parse_reference_model_recipe(_beside(path.parent, values))


def parse_reference_model_recipe(values: dict[str, Any]) -> ReferenceModelRecipe:
    """Returns the recipe of a mapping.

    Raises:
        ConfigError: A value is wrong; the message names it.
    """
    return ReferenceModelRecipe.load(values)


def _beside(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values with environment variables filled in and names of the corpus's files made absolute."""

    def place(name: Any) -> Any:
        if not isinstance(name, str) or name.startswith("bundled:"):
            return name
        return str((folder / Path(os.path.expandvars(name)).expanduser()).absolute())

    corpus = values.get("corpus")
    if isinstance(corpus, dict) and isinstance(corpus.get("files"), list):
        return {**values, "corpus": {**corpus, "files": [place(name) for name in corpus["files"]]}}
    return values
