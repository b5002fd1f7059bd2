"""The training loop of the networks that judge lines: best of some dev evaluations, and no step lost twice to a kill.

AdamW with a warm-up and a cosine schedule over a budget of steps or time. A running mean of the weights is what is
measured on the dev pages, a few times over the run, and the best one is kept. After each evaluation the whole state may
be written to a file, from which a process that was killed goes on; for a budget of steps the weights are then those of
a run that nothing disturbed, bit for bit.
"""

import copy
import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from corpusmill import __version__
from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.labelled_pages import LabelledPage, pages_digest

WEIGHT_DECAY, BETAS = 0.05, (0.9, 0.98)
CLIP = 1.0
LEAST_RATE = 0.02
"""Share of the learning rate at the end of the schedule."""
AVERAGING = 0.99
"""Decay a step of the running mean of the weights; dev pages are scored with the mean, which is far less noisy."""
_WRITE_TRIES = 3
"""Further tries to write state into a folder that others remove."""
Progress = Callable[[str], None]
Network = TypeVar("Network", bound=nn.Module)


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


@dataclass(frozen=True)
class StateFolder:
    """Where the trainings of one model keep their state.

    Attributes:
        folder: The folder; made where it is missing.
        identity: Fingerprint of data and settings; state of another one is left aside.
    """

    folder: Path
    identity: str

    def read(self, name: str, progress: Progress) -> dict[str, Any] | None:
        """Returns the state of one training, None where there is none that can be used."""
        path = self.folder / f"{name}.pt"
        if not path.is_file():
            return None
        try:
            state: Any = torch.load(path, weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises several types for a damaged file
            progress(f"{path.name} cannot be read ({error}): {name} starts again")
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            progress(f"{path.name} is of other data or settings: {name} starts again")
            return None
        return state

    def write(self, name: str, state: dict[str, Any]) -> None:
        """Replaces the state of one training at once: a kill leaves the old one or the new one.

        Other processes may train the same model at the same time, and remove the folder when they are done.
        """
        for _ in range(_WRITE_TRIES):
            try:
                self._write(name, state)
                return
            except FileNotFoundError:  # another process has just removed the folder
                continue
        self._write(name, state)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f"{name}.{secrets.token_hex(8)}.tmp"
        try:
            with scratch.open("wb") as file:
                torch.save({**state, "identity": self.identity}, file)
            os.replace(scratch, self.folder / f"{name}.pt")
        finally:
            scratch.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes everything; called when the model stands."""
        shutil.rmtree(self.folder, ignore_errors=True)


def state_beside(
    model_folder: Path, texts: Sequence[Sequence[LabelledPage]], settings: Sequence[object]
) -> StateFolder:
    """Returns where the training of a model folder keeps its state: a hidden folder beside it.

    Args:
        model_folder: The folder that will be written.
        texts: All that is trained on and measured; known by lines, labels and tier.
        settings: What else decides the weights, serialisable as JSON; the code of this package is always part of it.
    """
    code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path(__file__).parent.glob("*.py"))]
    identity = fingerprint([*settings, [pages_digest(pages) for pages in texts], code, __version__, torch.__version__])
    return StateFolder(model_folder.with_name(f".{model_folder.name}.training"), identity)


@dataclass(frozen=True)
class LoopSettings:
    """What differs between trainings.

    Attributes:
        name: Of the training, in messages and as the name of its state.
        learning_rate: Largest rate, after the warm-up.
        warmup_steps: Steps over which the rate rises.
        n_checkpoints: Dev evaluations over a run.
        unit: What the loss is counted in.
        measure: What the dev evaluation measures.
        latest_of_equal: Of equally good checkpoints the latest is kept, else the first.
    """

    name: str
    learning_rate: float
    warmup_steps: int
    n_checkpoints: int
    unit: str
    measure: str
    latest_of_equal: bool = False


@dataclass
class TrainingRecord:
    """What happened in a training run.

    Attributes:
        steps: Steps that were run in all.
        best_step: Step of the checkpoint.
        losses: Mean training loss (nats) up to each evaluation, in order.
        resumed_at: Step that this process went on from, 0 for a fresh start.
    """

    steps: int = 0
    best_step: int = 0
    losses: list[float] = field(default_factory=list)
    resumed_at: int = 0


class CheckpointedTraining(Generic[Network]):
    """One training run of a network; subclasses say what a step's loss is and what the dev pages measure.

    Args:
        network: Trained in place, but for parameters that need no gradient; in eval mode with the best weights at the
            end.
        settings: Rates and names.
        rng: Draws the data of each step.
        progress: Called with one line of text for each dev evaluation.
        state: Where the state is kept; None keeps none.
    """

    def __init__(
        self,
        network: Network,
        settings: LoopSettings,
        rng: np.random.Generator,
        progress: Progress,
        state: StateFolder | None,
    ) -> None:
        self.network, self.settings, self.rng, self.progress, self.state = network, settings, rng, progress, state
        self.learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.learned, lr=settings.learning_rate, weight_decay=WEIGHT_DECAY, betas=BETAS
        )
        self.average = copy.deepcopy(network).eval()
        both = zip(self.average.parameters(), network.parameters(), strict=True)
        self.means = [mean for mean, now in both if now.requires_grad]
        self.average.requires_grad_(False)
        self.best: tuple[float, dict[str, Tensor]] = (-1.0, {})
        self.record = TrainingRecord()
        self.seconds = 0.0

    def loss(self) -> Tensor:
        """Returns the loss of one step, a scalar in nats; draws its data from `rng`."""
        raise NotImplementedError

    def dev_scores(self) -> list[float]:
        """Returns a score of the running mean for each group of dev pages, in [0, 1], larger is better."""
        raise NotImplementedError

    def run(self, budget: Budget) -> TrainingRecord:
        """Trains until the budget is spent; goes on from the stored state where there is one.

        Raises:
            ModelError: The loss is not finite.
        """
        self._resume()
        losses: list[float] = []
        self.network.train()
        while (spent := budget.spent(self.record.steps, self.seconds)) < 1:
            started = time.monotonic()
            losses.append(self._step(spent))
            self.record.steps += 1
            self.seconds += time.monotonic() - started
            due = min(1.0, (len(self.record.losses) + 1) / self.settings.n_checkpoints)
            if budget.spent(self.record.steps, self.seconds) >= due:
                self._check(losses)
                losses.clear()
        self.network.load_state_dict(self.best[1])
        self.network.eval()
        return self.record

    def _step(self, spent: float) -> float:
        step, settings = self.record.steps, self.settings
        falling = max(LEAST_RATE, 0.5 * (1 + math.cos(math.pi * spent)))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / settings.warmup_steps) * falling
        loss = self.loss()
        if not torch.isfinite(loss):
            raise ModelError(
                f"training loss is {loss.item()!r} at step {step}; expected a finite number, lower the rate"
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learned, CLIP)
        self.optimizer.step()
        decay = min(AVERAGING, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(self.means, self.learned, strict=True):
                mean.lerp_(now, 1 - decay)
        return float(loss.item())

    def _check(self, losses: Sequence[float]) -> None:
        scores, record = self.dev_scores(), self.record
        record.losses.append(float(np.mean(losses)))
        self.progress(
            f"{self.settings.name} step {record.steps}: loss {record.losses[-1]:.3f} {self.settings.unit}, "
            f"{self.settings.measure} " + ", ".join(f"{score:.3f}" for score in scores)
        )
        mean = float(np.mean(scores))
        if mean > self.best[0] or (self.settings.latest_of_equal and mean == self.best[0]):
            self.best = (mean, {name: tensor.clone() for name, tensor in self.average.state_dict().items()})
            record.best_step = record.steps
        if self.state is not None:
            self.state.write(self.settings.name, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_score": self.best[0],
            "best": self.best[1],
            "best_step": self.record.best_step,
            "losses": self.record.losses,
            "steps": self.record.steps,
            "seconds": self.seconds,
            "torch_random": torch.get_rng_state(),
            "numpy_random": json.dumps(self.rng.bit_generator.state),
        }

    def _resume(self) -> None:
        stored = None if self.state is None else self.state.read(self.settings.name, self.progress)
        if stored is None:
            return
        untouched = copy.deepcopy(self._state())
        try:
            self._take(stored)
        except Exception as error:  # noqa: BLE001 - torch and numpy raise several types for state that does not fit
            self._take(untouched)
            self.progress(f"the state does not fit ({error}): {self.settings.name} starts again")
            return
        self.progress(f"{self.settings.name} goes on from step {self.record.steps}")

    def _take(self, state: dict[str, Any]) -> None:
        """Puts everything into the state that `_state` gave; where it raises, some parts may be changed already."""
        self.network.load_state_dict(state["network"])
        if state["best"]:
            self.average.load_state_dict(state["best"])  # found out now and not at the end that it does not fit
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = (state["best_score"], state["best"])
        self.record = TrainingRecord(state["steps"], state["best_step"], state["losses"], state["steps"])
        self.seconds = state["seconds"]
        torch.set_rng_state(state["torch_random"])
        self.rng.bit_generator.state = json.loads(state["numpy_random"])
