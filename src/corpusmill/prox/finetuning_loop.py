"""The fine-tuning loop: loss on programs only, cosine schedule, best checkpoint by validation, resume after a kill.

A checkpoint holds weights, optimiser, random state, loss curve, time spent and the best score; the order of the data
follows from seed and step. So a run that was killed goes on with the loss curve it would have had.

Shapes: B examples, T tokens, P places whose next token is part of a program, V vocabulary.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from corpusmill.errors import ModelError
from corpusmill.modeling.halving import free_memory, is_out_of_memory
from corpusmill.modeling.token_batches import pad_right, plan_batches
from corpusmill.prox.checkpointed_training import Budget
from corpusmill.prox.finetuning_examples import TrainingSequence
from corpusmill.prox.finetuning_mix import Mix
from corpusmill.prox.finetuning_settings import PRETRAINED_RATE, SCRATCH_RATE, FinetuningSettings
from corpusmill.prox.finetuning_validation import Score

CHECKPOINT, BEST = "training_state.pt", "best-{step}"
BETAS = (0.9, 0.999)
Progress = Callable[[str], None]


@dataclass
class FinetuningRun:
    """What a run did so far.

    Attributes:
        losses: Training loss of each step, nats per program token, the first token weighted.
        seconds: Time in steps; evaluations and checkpoints are not counted.
        n_evaluations: Evaluations done.
        best: F1 and minus the mean loss since the evaluation before, of the best checkpoint; None before the first.
        best_step: Its step.
        best_measures: Its measures.
        history: (step, F1) of each evaluation.
        resumed_at: Step that this process went on from, 0 for a fresh start.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    n_evaluations: int = 0
    best: tuple[float, float] | None = None
    best_step: int = 0
    best_measures: dict[str, Any] = field(default_factory=dict)
    history: list[tuple[int, float]] = field(default_factory=list)
    resumed_at: int = 0


@dataclass(frozen=True)
class LoopPlan:
    """What a run is told.

    Attributes:
        budget: Steps or minutes.
        settings: How to train.
        seed: Of dropout; the data order has its own.
        is_new: Whether the base starts from random weights.
        identity: Fingerprint of data, base and settings: a checkpoint of another one is refused.
    """

    budget: Budget
    settings: FinetuningSettings
    seed: int
    is_new: bool
    identity: str

    def rate_at(self, step: int, spent: float) -> float:
        """Returns the learning rate of a step, counted from 0, at a share of the budget."""
        settings = self.settings
        peak = settings.learning_rate or (SCRATCH_RATE if self.is_new else PRETRAINED_RATE)
        warm = min(1.0, (step + 1) / (settings.warmup_steps + 1))
        floor = settings.final_share
        return peak * warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, spent))))


def program_loss(model: Any, batch: Sequence[TrainingSequence], first_weight: float) -> tuple[torch.Tensor, float]:
    """Returns the weighted sum of the losses of all program tokens, in nats, and the sum of the weights.

    Prompts are padded on the right, where a causal model cannot see it. A hook in front of the output layer takes the
    places in front of program tokens, so the vocabulary is multiplied a few times an example and not once a token.
    """
    device = next(model.parameters()).device
    ids_BT, _ = pad_right([sequence.prompt + sequence.target for sequence in batch])
    rows: list[int] = []
    places: list[int] = []
    tokens: list[int] = []
    weights: list[float] = []
    for row, sequence in enumerate(batch):
        n_prompt, n_target = len(sequence.prompt), len(sequence.target)
        rows += [row] * n_target
        places += range(n_prompt - 1, n_prompt + n_target - 1)
        tokens += sequence.target
        weights += [first_weight] + [1.0] * (n_target - 1)

    def take_places(_head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][rows, places][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take_places)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_1PV = model(input_ids=ids_BT.to(device), use_cache=False).logits
    finally:
        hook.remove()
    loss_P = F.cross_entropy(logits_1PV[0].float(), torch.tensor(tokens, device=device), reduction="none")
    weight_P = torch.tensor(weights, device=device)
    return (loss_P * weight_P).sum(), float(sum(weights))


