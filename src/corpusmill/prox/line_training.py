"""Training of the line networks of a labeller: from labelled pages to an ensemble of best dev checkpoints.

What is trained: binary cross-entropy on each line's removal, unsure lines left out, AdamW with a cosine schedule, on
windows cut from the pages (full text, and main-content text where the crawls are at hand), because the product refines
both. Part of the windows is spliced: one page's menus and footers around another page's article, so that few hundred
pages teach many layouts. Of each member the checkpoint with the best mean keep-F1 on the dev pages is kept, and the
threshold of the ensemble is chosen there too. For a fixed number of steps and a seed the weights are the same on every
run of one machine. What each part is worth: docs/how-to/refiner-quality.md.
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
from corpusmill.prox.labelled_pages import KEEP, LabelledPage, page_with_text
from corpusmill.prox.line_features import LineFeatures, joined_features, line_features
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
"""Removal probability at which checkpoints are compared."""
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
"""What the stored threshold is chosen from, on the dev pages."""
HUMAN_WEIGHT = 2.0
"""How often a page of tier "human" is drawn, beside 1 for the others."""
SPLICED_SHARE = 0.4
"""Share of windows that hold another page's article."""
MEMBER_STEPS, MEMBER_MINUTES, MAX_MEMBERS = 200, 3.0, 3
"""An ensemble has a member for each of so many steps or minutes; each one costs its time again when it is run."""
LONGEST_MEMBER = 300
"""Steps of a member where only time is given: cross-validated keep-F1 is highest at 100 steps and falls slowly after
that, so an idle machine ends early instead of training on."""
_SEED_STEP = 10_007
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
        at_most: With minutes: steps after which training ends even where time is left.
    """

    steps: int | None
    minutes: float | None
    at_most: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.steps, self.minutes) if value is not None]
        if len(given) != 1 or not 0 < given[0] < float("inf"):
            raise ConfigError(f"steps={self.steps!r}, minutes={self.minutes!r}: expected exactly one of them, above 0")

    def spent(self, step: int, seconds: float) -> float:
        """Returns the share of the budget that is used up, 1 or more at the end."""
        if self.steps is not None:
            return step / self.steps
        time_spent = seconds / (60.0 * float(self.minutes or 0.0))
        return time_spent if self.at_most is None else max(time_spent, step / self.at_most)

    def members(self) -> list["Budget"]:
        """Returns an even budget for each member of the ensemble that this one pays for; at least one."""
        size = (self.steps or 0) / MEMBER_STEPS if self.steps is not None else (self.minutes or 0.0) / MEMBER_MINUTES
        n = min(MAX_MEMBERS, max(1, int(size + 1e-9)))
        if self.steps is None:
            return [Budget(None, (self.minutes or 0.0) / n, LONGEST_MEMBER)] * n
        return [Budget(self.steps // n + (i < self.steps % n), None) for i in range(n)]


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


def train_ensemble(
    groups: Sequence[tuple[float, Sequence[Example]]],
    dev_groups: Sequence[Sequence[Example]],
    shape: NetworkShape,
    budget: Budget,
    seed: int,
    progress: Progress,
) -> tuple[list[TrainedNetwork], float]:
    """Returns as many members as the budget pays for, and the threshold with the best mean dev keep-F1.

    Takes what `train_network` takes; the first member is what that returns for the member's budget.
    """
    members = []
    for i, part in enumerate(parts := budget.members()):
        if len(parts) > 1:
            progress(f"member {i + 1} of {len(parts)}")
        members.append(train_network(groups, dev_groups, shape, part, seed + _SEED_STEP * i, progress))
    networks = [member.network for member in members]
    dev = [([e.page for e in group], [line_probabilities(networks, e.features) for e in group]) for group in dev_groups]
    return members, best_threshold(dev)


def best_threshold(groups: Sequence[tuple[Sequence[LabelledPage], Sequence[npt.NDArray[np.float64]]]]) -> float:
    """Returns the threshold of `THRESHOLDS` with the best keep-F1, mean over groups and smoothed over neighbours.

    Args:
        groups: Pages, and p(remove) of each one's lines.
    """
    scores = np.zeros(len(THRESHOLDS))
    for pages, p in groups:
        scores += [micro_scores(pages, [row >= threshold for row in p]).keep_f1 for threshold in THRESHOLDS]
    padded = np.pad(scores, 1, mode="edge")
    smooth = padded[:-2] + padded[1:-1] + padded[2:]
    best = np.flatnonzero(np.isclose(smooth, smooth.max()))
    # of equally good ones the one nearest to even odds
    return min((THRESHOLDS[i] for i in best), key=lambda threshold: abs(threshold - THRESHOLD))


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
        self.chances = [_chances(group) for _, group in groups]
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
            group = int(self.rng.choice(len(self.groups), p=self.shares))
            example = self._draw(group)
            features, marks = example.features, example.page.labels
            if self.rng.random() < SPLICED_SHARE:
                features, marks = spliced(example, self._draw(group))
            wanted = min(longest, LONG_CROP_LINES if self.rng.random() < LONG_CROP_SHARE else CROP_LINES)
            n = min(features.n_lines, wanted)
            start = int(self.rng.integers(features.n_lines - n + 1))
            windows.append(features.window(start, start + n))
            labels.append(marks[start : start + n])
        return windows, labels

    def _draw(self, group: int) -> Example:
        examples = self.groups[group][1]
        return examples[int(self.rng.choice(len(examples), p=self.chances[group]))]

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


def _chances(examples: Sequence[Example]) -> npt.NDArray[np.float64]:
    weights = np.array([HUMAN_WEIGHT if example.page.tier == "human" else 1.0 for example in examples])
    return weights / weights.sum()


def spliced(page: Example, other: Example) -> tuple[LineFeatures, npt.NDArray[np.int8]]:
    """Returns features and labels of a page with another page's article in the place of its own.

    An article is everything from the first kept line to the last one; a page without one stays as it is.
    """
    ours, theirs = _article(page.page.labels), _article(other.page.labels)
    if ours is None or theirs is None:
        return page.features, page.page.labels
    n = page.features.n_lines
    parts = [page.features.window(0, ours[0]), other.features.window(*theirs), page.features.window(ours[1], n)]
    labels = [page.page.labels[: ours[0]], other.page.labels[slice(*theirs)], page.page.labels[ours[1] :]]
    return joined_features(parts), np.concatenate(labels)


def _article(labels: npt.NDArray[np.int8]) -> tuple[int, int] | None:
    kept = np.flatnonzero(labels == KEEP)
    return (int(kept[0]), int(kept[-1]) + 1) if len(kept) else None


def keep_f1(network: LineNetwork, examples: Sequence[Example]) -> float:
    """Returns micro keep-F1 of a network in eval mode over pages of all tiers, at the default threshold."""
    removed = [line_probabilities(network, e.features) >= THRESHOLD for e in examples]
    return micro_scores([e.page for e in examples], removed).keep_f1
