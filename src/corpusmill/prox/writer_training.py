"""Training of the program writer: from labelled pages to a measured model folder.

First the encoder learns to judge lines (binary cross-entropy, as the labeller does), then encoder and decoder learn to
write programs together, the line loss staying on. AdamW with one cosine schedule over both, on windows cut from the
pages; a running mean of the weights is what is measured and kept. The checkpoint with the best keep-F1 of the *decoded*
programs on the dev pages wins. For a fixed number of steps and a seed the weights are the same on every run of one
machine.

Shapes: B windows, N lines, T program tokens.
"""

import copy
import hashlib
import json
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from corpusmill.errors import ModelError
from corpusmill.prox.labelled_pages import LabelledPage, main_content_pages, read_labelled_pages
from corpusmill.prox.labeller_folder import CONFIG, published_folder
from corpusmill.prox.line_features import LineFeatures
from corpusmill.prox.line_labeller import even_windows
from corpusmill.prox.line_network import collate
from corpusmill.prox.line_scores import micro_scores
from corpusmill.prox.line_training import Budget, Example, Progress, examples_of
from corpusmill.prox.program_writer import WriterChunkRefiner
from corpusmill.prox.refiner_evaluation import evaluate_pages, remove_nothing
from corpusmill.prox.writer_card import writer_card
from corpusmill.prox.writer_decoding import ProgramDecoder
from corpusmill.prox.writer_folder import save_writer
from corpusmill.prox.writer_network import Lines, WriterNetwork, WriterShape
from corpusmill.prox.writer_targets import ProgramTargets, drawn_history, program_targets

WINDOWS_PER_STEP = 8
LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 2e-3, 0.05, 50
TOKEN_DROPOUT = 0.3
CROP_LINES, LONG_CROP_LINES, LONG_CROP_SHARE = 256, 400, 0.3
ENCODER_SHARE = 0.5
"""Share of the budget in which the encoder learns alone."""
AVERAGING = 0.99
"""Decay a step of the running mean of the weights."""
N_CHECKPOINTS = 6
"""Dev evaluations over a run, from the first one with a decoder that was trained."""
THRESHOLD = 0.5
MAIN_CONTENT_SHARE = 0.1
"""Share of windows cut from main-content text, where crawls are given; as measured for the labeller."""


