"""Builds a line labeller: from labelled pages to a measured model folder.

A model folder holds the weights, the command that made them, digests of the training data and the quality on dev pages,
measured on the stored weights through parser and executor. It appears whole or not at all.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from corpusmill.prox.checkpointed_training import Budget, Progress, state_beside
from corpusmill.prox.document_head import DocumentHead
from corpusmill.prox.document_head_training import (
    EXCERPT_WORDS,
    beginning,
    drop_share,
    page_lines,
    read_judged_documents,
    train_document_head,
    unwanted_lines,
    wanted_lines,
)
from corpusmill.prox.labelled_pages import LabelledPage
from corpusmill.prox.labeller_card import model_card
from corpusmill.prox.labeller_folder import CONFIG, published_folder, save_labeller
from corpusmill.prox.line_labeller import LabellerChunkRefiner
from corpusmill.prox.line_network import NetworkShape, one_thread
from corpusmill.prox.line_training import train_ensemble
from corpusmill.prox.refiner_evaluation import evaluate_pages, remove_nothing
from corpusmill.prox.training_texts import read_training_texts

DEMO_STEPS, DEMO_SEED = 360, 0
DEMO_NOTE = (
    "`build_demo_labeller` in `corpusmill.prox.refiner_training` does the same. Trained by this project from real web "
    "pages whose lines people, site parsers or another extractor labelled, and from people's verdicts on web "
    "documents. The pages are not part of this repository. The weights are released under the licence of this "
    "repository."
)
_TRAIN, _DEV = Path("refine/train.jsonl.gz"), Path("refine/dev.jsonl.gz")
_JUDGED, _CRAWLS = Path("oracles/dclm_human_quality.jsonl.gz"), Path("crawls")


def train_labeller(
    train_file: Path,
    dev_file: Path,
    out_dir: Path,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
    crawls: Path | None = None,
    judged_documents: Path | None = None,
    shape: NetworkShape | None = None,
    command: str | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Trains, measures and writes a line labeller; returns its measured quality as it stands in ``config.json``.

    A training that is killed goes on from its last dev evaluation when it is called again with the same arguments.

    Args:
        train_file: Labelled pages (JSON lines with ``lines``, ``remove``, ``unsure``, ``domain``, ``tier``).
        dev_file: Labelled pages of other domains; they choose the checkpoint and are measured.
        out_dir: Model folder to write; a model that stands there is replaced at the end.
        minutes: Training time at most, without dev evaluations; or
        steps: Number of steps over all members: with a seed the same weights on every run of one machine.
        seed: Seeds everything random.
        progress: Called with one line of text for each dev evaluation.
        crawls: Crawl folder with the pages' records; then main-content texts of the pages are trained on and measured.
        judged_documents: JSON lines with ``text`` and ``label``; then a document head is trained.
        shape: Sizes of the network; None: those of the shipped model.
        command: How to make the model again, as it will stand in ``config.json``; None: derived from the arguments.
        note: A paragraph on data and licence for the model card.

    Raises:
        ConfigError: Not exactly one of ``minutes`` and ``steps`` is above 0, or ``out_dir`` is no model folder.
        PermanentDataError: A file is not in its format.
        ModelError: Training diverged.
    """
    budget = Budget(steps, minutes)
    texts = read_training_texts(train_file, dev_file, crawls)
    shape = shape or NetworkShape()
    state = state_beside(out_dir, [*texts.train, *texts.dev], ["labeller", steps, minutes, seed, asdict(shape)])
    with one_thread():
        trained, threshold = train_ensemble(texts.groups(), texts.dev_groups(), shape, budget, seed, progress, state)
    head, document_quality = None, None
    if judged_documents is not None:
        judged = read_judged_documents(judged_documents)
        head, document_quality = train_document_head(judged, texts.train[-1], texts.train[0], seed)
        document_quality |= _drop_shares(head, texts.dev[0], texts.dev[-1])
    training = {
        "command": command or _command(train_file, dev_file, minutes, steps, seed),
        "seed": seed,
        "steps": sum(member.record.steps for member in trained),
        "best_steps": [member.record.best_step for member in trained],
        "torch": torch.__version__,
        "data_sha256": _digests([train_file, dev_file, judged_documents]),
        **texts.facts(),
    }
    quality: dict[str, Any] = {}

    def write(folder: Path) -> None:
        config = {"threshold": threshold, "training": training}
        networks = [member.network for member in trained]
        save_labeller(folder, networks, head, config)
        quality.update(_measured(folder, texts.dev))
        if document_quality is not None:
            quality["documents"] = document_quality
        save_labeller(folder, networks, head, {**config, "quality": quality})
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        (folder / "README.md").write_text(model_card(stored, note), encoding="utf-8")

    published_folder(out_dir, write)
    state.remove()
    return quality


