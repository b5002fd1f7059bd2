"""Training of decoder language models on packed token sequences: AdamW, two schedules, accumulation, resume.

On a CPU equal data, settings and thread count give equal weights; a run that was killed goes on from its last
checkpoint with the loss curve it would have had, bit for bit. Sequences may be a memory map: only the rows of a step
are read.
"""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.decoder_shapes import PRESETS as PRESETS
from corpusmill.modeling.decoder_shapes import Preset as Preset

CHECKPOINT = "training_state.pt"
Schedule = Literal["cosine", "ramp"]
Precision = Literal["auto", "float32", "bfloat16"]
Compiled = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Sequences of a step.
        learning_rate: Peak.
        schedule: ``cosine`` (warm up, then down to a tenth) or ``ramp`` (up over all of training). The paper says both
            "linear cosine scaling" and "linearly increases from 0 over the course of training".
        warmup_steps: Steps of linear warm-up of ``cosine``.
        weight_decay: On matrices only.
        betas: Of AdamW.
        clip: Largest gradient norm.
        seed: Of initialisation and data order.
        checkpoint_every: Steps between two checkpoints for resuming; 0 writes none.
        micro_batch: Sequences of one forward pass; a step adds up the gradients of as many passes as its batch needs.
            None: the whole batch at once.
        precision: Of the forward and backward pass; the weights are float32. ``auto``: bfloat16 on a GPU, else float32.
        compiled: Whether torch.compile makes one kernel graph of the pass. ``auto``: on a GPU.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 2e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 40
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    micro_batch: int | None = None
    precision: Precision = "auto"
    compiled: Compiled = "auto"

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        if self.schedule == "ramp":
            return self.learning_rate * (step + 1) / self.steps
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


@dataclass
class TrainingRun:
    """What training did: the loss in nats per token of each step, and where it was resumed (0 for a fresh start)."""

    losses: list[float] = field(default_factory=list)
    resumed_at: int = 0


Progress = Callable[[int, float], None]
"""Called with (steps done, loss of the last step)."""
StepHook = Callable[[int, Any], None]
"""Called with (steps done, model) after each step, for instance to save checkpoints that are scored later."""