@dataclass
class TrainedWriter:
    """The best checkpoint of a run.

    Attributes:
        network: In eval mode.
        steps: Steps that were run in all.
        best_step: Step of the checkpoint.
        losses: Mean training losses (lines, programs) between the evaluations, in order; nats.
    """

    network: WriterNetwork
    steps: int = 0
    best_step: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)


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
    train, dev = read_labelled_pages(train_file), read_labelled_pages(dev_file)
    texts = [train] if crawls is None else [train, main_content_pages(train, crawls)]
    dev_texts = [dev] if crawls is None else [dev, main_content_pages(dev, crawls)]
    shares = [1.0] if crawls is None else [1 - MAIN_CONTENT_SHARE, MAIN_CONTENT_SHARE]
    groups = [(share, examples_of(pages)) for share, pages in zip(shares, texts, strict=True)]
    dev_groups = [examples for pages in dev_texts if (examples := examples_of(pages))]
    trained = train_writer_network(
        [group for group in groups if group[1]], dev_groups, shape or WriterShape(), budget, seed, progress
    )
    training = {
        "command": command or _command(train_file, dev_file, minutes, steps, seed),
        "seed": seed,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "torch": torch.__version__,
        "data_sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (train_file, dev_file)},
        "main_content_pages": 0 if crawls is None else len(texts[1]),
        "dev_domains_in_training": len({p.domain for p in train if p.domain} & {p.domain for p in dev}),
    }
    quality: dict[str, Any] = {}

    def write(folder: Path) -> None:
        config = {"threshold": THRESHOLD, "training": training}
        save_writer(folder, trained.network, config)
        quality.update(_measured(folder, dev_texts))
        save_writer(folder, trained.network, {**config, "quality": quality})
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        (folder / "README.md").write_text(writer_card(stored, note), encoding="utf-8")

    published_folder(out_dir, write)
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
) -> TrainedWriter:
    """Returns the network whose decoded programs have the best mean dev keep-F1 over the dev groups.

    Args:
        groups: (probability, pages) of each kind of text, for instance full text and main content.
        dev_groups: Pages of other domains, one group for each kind of text.
        shape: Sizes of the network.
        budget: Steps or minutes.
        seed: Seeds weights, windows and dropout; the caller's random state is left as it was.
        progress: Called with one line of text for each dev evaluation.

    Raises:
        ModelError: The loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WriterNetwork(shape)
        scalars = np.concatenate([e.features.scalars() for _, group in groups for e in group])
        network.encoder.scalar_mean.copy_(torch.from_numpy(scalars.mean(axis=0)))
        network.encoder.scalar_scale.copy_(torch.from_numpy(scalars.std(axis=0) + 1e-3))
        return _Training(network, groups, dev_groups, budget, np.random.default_rng(seed), progress).run()


def decoded_keep_f1(network: WriterNetwork, examples: Sequence[Example]) -> float:
    """Returns micro keep-F1 of the constrained programs of a network in eval mode, over pages of all tiers."""
    removed = [decoded_removal(network, example.features) for example in examples]
    return micro_scores([example.page for example in examples], removed).keep_f1


def decoded_removal(network: WriterNetwork, features: LineFeatures) -> npt.NDArray[np.bool_]:
    """Returns which lines the constrained programs of a page's windows remove."""
    removed = np.zeros(features.n_lines, dtype=np.bool_)
    decoder = ProgramDecoder(network, constrained=True, threshold=THRESHOLD)
    with torch.inference_mode():
        for begin, end in even_windows(features.n_lines, network.shape.lines.max_lines):
            lines = network.read(collate([features.window(begin, end)], network.shape.lines.n_buckets))
            rows = [token for token in decoder.write(lines)[0] if token >= 0]
            for first, last in zip(rows[::2], rows[1::2], strict=True):
                removed[begin + first : begin + last + 1] = True
    return removed