def build_demo_labeller(
    shared_data: Path, out: Path, steps: int = DEMO_STEPS, seed: int = DEMO_SEED, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Trains the labeller that the demo ships, with one thread, and returns its quality.

    Args:
        shared_data: Folder with ``refine/``, ``crawls/`` and ``oracles/``.
        out: Model folder to write, ``src/corpusmill/demo/models/line_labeller`` for the shipped one.
        steps: Training steps.
        seed: Seed.
        progress: Called with one line of text for each dev evaluation.
    """
    return train_labeller(
        shared_data / _TRAIN,
        shared_data / _DEV,
        out,
        steps=steps,
        seed=seed,
        progress=progress,
        crawls=shared_data / _CRAWLS,
        judged_documents=shared_data / _JUDGED,
        command=_demo_command(steps, seed),
        note=DEMO_NOTE,
    )


def _demo_command(steps: int, seed: int) -> str:
    """Returns the command line, as typed in the folder of the data; one thread, so that sums do not change order."""
    data = f"--train {_TRAIN} --dev {_DEV} --crawls {_CRAWLS} --judged {_JUDGED}"
    run = f"--steps {steps} --seed {seed} --out line_labeller"
    return f"OMP_NUM_THREADS=1 corpusmill build-refiner --kind labeller {data} {run}"


def _measured(folder: Path, dev_texts: Sequence[Sequence[LabelledPage]]) -> dict[str, Any]:
    """Returns the scores of a stored model on the dev pages; speed is left out, it is not the model's."""
    refiner = LabellerChunkRefiner(folder)
    measured: dict[str, Any] = {}
    for name, pages in zip(("full_text", "main_content"), dev_texts, strict=False):
        scores = evaluate_pages(refiner, pages)
        del scores["docs_per_s"]
        judged = [page for page in pages if page.tier == "human"] or list(pages)
        baseline = {**remove_nothing(judged).as_dict(), "all": remove_nothing(pages).as_dict()}
        measured[name] = {**scores, "remove_nothing": baseline}
    return measured


def _drop_shares(head: DocumentHead, full: Sequence[LabelledPage], main: Sequence[LabelledPage]) -> dict[str, float]:
    return {
        "dev_articles_dropped": drop_share(head, map(page_lines, main)),
        "dev_beginnings_dropped": drop_share(head, (beginning(wanted_lines(page), EXCERPT_WORDS) for page in main)),
        "dev_boilerplate_dropped": drop_share(head, (lines for page in full if (lines := unwanted_lines(page)))),
    }


def _digests(files: Sequence[Path | None]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path is not None}


def _command(train_file: Path, dev_file: Path, minutes: float | None, steps: int | None, seed: int) -> str:
    """Returns the command line; file names without their folders, so that no machine's paths are stored."""
    length = ["--steps", str(steps)] if steps is not None else ["--minutes", str(minutes)]
    parts = ["corpusmill", "build-refiner", "--kind", "labeller", "--train", train_file.name, "--dev", dev_file.name]
    return shlex.join([*parts, *length, "--seed", str(seed)])
