"""Builds a program writer: from labelled pages to a measured model folder.

Most of the budget trains encoders exactly as a labeller's networks are trained (an ensemble where the budget pays for
it), the rest trains the decoder over them. A model folder holds the weights, the command that made them, digests of the
training data and the quality on dev pages, measured on the stored weights through parser and executor, both by the
grammar and free. It appears whole or not at all. For a fixed number of steps and a seed the weights are the same on
every run of one machine.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from corpusmill.prox.checkpointed_training import Budget, Progress, StateFolder, TrainingRecord, state_beside
from corpusmill.prox.decoder_training import CORRECTION_WEIGHT, train_decoder
from corpusmill.prox.labelled_pages import LabelledPage
from corpusmill.prox.labeller_folder import CONFIG, published_folder
from corpusmill.prox.line_network import one_thread
from corpusmill.prox.line_training import Example, TrainedNetwork, train_ensemble
from corpusmill.prox.program_writer import WriterChunkRefiner
from corpusmill.prox.refiner_evaluation import evaluate_pages, remove_nothing
from corpusmill.prox.training_texts import read_training_texts
from corpusmill.prox.writer_card import writer_card
from corpusmill.prox.writer_folder import save_writer
from corpusmill.prox.writer_network import WriterNetwork, WriterShape

DECODER_SHARE = 0.2
"""Share of the budget for the decoder; its steps are cheaper, and it has less to learn."""


@dataclass(frozen=True)
class TrainedWriter:
    """A trained network and how it was trained.

    Attributes:
        network: In eval mode.
        threshold: A scan over lines stops at this probability and above; chosen on the dev pages.
        encoders: The runs of the encoders.
        decoder: The run of the decoder.
    """

    network: WriterNetwork
    threshold: float
    encoders: Sequence[TrainedNetwork]
    decoder: TrainingRecord


def train_program_writer(
    train_file: Path,
    dev_file: Path,
    out_dir: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
    crawls: Path | None = None,
    shape: WriterShape | None = None,
    command: str | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Trains, measures and writes a program writer; returns its measured quality as it stands in ``config.json``.

    A training that is killed goes on from its last dev evaluation when it is called again with the same arguments.

    Args:
        train_file: Labelled pages (JSON lines with ``lines``, ``remove``, ``unsure``, ``domain``, ``tier``).
        dev_file: Labelled pages of other domains; they choose the checkpoint and are measured.
        out_dir: Model folder to write; a model that stands there is replaced at the end.
        minutes: Training time, without dev evaluations; or
        steps: Number of steps: with a seed the same weights on every run of one machine.
        seed: Seeds everything random.
        progress: Called with one line of text for each dev evaluation.
        crawls: Crawl folder with the pages' records; then main-content texts of the pages are trained on and measured.
        shape: Sizes of the network; None: the measured best.
        command: How to make the model again, as it will stand in ``config.json``; None: derived from the arguments.
        note: A paragraph on data and licence for the model card.

    Raises:
        ConfigError: Not exactly one of ``minutes`` and ``steps`` is above 0, or ``out_dir`` is no model folder.
        PermanentDataError: A file is not in its format.
        ModelError: Training diverged.
    """
    budget = Budget(steps, minutes)
    texts = read_training_texts(train_file, dev_file, crawls)
    shape = shape or WriterShape()
    state = state_beside(out_dir, [*texts.train, *texts.dev], ["program-writer", steps, minutes, seed, asdict(shape)])
    with one_thread():
        trained = train_writer_network(texts.groups(), texts.dev_groups(), shape, budget, seed, progress, state)
    training = {
        "command": command or _command(train_file, dev_file, minutes, steps, seed),
        "seed": seed,
        "steps": [*(encoder.record.steps for encoder in trained.encoders), trained.decoder.steps],
        "best_steps": [*(encoder.record.best_step for encoder in trained.encoders), trained.decoder.best_step],
        "torch": torch.__version__,
        "data_sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (train_file, dev_file)},
        **texts.facts(),
    }
    quality: dict[str, Any] = {}

    def write(folder: Path) -> None:
        config = {"threshold": trained.threshold, "weight": CORRECTION_WEIGHT, "training": training}
        save_writer(folder, trained.network, config)
        quality.update(_measured(folder, texts.dev))
        save_writer(folder, trained.network, {**config, "quality": quality})
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        (folder / "README.md").write_text(writer_card(stored, note), encoding="utf-8")

    published_folder(out_dir, write)
    state.remove()
    return quality


