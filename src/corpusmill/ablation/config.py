"""The recipe of an ablation: one commented YAML file that says which corpora are compared, by which students.

`ablation_<name>` is built from it. Importing this module is cheap (pydantic and YAML only), because DAG files read
these recipes at parse time.
"""

import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from corpusmill.config import StageConfig
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.pruning.config import SelectionConfig, Weight, Which
from corpusmill.reference_model_recipe import ShapeConfig
from corpusmill.rules.config import RulesConfig
from corpusmill.settings_file import read_recipe

BUNDLED_TEXTS = "bundled:texts"
"""Stands for the English texts that were written for the demo crawls."""
BUNDLED_PAIRS = "bundled:minimal_pairs"
"""Stands for the minimal pairs inside this package."""
STAGES: dict[str, type[StageConfig]] = {
    "clean": RulesConfig,
    "refine_documents": DocRefinementConfig,
    "refine_chunks": ChunkRefinementConfig,
}
"""Stages that a refinement arm may be made of, with their settings."""
Column = Literal[
    "perplexity", "bits_per_byte", "el2n", "memorization", "teacher_forced_accuracy", "top_k_hit_rate", "excess_nll"
]
"""Scores that arms select by."""
Stratum = Literal["language", "domain"]
"""What a pool can be divided by: the documents' language, the registered domain of their URLs."""


def _valid_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise ValueError("a name holds a-z, 0-9 and _, begins with a letter, and has at most 41 characters")
    return name


def _exact_share(value: Any) -> str:
    keep = SelectionConfig.model_validate({"fraction": value}).keep
    if keep == 0:
        raise ValueError(f"{value!r} keeps nothing; expected a share above 0")
    return str(keep)


Name = Annotated[str, AfterValidator(_valid_name)]
Share = Annotated[str, BeforeValidator(_exact_share)]


