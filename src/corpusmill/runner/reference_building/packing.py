"""The packed text of a build: tokenizer, training and held-out sequences, kept in the warehouse for every seed."""

import math
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpusmill.errors import ConfigError, ModelError, PermanentDataError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.storage import copy_file_in, copy_file_out, list_files
from corpusmill.modeling.load import load_tokenizer
from corpusmill.pruning.checkpoint_marks import checkpoint_step
from corpusmill.pruning.packed_text import PackedText, write_packed_text
from corpusmill.pruning.reference_tokenizer import copy_tokenizer, sample_texts, save_tokenizer, train_tokenizer
from corpusmill.runner.model_registry import REGISTERED, fetch_model, find_model
from corpusmill.runner.records import find_record, read_record, write_record
from corpusmill.runner.reference_building.corpus import CorpusReader
from corpusmill.runner.reference_building.plan import ReferencePlan

Progress = Callable[[str], None]
FACTS = "text.json"
TRAIN, VALIDATION, TOKENIZER = "train", "validation", "tokenizer"
DOCUMENTS_A_LINE = 100_000


@dataclass(frozen=True)
class TextFacts:
    """What the packed text of a build holds.

    Attributes:
        train: Training sequences.
        validation: Held-out sequences.
        n_vocab: Ids of the tokenizer.
        eod: Id of the end-of-document token.
        tokenizer_sha256: Digest of the tokenizer's files.
        left_out: Training documents that were too short or too long.
    """

    train: PackedText
    validation: PackedText
    n_vocab: int
    eod: int
    tokenizer_sha256: str
    left_out: int

    @classmethod
    def of(cls, values: dict[str, Any]) -> "TextFacts":
        """Returns the facts that a record holds."""
        packed = {name: PackedText(**values[name]) for name in (TRAIN, VALIDATION)}
        return cls(**{**values, **packed})


def pack_reference_text(lake: Lakehouse, plan: ReferencePlan, progress: Progress) -> dict[str, Any]:
    """Makes the tokenizer and the packed text and stores both; a second run, or another build, finds them.

    Raises:
        PermanentDataError: There is too little text for one sequence, or none to hold out.
        ConfigError: A checkpoint lies beyond the training.
    """
    uri = f"{plan.text_folder(lake)}/{FACTS}"
    stored = find_record(lake, uri)
    if stored is None:
        folder = plan.scratch() / "text"  # of this build alone: another one may pack the same text at the same time
        facts = _pack(lake, plan, folder, progress)
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            copy_file_in(lake.io, path, f"{plan.text_folder(lake)}/{path.relative_to(folder).as_posix()}")
        write_record(lake, uri, asdict(facts))  # last: who finds it finds all of it
        shutil.rmtree(folder)
    else:
        facts = TextFacts.of(stored)
    steps, marks = training_steps(plan, facts)
    report = {
        "documents": facts.train.n_documents,
        "sequences": facts.train.n_sequences,
        "tokens": facts.train.n_tokens,
        "tokens_dropped": facts.train.n_dropped,
        "documents_left_out": facts.left_out,
        "validation_sequences": facts.validation.n_sequences,
        "vocabulary": facts.n_vocab,
        "steps": steps,
        "checkpoints": {str(step): mark for step, mark in marks.items()},
    }
    progress(", ".join(f"{key}: {value}" for key, value in report.items()))
    return {**report, **({"skipped": True} if stored is not None else {})}


def text_facts(lake: Lakehouse, plan: ReferencePlan) -> TextFacts:
    """Returns the facts of a build's packed text.

    Raises:
        RecordNotFoundError: It is not packed yet.
    """
    return TextFacts.of(read_record(lake, f"{plan.text_folder(lake)}/{FACTS}"))


def fetch_text(lake: Lakehouse, plan: ReferencePlan) -> Path:
    """Returns a local folder with the packed text: the warehouse's own where it is local, else a copy."""
    location = plan.text_folder(lake)
    if location.startswith("file:"):
        return Path(lake.io.parse_location(location)[2])
    folder = corpusmill_home() / "reference_text" / plan.text
    if not folder.is_dir():
        scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        for file in list_files(lake.io, location):
            copy_file_out(lake.io, file.location, scratch / file.location.removeprefix(location + "/"))
        try:
            scratch.rename(folder)
        except OSError:  # another seed on this machine was first
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def training_steps(plan: ReferencePlan, facts: TextFacts) -> tuple[int, dict[int, str]]:
    """Returns the steps of training, and the steps after which the model is saved with what the recipe calls them.

    Raises:
        ConfigError: A checkpoint lies beyond the training.
    """
    recipe = plan.parsed()
    training, n = recipe.training, facts.train.n_sequences
    steps = training.steps or math.ceil((training.epochs or 1.0) * n / training.batch_size)
    marks: dict[int, str] = {}
    for mark in recipe.checkpoints:
        step = checkpoint_step(mark, n, training.batch_size)
        if step > steps:
            raise ConfigError(
                f"checkpoint {mark!r} is step {step} ({n} sequences, {training.batch_size} a step), beyond the {steps} "
                "steps of training; train longer, or leave it out"
            )
        marks[step] = str(mark)
    return steps, {**marks, steps: marks.get(steps, "end")}


def _pack(lake: Lakehouse, plan: ReferencePlan, folder: Path, progress: Progress) -> TextFacts:
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    recipe, reader = plan.parsed(), CorpusReader.of(lake, plan)
    context = recipe.shape().context
    _write_tokenizer(lake, reader, folder / TOKENIZER, progress)
    tokenizer = load_tokenizer(str(folder / TOKENIZER))
    if tokenizer.eod_id is None:
        raise ModelError("the tokenizer names no end-of-document token; set eos_token in its tokenizer_config.json")

    def texts(role: Any) -> Any:
        for number, document in enumerate(reader.documents(role), 1):
            if number % DOCUMENTS_A_LINE == 0:
                progress(f"{number} documents of {role} packed")
            yield document.text

    train = write_packed_text(texts("train"), tokenizer, context, folder / TRAIN)
    left_out = reader.left_out
    limit = recipe.validation.max_sequences
    held_out = write_packed_text(texts("validation"), tokenizer, context, folder / VALIDATION, max_sequences=limit)
    for packed, what in ((train, "train on"), (held_out, "hold out")):
        if not packed.n_sequences:
            raise PermanentDataError(
                f"{packed.n_documents} documents to {what} give {packed.n_dropped} tokens, less than one sequence of "
                f"{context} ({left_out} documents were too short or too long); give more text, another share, or a "
                "shorter context"
            )
    return TextFacts(train, held_out, tokenizer.n_vocab, tokenizer.eod_id, tokenizer.sha256, left_out)


def _write_tokenizer(lake: Lakehouse, reader: CorpusReader, folder: Path, progress: Progress) -> None:
    settings = reader.recipe.tokenizer
    if settings.reuse:
        place = settings.reuse
        if place.startswith(REGISTERED):
            place = str(fetch_model(lake, find_model(lake, place)))
        copy_tokenizer(place, folder, settings.revision)
        progress(f"tokenizer of {settings.reuse}")
        return
    split = reader.recipe.corpus.split
    sample = sample_texts(reader.documents("train"), settings.sample_characters, 0 if split is None else split.seed)
    progress(f"tokenizer: {settings.n_vocab} ids from {sum(map(len, sample))} characters of {len(sample)} documents")
    save_tokenizer(train_tokenizer(sample, settings.n_vocab), folder, reader.recipe.shape().context)
