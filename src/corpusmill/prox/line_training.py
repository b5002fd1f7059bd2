"""Training of the line networks of a labeller: from labelled pages to an ensemble of best dev checkpoints.

What is trained: binary cross-entropy on each line's removal, unsure lines left out, AdamW with a cosine schedule, on
windows cut from the pages (full text, and main-content text where the crawls are at hand), because the product refines
both. Part of the windows is spliced: one page's menus and footers around another page's article, so that few hundred
pages teach many layouts. Of each member the checkpoint with the best mean keep-F1 on the dev pages is kept, and the
threshold of the ensemble is chosen there too. For a fixed number of steps and a seed the weights are the same on every
run of one machine. What each part is worth: docs/how-to/refiner-quality.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from corpusmill.prox.checkpointed_training import (
    Budget,
    CheckpointedTraining,
    LoopSettings,
    Progress,
    StateFolder,
    TrainingRecord,
)
from corpusmill.prox.labelled_pages import KEEP, LabelledPage, page_with_text
from corpusmill.prox.line_features import LineFeatures, joined_features, line_features
from corpusmill.prox.line_labeller import line_probabilities
from corpusmill.prox.line_network import LineNetwork, NetworkShape, collate
from corpusmill.prox.line_scores import micro_scores

WINDOWS_PER_STEP = 8
LEARNING_RATE, WARMUP_STEPS = 2e-3, 50
TOKEN_DROPOUT = 0.3
CROP_LINES, LONG_CROP_LINES, LONG_CROP_SHARE = 256, 400, 0.3
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


@dataclass(frozen=True)
class Example:
    """A page without its blank lines and its features.

    Attributes:
        page: The page, every line with text.
        features: Features of its lines.
    """

    page: LabelledPage
    features: LineFeatures


@dataclass
class TrainedNetwork:
    """A network with its best weights.

    Attributes:
        network: In eval mode.
        record: How it was trained.
    """

    network: LineNetwork
    record: TrainingRecord = field(default_factory=TrainingRecord)


def examples_of(pages: Sequence[LabelledPage]) -> list[Example]:
    """Returns the pages that have a line with text, with their features."""
    texts = [page_with_text(page) for page in pages]
    return [Example(page, line_features(page.lines)) for page in texts if page.lines]


def member_budgets(budget: Budget) -> list[Budget]:
    """Returns an even budget for each member of the ensemble that a budget pays for; at least one."""
    if budget.steps is not None:
        n = _members(budget.steps / MEMBER_STEPS)
        return [Budget(budget.steps // n + (i < budget.steps % n), None) for i in range(n)]
    minutes = budget.minutes or 0.0
    n = _members(minutes / MEMBER_MINUTES)
    return [Budget(None, minutes / n, LONGEST_MEMBER)] * n


def _members(size: float) -> int:
    return min(MAX_MEMBERS, max(1, int(size + 1e-9)))


def train_ensemble(
    groups: Sequence[tuple[float, Sequence[Example]]],
    dev_groups: Sequence[Sequence[Example]],
    shape: NetworkShape,
    budget: Budget,
    seed: int,
    progress: Progress,
    state: StateFolder | None = None,
) -> tuple[list[TrainedNetwork], float]:
    """Returns as many members as the budget pays for, and the threshold with the best mean dev keep-F1.

    Takes what `train_network` takes; the first member is what that returns for the member's budget.
    """
    parts, members = member_budgets(budget), []
    for i, part in enumerate(parts):
        name = f"member {i + 1} of {len(parts)}" if len(parts) > 1 else "network"
        members.append(train_network(groups, dev_groups, shape, part, seed + _SEED_STEP * i, progress, name, state))
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
    name: str = "network",
    state: StateFolder | None = None,
) -> TrainedNetwork:
    """Returns the network with the best mean dev keep-F1 over the dev groups.

    Args:
        groups: (probability, pages) of each kind of text, for instance full text and main content.
        dev_groups: Pages of other domains, one group for each kind of text.
        shape: Sizes of the network.
        budget: Steps or minutes.
        seed: Seeds weights, windows and dropout; the caller's random state is left as it was.
        progress: Called with one line of text for each dev evaluation.
        name: What it is called in messages and in its state.
        state: Where a killed training goes on from; None keeps nothing.

    Raises:
        ModelError: The loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LineNetwork(shape)
        scalars = np.concatenate([e.features.scalars() for _, group in groups for e in group])
        network.scalar_mean.copy_(torch.from_numpy(scalars.mean(axis=0)))
        network.scalar_scale.copy_(torch.from_numpy(scalars.std(axis=0) + 1e-3))
        training = _LineTraining(network, groups, dev_groups, name, np.random.default_rng(seed), progress, state)
        return TrainedNetwork(network, training.run(budget))


class _LineTraining(CheckpointedTraining[LineNetwork]):
    """One training run."""

    def __init__(
        self,
        network: LineNetwork,
        groups: Sequence[tuple[float, Sequence[Example]]],
        dev_groups: Sequence[Sequence[Example]],
        name: str,
        rng: np.random.Generator,
        progress: Progress,
        state: StateFolder | None,
    ) -> None:
        settings = LoopSettings(name, LEARNING_RATE, WARMUP_STEPS, N_CHECKPOINTS, "nats a line", "dev keep-F1")
        super().__init__(network, settings, rng, progress, state)
        self.groups, self.dev_groups = groups, dev_groups
        self.shares = np.array([share for share, _ in groups]) / sum(share for share, _ in groups)
        self.chances = [_chances(group) for _, group in groups]

    def loss(self) -> torch.Tensor:
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
        return loss / max(1, int(known.sum()))

    def dev_scores(self) -> list[float]:
        return [keep_f1(self.average, group) for group in self.dev_groups]

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
