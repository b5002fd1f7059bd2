"""Training of the line network: from labelled pages to the best dev checkpoint.

What is trained: binary cross-entropy on each line's removal, unsure lines left out, AdamW with a cosine schedule, on
windows cut from the pages (full text, and main-content text where the crawls are at hand), because the product refines
both. The checkpoint with the best mean keep-F1 on the dev pages is kept. For a fixed number of steps and a seed the
weights are the same on every run of one machine.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.labelled_pages import LabelledPage, page_with_text
from corpusmill.prox.line_features import LineFeatures, line_features
from corpusmill.prox.line_labeller import line_probabilities
from corpusmill.prox.line_network import LineNetwork, NetworkShape, collate
from corpusmill.prox.line_scores import micro_scores

WINDOWS_PER_STEP = 8
LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 2e-3, 0.05, 50
TOKEN_DROPOUT = 0.3
CROP_LINES, LONG_CROP_LINES, LONG_CROP_SHARE = 256, 400, 0.3
AVERAGING = 0.99
"""Decay a step of the running mean of the weights; dev pages are scored with the mean, which is far less noisy."""
N_CHECKPOINTS = 6
"""Dev evaluations over a training run; the best one's weights are kept."""
THRESHOLD = 0.5
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Example:
    """A page without its blank lines and its features.

    Attributes:
        page: The page, every line with text.
        features: Features of its lines.
    """

    page: LabelledPage
    features: LineFeatures


@dataclass(frozen=True)
class Budget:
    """How long to train: a fixed number of steps (reproducible) or a wall-clock time.

    Attributes:
        steps: Number of optimiser steps, or None.
        minutes: Minutes of training without the dev evaluations, or None.
    """

    steps: int | None
    minutes: float | None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.minutes) if value is not None]
        if len(given) != 1 or not 0 < given[0] < float("inf"):
            raise ConfigError(f"steps={self.steps!r}, minutes={self.minutes!r}: expected exactly one of them, above 0")

    def spent(self, step: int, seconds: float) -> float:
        """Returns the share of the budget that is used up, 1 or more at the end."""
        return step / self.steps if self.steps is not None else seconds / (60.0 * float(self.minutes or 0.0))


@dataclass
class TrainedNetwork:
    """The best checkpoint of a run.

    Attributes:
        network: In eval mode.
        steps: Steps that were run in all.
        best_step: Step of the checkpoint.
        losses: Mean training loss (nats a line) up to each evaluation, in order.
    """

    network: LineNetwork
    steps: int = 0
    best_step: int = 0
    losses: list[float] = field(default_factory=list)


def examples_of(pages: Sequence[LabelledPage]) -> list[Example]:
    """Returns the pages that have a line with text, with their features."""
    texts = [page_with_text(page) for page in pages]
    return [Example(page, line_features(page.lines)) for page in texts if page.lines]


def train_network(
    groups: Sequence[tuple[float, Sequence[Example]]],
    dev_groups: Sequence[Sequence[Example]],
    shape: NetworkShape,
    budget: Budget,
    seed: int,
    progress: Progress,
) -> TrainedNetwork:
    """Returns the network with the best mean dev keep-F1 over the dev groups.

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
        network = LineNetwork(shape)
        scalars = np.concatenate([e.features.scalars() for _, group in groups for e in group])
        network.scalar_mean.copy_(torch.from_numpy(scalars.mean(axis=0)))
        network.scalar_scale.copy_(torch.from_numpy(scalars.std(axis=0) + 1e-3))
        return _Training(network, groups, dev_groups, budget, np.random.default_rng(seed), progress).run()


class _Training:
    """One training run."""

    def __init__(
        self,
        network: LineNetwork,
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
        self.best: tuple[float, dict[str, torch.Tensor]] = (-1.0, {})
        self.result = TrainedNetwork(network)

    def run(self) -> TrainedNetwork:
        step, seconds, checks, losses = 0, 0.0, 0, list[float]()
        self.network.train()
        while (spent := self.budget.spent(step, seconds)) < 1:
            started = time.monotonic()
            losses.append(self._step(step, spent))
            step, seconds = step + 1, seconds + time.monotonic() - started
            if self.budget.spent(step, seconds) >= min(1.0, (checks + 1) / N_CHECKPOINTS):
                checks += 1
                self._check(step, losses)
                losses.clear()
        self.network.load_state_dict(self.best[1])
        self.network.eval()
        self.result.steps = step
        return self.result

    def _step(self, step: int, spent: float) -> float:
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * max(0.02, 0.5 * (1 + math.cos(math.pi * spent)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        windows, labels = self._windows()
        batch = collate(windows, self.network.shape.n_buckets)
        target = np.full(tuple(batch.padding.shape), -1.0, dtype=np.float32)
        for row, values in zip(target, labels, strict=True):
            row[: len(values)] = values
        target_BN = torch.from_numpy(target)
        known = target_BN >= 0
        logits_BN = self.network(batch, TOKEN_DROPOUT)
        # the sum over no line is 0, not nan: a batch of unsure lines only changes nothing
        loss = F.binary_cross_entropy_with_logits(logits_BN[known], target_BN[known], reduction="sum")
        loss = loss / max(1, int(known.sum()))
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
        return float(loss.item())

    def _windows(self) -> tuple[list[LineFeatures], list[npt.NDArray[np.int8]]]:
        windows, labels = [], []
        longest = self.network.shape.max_lines
        for _ in range(WINDOWS_PER_STEP):
            group = self.groups[int(self.rng.choice(len(self.groups), p=self.shares))][1]
            example = group[int(self.rng.integers(len(group)))]
            wanted = min(longest, LONG_CROP_LINES if self.rng.random() < LONG_CROP_SHARE else CROP_LINES)
            n = min(example.features.n_lines, wanted)
            start = int(self.rng.integers(example.features.n_lines - n + 1))
            windows.append(example.features.window(start, start + n))
            labels.append(example.page.labels[start : start + n])
        return windows, labels

    def _check(self, step: int, losses: Sequence[float]) -> None:
        scores = [keep_f1(self.average, group) for group in self.dev_groups]
        mean = float(np.mean(scores))
        self.result.losses.append(float(np.mean(losses)))
        self.progress(
            f"step {step}: loss {np.mean(losses):.3f} nats a line, dev keep-F1 "
            + ", ".join(f"{score:.3f}" for score in scores)
        )
        if mean > self.best[0]:
            self.best = (mean, {name: tensor.clone() for name, tensor in self.average.state_dict().items()})
            self.result.best_step = step


def keep_f1(network: LineNetwork, examples: Sequence[Example]) -> float:
    """Returns micro keep-F1 of a network in eval mode over pages of all tiers, at the default threshold."""
    removed = [line_probabilities(network, e.features) >= THRESHOLD for e in examples]
    return micro_scores([e.page for e in examples], removed).keep_f1