class NoiseConfig(StageConfig):
    """Noise of our own that is mixed into clean text, so that it is known what a selection should keep."""

    boilerplate: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Characters of repeated templates per clean character."""
    junk: Annotated[float, Field(ge=0, le=10)] = 0.25
    """Characters of word salad, character noise and scrambled words per clean character, a third each."""
    seed: int = 0
    """Seed of what is mixed in, and where."""


class PoolConfig(StageConfig):
    """The text that arms choose from, and what is held out: exactly one of ``files`` and ``table``."""

    files: tuple[str, ...] = ()
    """Paths or patterns of Parquet, JSON lines (``text``) or WikiText (``.txt``) files, each perhaps gzipped;
    ``bundled:texts`` stands for the texts inside this package."""
    table: str | None = None
    """Lakehouse table with ``doc_id`` and ``text``, for instance ``demo.documents``."""
    partition: str | None = None
    """Crawl to read of ``table``; None: all of them."""
    clean_files: tuple[str, ...] = ()
    """Clean text (an encyclopedia, books) for ``corpus: clean`` and for the clean test set. (): the pool's own texts
    before noise is mixed in, where it is; else there is no clean test set."""
    noise: NoiseConfig | None = None
    """Noise to mix in; None for real crawls."""
    document_chars: Annotated[int, Field(ge=100)] = 4000
    """Longer documents are cut at line ends into documents of about so many characters."""
    max_documents: Annotated[int, Field(ge=3)] | None = None
    """Documents to take, by the hash of (seed, id); None: all."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the source documents held out for tests; no part of them is in pool or reference."""
    reference_share: Annotated[float, Field(ge=0, lt=1)] = 0.45
    """Share that ``corpus: crawl`` and ``corpus: clean`` references are trained on; disjoint from the pool."""
    unit: Literal["passage", "document"] = "passage"
    """What is selected: ``passage`` is the paper's packed sequence in the form of text (documents one after the other,
    cut at spaces every ``passage_bytes``), the same unit for models with any tokenizer."""
    passage_bytes: Annotated[int, Field(ge=16)] = 256
    """Size of a passage in UTF-8 bytes; the paper's 2,048 tokens are about 8,192."""
    n_vocab: Annotated[int, Field(ge=300)] = 2048
    """Ids of the byte-level BPE that all students trained from scratch share; it is trained on the pool."""
    seed: int = 0
    """Seed of the split and of the sample."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.files) == bool(self.table):
            raise ValueError("exactly one of files and table is needed")
        if self.test_share + self.reference_share >= 1:
            raise ValueError(f"test_share {self.test_share} + reference_share {self.reference_share} leave no pool")
        return self


class ReferenceConfig(StageConfig):
    """A reference model: trained here (size, corpus, checkpoint and seeds are axes), or an existing one."""

    model: str | None = None
    """Existing model: folder, hub id, ``bundled:NAME`` or ``registered:NAME@VERSION``; None trains one."""
    revision: str | None = None
    """Commit of a hub model."""
    corpus: Literal["crawl", "clean", "pool"] = "crawl"
    """What it is trained on: the reference split with noise, the clean text, or the pool itself (memorization)."""
    preset: str = "tiny"
    """Its size, one of `corpusmill.modeling.decoder_shapes.PRESETS`."""
    steps: Annotated[int, Field(ge=1)] = 600
    """Optimiser steps."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Sequences of a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Peak."""
    checkpoint: Annotated[int, Field(ge=1)] | None = None
    """Score with the model after this many steps; None: with the final one. The paper: 14 %, 55 %, all."""
    seeds: tuple[int, ...] = (0,)
    """One model for each seed; their scores (not their probabilities) are averaged, section 4.5."""
    n_vocab: Annotated[int, Field(ge=300)] = 2048
    """Ids of its own tokenizer."""
    tokenizer: Literal["own", "pool"] = "own"
    """``own``: a BPE trained on its corpus; ``pool``: the one of the students, so that references that are trained on
    different corpora have one tokenizer, as ``excess_nll`` needs."""
    baseline: str | None = None
    """Another reference: ``excess_nll`` is this one's NLL less that one's, as in clean text's less the crawl's."""
    top_k: Annotated[int, Field(ge=1)] = 10
    """k of ``top_k_hit_rate``."""
    context: Annotated[int, Field(ge=2)] | None = None
    """Tokens of a scoring window; None: the model's positions."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights for scoring."""
    mem_tokens: Annotated[int, Field(ge=1)] = 32
    """M = N of the memorization score."""

    @model_validator(mode="after")
    def _within_training(self) -> Self:
        if not self.seeds:
            raise ValueError("seeds is empty; expected at least one")
        if self.checkpoint is not None and (self.model is not None or self.checkpoint >= self.steps):
            raise ValueError(
                f"checkpoint={self.checkpoint} must lie before the last step of a model that is trained here"
            )
        return self


class ScoreArmsConfig(StageConfig):
    """Arms that keep a part of the pool by a score: references x columns x strata x weights x fractions x parts."""

    references: tuple[str, ...]
    """Names in ``references``."""
    columns: tuple[Column, ...] = ("bits_per_byte",)
    """Scores to order by; perplexity is ordered by mean NLL."""
    which: tuple[Which, ...] = ("bottom", "middle", "top")
    """Parts of the order."""
    fractions: tuple[Share, ...] = ("1/2",)
    """Shares to keep, exact."""
    strata: tuple[tuple[Stratum, ...], ...] = ((),)
    """Within what the share holds: ``[]`` is the whole pool, ``[language]`` each language, ``[language, domain]`` each
    pair. A passage has the values of the document that most of its bytes are from."""
    weights: tuple[Weight, ...] = ("rows",)
    """What the share is a share of: ``rows`` (documents or passages, as ``pool.unit`` says), ``n_tokens`` (of the
    reference's tokenizer), ``n_scored`` or ``n_bytes``."""


