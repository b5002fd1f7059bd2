"""Training of the program writer's decoder over encoders that were trained before and stay as they are.

Encoders that learned with the decoder's loss judged lines of unseen domains worse (keep-F1 .800 instead of .849, one
fold), so the decoder gets their states, with their dropout on. AdamW with a cosine schedule, on windows cut from the
pages; a running mean of the weights is what is measured, and the checkpoint with the best keep-F1 of the *decoded*
programs on the dev pages wins, the latest of equal ones.

Shapes: B windows, N lines, T program tokens.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from corpusmill.prox.checkpointed_training import (
    Budget,
    CheckpointedTraining,
    LoopSettings,
    Progress,
    StateFolder,
    TrainingRecord,
)
from corpusmill.prox.line_features import LineFeatures
from corpusmill.prox.line_labeller import even_windows
from corpusmill.prox.line_network import collate
from corpusmill.prox.line_scores import micro_scores
from corpusmill.prox.line_training import Example
from corpusmill.prox.writer_decoding import ProgramDecoder
from corpusmill.prox.writer_network import Lines, WriterNetwork
from corpusmill.prox.writer_targets import ProgramTargets, drawn_history, program_targets

WINDOWS_PER_STEP = 8
LEARNING_RATE, WARMUP_STEPS = 1e-3, 20
TOKEN_DROPOUT = 0.3
CROP_LINES, LONG_CROP_LINES, LONG_CROP_SHARE = 256, 400, 0.3
N_CHECKPOINTS = 4
CORRECTION_WEIGHT = 0.3
"""Weight of the decoder's correction at decoding, see `writer_network`; in training it is 1."""


def train_decoder(
    network: WriterNetwork,
    groups: Sequence[tuple[float, Sequence[Example]]],
    dev_groups: Sequence[Sequence[Example]],
    threshold: float,
    budget: Budget,
    seed: int,
    progress: Progress,
    state: StateFolder | None = None,
) -> TrainingRecord:
    """Trains the decoder of a network in place; the network is in eval mode afterwards.

    Args:
        network: With trained encoders.
        groups: (probability, pages) of each kind of text, for instance full text and main content.
        dev_groups: Pages of other domains, one group for each kind of text.
        threshold: Probability at which programs are decoded for the dev scores.
        budget: Steps or minutes.
        seed: Seeds windows, histories and dropout; the caller's random state is left as it was.
        progress: Called with one line of text for each dev evaluation.
        state: Where a killed training goes on from; None keeps nothing.

    Raises:
        ModelError: The loss is not finite.
    """
    network.encoders.requires_grad_(False)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _DecoderTraining(network, groups, dev_groups, threshold, rng, progress, state).run(budget)


def decoded_keep_f1(network: WriterNetwork, threshold: float, examples: Sequence[Example]) -> float:
    """Returns micro keep-F1 of the programs that a network in eval mode writes under the grammar, all tiers."""
    removed = [decoded_removal(network, threshold, example.features) for example in examples]
    return micro_scores([example.page for example in examples], removed).keep_f1


def decoded_removal(network: WriterNetwork, threshold: float, features: LineFeatures) -> npt.NDArray[np.bool_]:
    """Returns which lines the programs of a page's windows remove."""
    removed = np.zeros(features.n_lines, dtype=np.bool_)
    decoder = ProgramDecoder(network, constrained=True, threshold=threshold, weight=CORRECTION_WEIGHT)
    with torch.inference_mode():
        for begin, end in even_windows(features.n_lines, network.shape.lines.max_lines):
            lines = network.read(collate([features.window(begin, end)], network.shape.lines.n_buckets))
            rows = [token for token in decoder.write(lines)[0] if token >= 0]
            for first, last in zip(rows[::2], rows[1::2], strict=True):
                removed[begin + first : begin + last + 1] = True
    return removed


class _DecoderTraining(CheckpointedTraining[WriterNetwork]):
    """One training run."""

    def __init__(
        self,
        network: WriterNetwork,
        groups: Sequence[tuple[float, Sequence[Example]]],
        dev_groups: Sequence[Sequence[Example]],
        threshold: float,
        rng: np.random.Generator,
        progress: Progress,
        state: StateFolder | None,
    ) -> None:
        measure = "dev keep-F1 of decoded programs"
        settings = LoopSettings(
            "decoder", LEARNING_RATE, WARMUP_STEPS, N_CHECKPOINTS, "nats", measure, latest_of_equal=True
        )
        super().__init__(network, settings, rng, progress, state)
        self.groups, self.dev_groups, self.threshold = groups, dev_groups, threshold
        self.shares = np.array([share for share, _ in groups]) / sum(share for share, _ in groups)

    def loss(self) -> Tensor:
        windows, labels = self._windows()
        lines = self.network.read(collate(windows, self.network.shape.lines.n_buckets), TOKEN_DROPOUT)
        opinions = lines.logits.detach().numpy()
        programs = [
            drawn_history(known, own[: len(known)], self.rng) for known, own in zip(labels, opinions, strict=True)
        ]
        return program_loss(self.network, lines, program_targets(programs, labels))

    def dev_scores(self) -> list[float]:
        return [decoded_keep_f1(self.average, self.threshold, group) for group in self.dev_groups]

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


def program_loss(network: WriterNetwork, lines: Lines, targets: ProgramTargets) -> Tensor:
    """Returns the loss of program tokens: of scans in nats a scanned line, of kinds and stop words in nats a token."""
    h_BTD, _ = network.decode(network.embed(targets.tokens, targets.ends_range, lines))
    total, count = torch.zeros(()), 0
    for ends_range in (False, True):
        scanned, stopping = targets.scanned[int(ends_range)], targets.stopping[int(ends_range)]
        energies_BTN = network.energies(h_BTD, lines, ends_range)
        # the sum over no line is 0, not nan: windows of unsure lines only teach kinds and stop words
        total = total + F.binary_cross_entropy_with_logits(energies_BTN[scanned], stopping[scanned], reduction="sum")
        count += int(scanned.sum())
    # BEGIN is followed by something in every program, so neither of these means is over nothing
    kinds = F.cross_entropy(network.groups(h_BTD).flatten(0, 1), targets.groups.flatten(), ignore_index=-100)
    stops = F.cross_entropy(network.stop(h_BTD).flatten(0, 1), targets.stops.flatten(), ignore_index=-100)
    return total / max(1, count) + kinds + stops