def new_model(preset: Preset | str, n_vocab: int, eod_id: int, seed: int) -> Any:
    """Returns a randomly initialised transformers decoder; equal seeds give equal weights.

    Raises:
        ConfigError: The preset's name is unknown.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ConfigError(f"preset={preset!r} is unknown; expected one of {sorted(PRESETS)}")
        preset = PRESETS[preset]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _llama(preset, n_vocab, eod_id) if preset.architecture == "llama" else _gpt2(preset, n_vocab, eod_id)


def _llama(preset: Preset, n_vocab: int, eod_id: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=n_vocab,
            hidden_size=preset.hidden,
            num_hidden_layers=preset.layers,
            num_attention_heads=preset.heads,
            num_key_value_heads=preset.heads,
            intermediate_size=preset.feed_forward,
            max_position_embeddings=preset.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=eod_id,
        )
    )


def _gpt2(preset: Preset, n_vocab: int, eod_id: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=n_vocab,
            n_embd=preset.hidden,
            n_layer=preset.layers,
            n_head=preset.heads,
            n_inner=preset.feed_forward,
            n_positions=preset.context,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=eod_id,
        )
    )


def train_lm(
    model: Any,
    sequences: np.ndarray,
    settings: TrainingSettings,
    state_dir: Path | None = None,
    progress: Progress | None = None,
    after_step: StepHook | None = None,
    *,
    data_id: str | None = None,
    keep_state: bool = False,
) -> TrainingRun:
    """Trains the model in place and returns the loss curve.

    The order of the data depends on seed and step only.

    Args:
        model: A causal language model; trained where it lies.
        sequences: Token ids [n, t], packed; an array or a memory map of any unsigned or signed integer type.
        settings: How to train.
        state_dir: Folder of the resume checkpoint; None keeps none.
        progress: Called after each step.
        after_step: Called after each step with the model, in training mode, before the step's checkpoint is written: a
            killed run calls it again for every step after its last checkpoint.
        data_id: What identifies the sequences; None: their sum, which reads all of them.
        keep_state: True writes the checkpoint of the last step and leaves it, so that a caller who stores the result
            can be killed too; the caller removes it. False removes it at the end.

    Raises:
        ModelError: There are no sequences, the loss is not finite, or the checkpoint is of another run.
    """
    if not len(sequences):
        raise ModelError("there are no packed sequences to train on; give more text, or a shorter context")
    optimizer = _adamw(model, settings)
    run = TrainingRun()
    data = int(sequences.sum()) if data_id is None else data_id
    identity = fingerprint([asdict(settings), list(sequences.shape), data, repr(model.config)])
    if state_dir is not None:
        _resume(state_dir / CHECKPOINT, identity, model, optimizer, run)
    device = next(model.parameters()).device
    backward = _backward_pass(model, settings, device)
    model.train()
    for step in range(len(run.losses), settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        rows = sequences[batch_rows(step, len(sequences), settings)].astype(np.int64)
        optimizer.zero_grad(set_to_none=True)
        loss = backward(torch.from_numpy(rows).to(device))
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        run.losses.append(_finite(loss, step))
        if after_step is not None:
            after_step(step + 1, model)
        if state_dir is not None and _checkpoint_is_due(step + 1, settings, keep_state=keep_state):
            _checkpoint(state_dir / CHECKPOINT, identity, model, optimizer, run)
        if progress is not None:
            progress(step + 1, run.losses[-1])
    model.eval()
    if state_dir is not None and not keep_state:
        (state_dir / CHECKPOINT).unlink(missing_ok=True)
    return run


def _checkpoint_is_due(done: int, settings: TrainingSettings, *, keep_state: bool) -> bool:
    last = keep_state and done == settings.steps
    return last or bool(settings.checkpoint_every and done % settings.checkpoint_every == 0)


def _backward_pass(model: Any, settings: TrainingSettings, device: torch.device) -> Callable[[torch.Tensor], float]:
    """Returns a function that leaves the gradients of a batch [B, T] in the model and returns its mean loss."""
    on_gpu = device.type == "cuda"
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and on_gpu)

    def token_loss(ids_BT: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten())

    compiled = settings.compiled == "yes" or (settings.compiled == "auto" and on_gpu)
    forward = torch.compile(token_loss) if compiled else token_loss

    def backward(batch_BT: torch.Tensor) -> float:
        losses = []
        for micro_BT in batch_BT.split(settings.micro_batch or len(batch_BT)):
            loss = forward(micro_BT) * (len(micro_BT) / len(batch_BT))
            loss.backward()
            losses.append(loss.detach())
        return float(torch.stack(losses).sum())

    return backward


def batch_rows(step: int, n: int, settings: TrainingSettings) -> np.ndarray:
    """Returns the sequence numbers of one step: consecutive places of one shuffled epoch after the other."""
    places = np.arange(step * settings.batch_size, (step + 1) * settings.batch_size)
    rows = np.empty(len(places), dtype=np.int64)
    for epoch in np.unique(places // n):
        here = places // n == epoch
        rows[here] = _shuffled(settings.seed, int(epoch), n)[places[here] % n]
    return rows


@lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, n: int) -> np.ndarray:
    """Returns the order of one epoch; two are kept, because a step may end one epoch and begin the next."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def _adamw(model: Any, settings: TrainingSettings) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise ModelError(
            f"the training loss became {loss!r} at step {step}; lower learning_rate or lengthen warmup_steps"
        )
    return loss


def _checkpoint(path: Path, identity: str, model: Any, optimizer: torch.optim.Optimizer, run: TrainingRun) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    state = {
        "identity": identity,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "losses": torch.tensor(run.losses, dtype=torch.float64),
    }
    torch.save(state, scratch)
    os.replace(scratch, path)  # a kill leaves the old checkpoint or the new one, never half of one


def _resume(path: Path, identity: str, model: Any, optimizer: torch.optim.Optimizer, run: TrainingRun) -> None:
    if not path.is_file():
        return
    device = next(model.parameters()).device
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises several types for a damaged file
        raise ModelError(f"checkpoint {str(path)!r} cannot be read ({error}); delete it to start again") from error
    if state["identity"] != identity:
        raise ModelError(
            f"checkpoint {str(path)!r} is of a run with other data, settings or model; delete it, or train elsewhere"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    run.losses = state["losses"].tolist()
    run.resumed_at = len(run.losses)