class StudentConfig(StageConfig):
    """What is trained on each arm's corpus."""

    kind: Literal["trigram", "gpt"] = "trigram"
    """``trigram``: interpolated Witten-Bell counts, the same on every machine, in seconds; ``gpt``: a decoder trained
    for the same number of steps on every arm."""
    preset: str | ShapeConfig = "tiny"
    """Size of a ``gpt`` from scratch, one of `corpusmill.modeling.decoder_shapes.PRESETS`, or a shape in full."""
    base: str | None = None
    """Continue from this model (named as a reference's ``model``) with its own tokenizer; None: from scratch."""
    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimiser steps, the same for every arm, so that a smaller corpus is seen more often."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Sequences of a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Peak; the paper's 124M models: 1.5e-4."""
    schedule: Literal["cosine", "ramp"] = "cosine"
    """Both readings of the paper, see `corpusmill.modeling.train_lm.TrainingSettings`."""
    warmup_steps: Annotated[int, Field(ge=1)] = 40
    """Steps of linear warm-up of ``cosine``."""
    context: Annotated[int, Field(ge=8)] | None = None
    """Tokens of a packed sequence; None: the model's positions."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between two measurements of the test sets during training, which the break-even needs; None: a tenth."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
    """Steps that a kill loses at most."""
    seeds: tuple[int, ...] = (0,)
    """One run for each seed; a trigram has none and takes the first."""

    @model_validator(mode="after")
    def _seeds_given(self) -> Self:
        if not self.seeds:
            raise ValueError("seeds is empty; expected at least one")
        if self.kind == "trigram" and (self.base is not None or len(self.seeds) > 1):
            raise ValueError("a trigram student is deterministic and starts from nothing: give it no base and one seed")
        return self


class ClassificationConfig(StageConfig):
    """A classification task on local files, for fine-tuning ``gpt`` students."""

    train: str
    """GLUE's TSV with a header, CSV or JSON lines; each perhaps gzipped."""
    dev: str | None = None
    """The same for measuring; None: a fifth of ``train``, by hash."""
    task: Literal["sst2", "mrpc", "qqp", "qnli", "rte", "wnli"] | None = None
    """GLUE task whose columns are known; None: ``text`` and ``label`` name them."""
    text: tuple[str, ...] = ("text",)
    """Columns of the text, one or two."""
    label: str = "label"
    """Column of the class."""
    max_train: Annotated[int, Field(ge=1)] | None = None
    """Rows to train on, by hash; None: all."""
    max_dev: Annotated[int, Field(ge=1)] | None = None
    """Rows to measure on, by hash; None: all."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """The paper: 3."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """The paper: 1e-5; small models need more."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows of a step."""
    runs: Annotated[int, Field(ge=1)] = 1
    """Fine-tunings with different seeds; the paper: 5."""

    @model_validator(mode="after")
    def _one_or_two_texts(self) -> Self:
        if len(self.text) not in (1, 2):
            raise ValueError(f"text={self.text!r} names {len(self.text)} columns; expected one, or two for pairs")
        return self


class MeasuresConfig(StageConfig):
    """What is measured of a student, beside its loss on held-out crawl and clean text."""

    minimal_pairs: tuple[str, ...] = (BUNDLED_PAIRS,)
    """Files in BLiMP's format (``sentence_good``, ``sentence_bad``); ``bundled:minimal_pairs`` is a small one of our
    own."""
    classification: Mapping[Name, ClassificationConfig] = {}
    """Tasks for fine-tuning, by name."""
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    """Repetitions of an arm's corpus above which the report warns (arXiv 2305.16264: about 4 are nearly free)."""


