"""Training of small decoder language models on packed token sequences: presets, AdamW, cosine, resume.

Equal data, settings and thread count give equal weights; a run that was killed goes on from its last checkpoint with
the loss curve it would have had.
"""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError

CHECKPOINT = "training_state.pt"


@dataclass(frozen=True)
class Preset:
    """Shape of a decoder.

    Attributes:
        architecture: ``llama`` (rotary positions, tied embeddings) or ``gpt2`` (learned positions).
        hidden: Width.
        layers: Number of blocks.
        heads: Attention heads.
        feed_forward: Width of the feed-forward layer.
        context: Positions.
    """

    architecture: Literal["llama", "gpt2"]
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    context: int


PRESETS: dict[str, Preset] = {
    "test": Preset("llama", 32, 1, 2, 64, 64),
    "tiny": Preset("llama", 128, 4, 4, 352, 256),
    "small": Preset("llama", 256, 6, 8, 704, 512),
    "gpt-124m": Preset("gpt2", 768, 12, 12, 3072, 2048),
}
"""Named shapes: ``tiny`` trains in minutes on a CPU, ``gpt-124m`` is the size of the paper's small models."""


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
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 2e-3
    schedule: Literal["cosine", "ramp"] = "cosine"
    warmup_steps: int = 40
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200

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
) -> TrainingRun:
    """Trains the model in place and returns the loss curve.

    On a GPU the forward pass runs in bfloat16. The order of the data depends on seed and step only.

    Args:
        model: A causal language model; trained where it lies.
        sequences: Token ids [n, t], packed.
        settings: How to train.
        state_dir: Folder of the resume checkpoint; None keeps none. The checkpoint is removed at the end.
        progress: Called after each step.
        after_step: Called after each step with the model, in training mode.

    Raises:
        ModelError: There are no sequences, the loss is not finite, or the checkpoint is of another run.
    """
    if not len(sequences):
        raise ModelError("there are no packed sequences to train on; give more text, or a shorter context")
    optimizer = _adamw(model, settings)
    run = TrainingRun()
    identity = fingerprint([asdict(settings), list(sequences.shape), int(sequences.sum()), repr(model.config)])
    if state_dir is not None:
        _resume(state_dir / CHECKPOINT, identity, model, optimizer, run)
    device = next(model.parameters()).device
    model.train()
    for step in range(len(run.losses), settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        batch_BT = torch.from_numpy(sequences[batch_rows(step, len(sequences), settings)]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_BTV = model(input_ids=batch_BT, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits_BTV.float().flatten(0, 1), batch_BT[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]  # torch's own annotation is partial
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        run.losses.append(_finite(loss.item(), step))
        if state_dir is not None and settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0:
            _checkpoint(state_dir / CHECKPOINT, identity, model, optimizer, run)
        if after_step is not None:
            after_step(step + 1, model)
        if progress is not None:
            progress(step + 1, run.losses[-1])
    model.eval()
    if state_dir is not None:
        (state_dir / CHECKPOINT).unlink(missing_ok=True)
    return run


def batch_rows(step: int, n: int, settings: TrainingSettings) -> np.ndarray:
    """Returns the sequence numbers of one step: consecutive places of one shuffled epoch after the other."""
    places = np.arange(step * settings.batch_size, (step + 1) * settings.batch_size)
    rows = np.empty(len(places), dtype=np.int64)
    for epoch in np.unique(places // n):
        order = np.random.default_rng([settings.seed, int(epoch)]).permutation(n)
        here = places // n == epoch
        rows[here] = order[places[here] % n]
    return rows


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