def _measured(folder: Path, dev_texts: Sequence[Sequence[LabelledPage]]) -> dict[str, Any]:
    """Returns the scores of a stored model on the dev pages; speed is left out, it is not the model's."""
    measured: dict[str, Any] = {}
    for name, pages in zip(("full_text", "main_content"), dev_texts, strict=False):
        scores = evaluate_pages(WriterChunkRefiner(folder), pages)
        free = evaluate_pages(WriterChunkRefiner(folder, constrained=False), pages)
        for result in (scores, free):
            del result["docs_per_s"], result["validity_free"]
        judged = [page for page in pages if page.tier == "human"] or list(pages)
        baseline = {**remove_nothing(judged).as_dict(), "all": remove_nothing(pages).as_dict()}
        measured[name] = {
            **scores,
            "validity_free": free["validity"],
            "free": free,
            "remove_nothing": baseline,
        }
    return measured


def _command(train_file: Path, dev_file: Path, minutes: float | None, steps: int | None, seed: int) -> str:
    """Returns the command line; file names without their folders, so that no machine's paths are stored."""
    length = ["--steps", str(steps)] if steps is not None else ["--minutes", str(minutes)]
    data = ["--train", train_file.name, "--dev", dev_file.name]
    return shlex.join(["corpusmill", "build-refiner", "--kind", "program-writer", *data, *length, "--seed", str(seed)])


def train_writer_network(
    groups: Sequence[tuple[float, Sequence[Example]]],
    dev_groups: Sequence[Sequence[Example]],
    shape: WriterShape,
    budget: Budget,
    seed: int,
    progress: Progress,
    state: StateFolder | None = None,
) -> TrainedWriter:
    """Returns a program writer: encoders trained as a labeller's are, then a decoder over them.

    Args:
        groups: (probability, pages) of each kind of text, for instance full text and main content.
        dev_groups: Pages of other domains, one group for each kind of text.
        shape: Sizes of the network, but for the number of encoders, which follows from the budget.
        budget: Steps or minutes; encoders and decoder get at least a step each.
        seed: Seeds weights, windows and dropout; the caller's random state is left as it was.
        progress: Called with one line of text for each dev evaluation.
        state: Where a killed training goes on from; None keeps nothing.

    Raises:
        ModelError: A loss is not finite.
    """
    encoders_budget, decoder_budget = _shared(budget)
    members, threshold = train_ensemble(groups, dev_groups, shape.lines, encoders_budget, seed, progress, state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WriterNetwork(replace(shape, n_encoders=len(members)))
    for encoder, member in zip(network.encoders, members, strict=True):
        encoder.load_state_dict(member.network.state_dict())
    run = train_decoder(network, groups, dev_groups, threshold, decoder_budget, seed, progress, state)
    return TrainedWriter(network, threshold, members, run)


def _shared(budget: Budget) -> tuple[Budget, Budget]:
    """Returns the budgets of the encoders and of the decoder."""
    if budget.steps is None:
        minutes = float(budget.minutes or 0.0)
        return Budget(None, minutes * (1 - DECODER_SHARE)), Budget(None, minutes * DECODER_SHARE)
    steps = max(1, round(budget.steps * DECODER_SHARE))
    return Budget(max(1, budget.steps - steps), None), Budget(steps, None)