class _Training:
    """One training run."""

    def __init__(
        self,
        network: WriterNetwork,
        groups: Sequence[tuple[float, Sequence[Example]]],
        dev_groups: Sequence[Sequence[Example]],
        budget: Budget,
        rng: np.random.Generator,
        progress: Progress,
    ) -> None:
        self.network, self.groups, self.dev_groups = network, groups, dev_groups
        self.budget, self.rng, self.progress = budget, rng, progress
        self.shares = np.array([share for share, _ in groups]) / sum(share for share, _ in groups)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
        )
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.best: tuple[float, dict[str, Tensor]] = (-1.0, {})
        self.result = TrainedWriter(network)

    def run(self) -> TrainedWriter:
        step, seconds, checks, losses = 0, 0.0, 0, list[tuple[float, float]]()
        self.network.train()
        while (spent := self.budget.spent(step, seconds)) < 1:
            started = time.monotonic()
            losses.append(self._step(step, spent))
            step, seconds = step + 1, seconds + time.monotonic() - started
            due = ENCODER_SHARE + (1 - ENCODER_SHARE) * (checks + 1) / N_CHECKPOINTS
            if self.budget.spent(step, seconds) >= min(1.0, due):
                checks += 1
                self._check(step, losses)
                losses.clear()
        self.network.load_state_dict(self.best[1])
        self.network.eval()
        self.result.steps = step
        return self.result

    def _step(self, step: int, spent: float) -> tuple[float, float]:
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * max(0.02, 0.5 * (1 + math.cos(math.pi * spent)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        windows, labels = self._windows()
        lines = self.network.read(collate(windows, self.network.shape.lines.n_buckets), TOKEN_DROPOUT)
        loss = line_loss = _line_loss(lines, labels)
        if spent >= ENCODER_SHARE:
            opinions = lines.logits.detach().numpy()
            programs = [
                drawn_history(known, own[: len(known)], self.rng) for known, own in zip(labels, opinions, strict=True)
            ]
            loss = loss + _program_loss(self.network, lines, program_targets(programs, labels))
        if not torch.isfinite(loss):
            raise ModelError(
                f"training loss is {loss.item()!r} at step {step}; expected a finite number, lower the rate"
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(AVERAGING, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return float(line_loss.item()), float((loss - line_loss).item())

    def _windows(self) -> tuple[list[LineFeatures], list[npt.NDArray[np.int8]]]:
        windows, labels = [], []
        longest = self.network.shape.lines.max_lines
        for _ in range(WINDOWS_PER_STEP):
            group = self.groups[int(self.rng.choice(len(self.groups), p=self.shares))][1]
            example = group[int(self.rng.integers(len(group)))]
            wanted = min(longest, LONG_CROP_LINES if self.rng.random() < LONG_CROP_SHARE else CROP_LINES)
            n = min(example.features.n_lines, wanted)
            start = int(self.rng.integers(example.features.n_lines - n + 1))
            windows.append(example.features.window(start, start + n))
            labels.append(example.page.labels[start : start + n])
        return windows, labels

    def _check(self, step: int, losses: Sequence[tuple[float, float]]) -> None:
        scores = [decoded_keep_f1(self.average, group) for group in self.dev_groups]
        mean = float(np.mean(scores))
        of_lines, of_programs = np.mean(losses, axis=0).tolist()
        self.result.losses.append((of_lines, of_programs))
        self.progress(
            f"step {step}: loss of lines {of_lines:.3f} nats, of programs {of_programs:.3f} nats, dev keep-F1 of "
            "decoded programs " + ", ".join(f"{score:.3f}" for score in scores)
        )
        if mean > self.best[0]:
            self.best = (mean, {name: tensor.clone() for name, tensor in self.average.state_dict().items()})
            self.result.best_step = step


def _line_loss(lines: Lines, labels: Sequence[npt.NDArray[np.int8]]) -> Tensor:
    """Returns the mean binary cross-entropy of the line head over the lines whose label is known, in nats a line."""
    target = np.full(tuple(lines.padding.shape), -1.0, dtype=np.float32)
    for row, values in zip(target, labels, strict=True):
        row[: len(values)] = values
    target_BN = torch.from_numpy(target)
    known = target_BN >= 0
    # the sum over no line is 0, not nan: a batch of unsure lines only changes nothing
    loss = F.binary_cross_entropy_with_logits(lines.logits[known], target_BN[known], reduction="sum")
    return loss / max(1, int(known.sum()))


def _program_loss(network: WriterNetwork, lines: Lines, targets: ProgramTargets) -> Tensor:
    """Returns the loss of program tokens: of scans in nats a scanned line, of kinds and stop words in nats a token."""
    h_BTD, _ = network.decode(network.embed(targets.tokens, targets.ends_range, lines))
    total, count = torch.zeros(()), 0
    for ends_range in (False, True):
        scanned, stopping = targets.scanned[int(ends_range)], targets.stopping[int(ends_range)]
        energies_BTN = network.energies(h_BTD, lines, ends_range)
        total = total + F.binary_cross_entropy_with_logits(energies_BTN[scanned], stopping[scanned], reduction="sum")
        count += int(scanned.sum())
    # BEGIN is followed by something in every program, so neither of these means is over nothing
    kinds = F.cross_entropy(network.groups(h_BTD).flatten(0, 1), targets.groups.flatten(), ignore_index=-100)
    stops = F.cross_entropy(network.stop(h_BTD).flatten(0, 1), targets.stops.flatten(), ignore_index=-100)
    return total / max(1, count) + kinds + stops