class AblationRecipe(StageConfig):
    """One experiment: a pool, arms that make a corpus of it, students that learn from each, what is measured."""

    name: Name
    """Name of the experiment and of its DAG."""
    description: str = ""
    """One paragraph for the DAG's page and the report."""
    pool: PoolConfig
    """The text, and what is held out."""
    references: Mapping[Name, ReferenceConfig] = {}
    """Models that score the pool, by name."""
    baseline: bool = True
    """An arm with all of the pool."""
    random: tuple[Share, ...] = ()
    """Shares of random arms; a smaller one is part of a larger one."""
    scores: tuple[ScoreArmsConfig, ...] = ()
    """Arms by score."""
    corpora: Mapping[Name, tuple[Mapping[str, dict[str, Any]], ...]] = {}
    """Arms by stages, by name: steps such as ``clean: {preset: gopher}``, ``refine_documents: {...}``,
    ``refine_chunks: {...}``, one after the other."""
    students: Mapping[Name, StudentConfig] = {"trigram": StudentConfig()}
    """What is trained on each arm, by name."""
    measures: MeasuresConfig = MeasuresConfig()
    """What is measured."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for arms in self.scores:
            if unknown := sorted(set(arms.references) - set(self.references)):
                raise ValueError(f"scores name references {unknown}; known: {sorted(self.references)}")
            alone = [name for name in arms.references if self.references[name].baseline is None]
            if "excess_nll" in arms.columns and alone:
                raise ValueError(
                    f"excess_nll by references {alone}: they name no baseline; give each another reference"
                )
        for name, reference in self.references.items():
            _check_baseline(name, reference, self.references)
        for name, steps in self.corpora.items():
            _check_steps(name, steps)
        if not (self.baseline or self.random or self.scores or self.corpora):
            raise ValueError("there is no arm: switch baseline on, or give random, scores or corpora")
        if not self.students:
            raise ValueError("there is no student; give at least one")
        return self


def _check_baseline(name: str, reference: ReferenceConfig, known: Mapping[str, ReferenceConfig]) -> None:
    if reference.baseline is None:
        return
    if reference.baseline == name or reference.baseline not in known:
        others = sorted(set(known) - {name})
        raise ValueError(f"references.{name}.baseline={reference.baseline!r}: expected another reference of {others}")
    n_models, n_baselines = len(reference.seeds), len(known[reference.baseline].seeds)
    if n_baselines not in (1, n_models):
        raise ValueError(
            f"references.{name} has {n_models} seeds and its baseline {reference.baseline!r} {n_baselines}; expected "
            "one, or one for each"
        )
    if not _one_tokenizer(reference, known[reference.baseline]):
        raise ValueError(
            f"references.{name} and its baseline {reference.baseline!r} would be trained with a tokenizer each, so "
            "that their losses are of other tokens; give both tokenizer: pool, or both the same corpus and n_vocab"
        )


def _one_tokenizer(reference: ReferenceConfig, baseline: ReferenceConfig) -> bool:
    """Returns whether both will have one tokenizer; an existing model's is known only once it is loaded."""
    if reference.model is not None or baseline.model is not None:
        return True
    if reference.tokenizer == baseline.tokenizer == "own":
        return (reference.corpus, reference.n_vocab) == (baseline.corpus, baseline.n_vocab)
    return reference.tokenizer == baseline.tokenizer


def _check_steps(name: str, steps: tuple[Mapping[str, dict[str, Any]], ...]) -> None:
    for step in steps:
        if len(step) != 1 or next(iter(step)) not in STAGES:
            raise ValueError(f"corpora.{name}: step {dict(step)!r:.80} must have one key of {sorted(STAGES)}")
        for stage, settings in step.items():
            STAGES[stage].load(settings)


def parse_ablation(values: Mapping[str, Any]) -> AblationRecipe:
    """Returns the recipe of a mapping.

    Raises:
        ConfigError: A value is wrong; the message names it.
    """
    return AblationRecipe.load(values)


def load_ablation(path: Path) -> AblationRecipe:
    """Returns the recipe of a YAML file; its relative paths are taken from the file's folder.

    Raises:
        ConfigError: The file is absent, is not YAML, or holds wrong values.
    """
    recipe = parse_ablation(read_recipe(path, "ablation recipe"))
    pool, measures = recipe.pool, recipe.measures
    tasks = {
        name: task.model_copy(
            update={"train": _beside(path, task.train), "dev": None if task.dev is None else _beside(path, task.dev)}
        )
        for name, task in measures.classification.items()
    }
    return recipe.model_copy(
        update={
            "pool": pool.model_copy(
                update={
                    "files": tuple(_beside(path, name) for name in pool.files),
                    "clean_files": tuple(_beside(path, name) for name in pool.clean_files),
                }
            ),
            "measures": measures.model_copy(
                update={
                    "minimal_pairs": tuple(_beside(path, name) for name in measures.minimal_pairs),
                    "classification": tasks,
                }
            ),
        }
    )


def _beside(recipe: Path, name: str) -> str:
    """Returns an absolute path with environment variables filled in; bundled names stay."""
    if name.startswith("bundled:"):
        return name
    return str((recipe.parent / Path(os.path.expandvars(name)).expanduser()).absolute())


def share_text(fraction: str) -> str:
    """Returns a share as a percentage, for labels: ``3/10`` is ``30%``."""
    return f"{float(Fraction(fraction) * 100):g}%"