class Finetuning:
    """One run of the loop.

    Args:
        model: Trained where it lies.
        sequences: Training examples.
        mix: Their order.
        plan: How to train.
        state_dir: Folder of the checkpoint and of the best model.
        save: Writes the model into a folder that does not exist, for validation and publication.
        validate: Scores such a folder.
        progress: Called with one line of text for each evaluation and for each resumption.

    Raises:
        ModelError: The checkpoint is damaged or of another run.
    """

    def __init__(
        self,
        model: Any,
        sequences: Sequence[TrainingSequence],
        mix: Mix,
        plan: LoopPlan,
        state_dir: Path,
        save: Callable[[Path], None],
        validate: Callable[[Path], Score],
        progress: Progress,
    ) -> None:
        self.model, self.sequences, self.mix, self.plan = model, sequences, mix, plan
        self.state_dir, self.save, self.validate, self.progress = state_dir, save, validate, progress
        self.device = next(model.parameters()).device
        self.batch_tokens = plan.settings.batch_tokens
        self.optimizer = _adamw(model, plan.settings.weight_decay)
        self.done = FinetuningRun()

    def run(self) -> FinetuningRun:
        """Trains to the end of the budget; the best model is then in `best_folder`.

        Raises:
            ModelError: The loss is not finite, or one example alone does not fit in memory.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.plan.seed)
            self._resume()
            budget, settings, done = self.plan.budget, self.plan.settings, self.done
            self.model.train()
            while (spent := budget.spent(len(done.losses), done.seconds)) < 1:
                started = time.monotonic()
                done.losses.append(self._step(len(done.losses), spent))
                done.seconds += time.monotonic() - started
                step = len(done.losses)
                if budget.spent(step, done.seconds) >= min(1.0, (done.n_evaluations + 1) / settings.evaluations):
                    self._evaluate(step)
                elif step % settings.checkpoint_every == 0:
                    self._checkpoint()
            self.model.eval()
        return done

    @property
    def best_folder(self) -> Path:
        """Folder of the best model so far."""
        return self.state_dir / BEST.format(step=self.done.best_step)

    def _step(self, step: int, spent: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate_at(step, spent)
        batch = [self.sequences[row] for row in self.mix.rows(step, self.plan.settings.batch_examples)]
        while (loss := self._gradients(batch)) is None:
            self._less_memory(step, max(len(sequence) for sequence in batch))
        if not math.isfinite(loss):
            raise ModelError(
                f"training loss is {loss!r} at step {step}; expected a finite number. Lower learning_rate "
                f"({self.plan.rate_at(step, spent):.2g} at this step), or look for damaged weights in the base"
            )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.settings.clip)
        self.optimizer.step()
        return loss

    def _gradients(self, batch: Sequence[TrainingSequence]) -> float | None:
        """Returns the loss of a step and leaves its gradients, or None, without any, where memory did not suffice."""
        first = self.plan.settings.first_token_weight
        total = sum(first + len(sequence.target) - 1 for sequence in batch)
        loss_sum = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        try:
            for rows in plan_batches([len(sequence) for sequence in batch], self.batch_tokens):
                loss, _ = program_loss(self.model, [batch[row] for row in rows], first)
                (loss / total).backward()  # type: ignore[no-untyped-call, unused-ignore]  # torch's own annotation
                loss_sum += float(loss.item())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            return None
        return loss_sum / total

    def _less_memory(self, step: int, longest: int) -> None:
        """Halves the tokens of a forward pass for the rest of the run."""
        free_memory()
        if self.batch_tokens <= longest:
            raise ModelError(
                f"step {step} runs out of memory with one example of {longest} tokens at a time; use a smaller base, "
                "a smaller window_tokens, or a device with more memory"
            )
        self.batch_tokens //= 2
        self.progress(f"step {step}: out of memory, going on with {self.batch_tokens} tokens a forward pass")

    def _evaluate(self, step: int) -> None:
        done = self.done
        folder = self.state_dir / BEST.format(step=step)
        shutil.rmtree(folder, ignore_errors=True)
        self.save(folder)
        since = done.history[-1][0] if done.history else 0
        loss = sum(done.losses[since:]) / max(1, step - since)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            score = self.validate(folder)
        done.n_evaluations += 1
        done.history.append((step, score.f1))
        if done.best is None or (score.f1, -loss) > done.best:
            done.best, done.best_step, done.best_measures = (score.f1, -loss), step, score.measures
        self._checkpoint()
        for other in self.state_dir.glob(BEST.format(step="*")):
            if other != self.best_folder:
                shutil.rmtree(other)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in score.measures.items() if isinstance(value, float))
        self.progress(f"step {step}: loss {loss:.3f} nats a token, dev {shown}")

    def _checkpoint(self) -> None:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        path = self.state_dir / CHECKPOINT
        scratch = path.with_suffix(".tmp")
        state = {
            "identity": self.plan.identity,
            "run": vars(self.done),
            "batch_tokens": self.batch_tokens,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        torch.save(state, scratch)
        os.replace(scratch, path)  # a kill leaves the old checkpoint or the new one, never half of one

    def _resume(self) -> None:
        path = self.state_dir / CHECKPOINT
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several types for a damaged file
            raise ModelError(f"checkpoint {str(path)!r} cannot be read ({error}); delete it to start again") from error
        if state["identity"] != self.plan.identity:
            raise ModelError(f"checkpoint {str(path)!r} is of a run with other data, settings or base; delete it")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["random_gpu"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_gpu"], self.device)
        self.done = FinetuningRun(**{**state["run"], "resumed_at": len(state["run"]["losses"])})
        self.batch_tokens = state["batch_tokens"]
        self.progress(f"step {self.done.resumed_at}: going on from a checkpoint")


def _adamw(model: Any, weight_decay: float) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS)
