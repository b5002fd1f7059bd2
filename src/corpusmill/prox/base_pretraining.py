"""Pretrains a base for program-writing models on plain text: the public refiners' shape and tokenizer, any size.

The public refiners started from a model that had read 26 billion tokens. Where no such model is at hand, the text there
is gives a far smaller start, which is still better than random weights.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.batches import replace_surrogates
from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import choose_device
from corpusmill.modeling.train_lm import TrainingSettings, train_lm
from corpusmill.prox.finetuning_loop import Progress
from corpusmill.prox.labeller_folder import published_folder
from corpusmill.prox.program_model_base import NEW, copy_tokenizer, new_llama, shape_of, write_sentencepiece
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer

RECORD = "pretraining.json"
STEPS_A_LINE, STEPS_A_CHECKPOINT = 64, 100
"""Steps between two lines of progress, and between two checkpoints for resuming."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Pretraining:
    """What pretraining did.

    Attributes:
        n_tokens: Tokens of the packed text.
        n_parameters: Weights, tied ones once.
        losses: Loss of each step, nats per token.
        held_out_nll: Nats per token on the sequences held out, None without any.
    """

    n_tokens: int
    n_parameters: int
    losses: list[float]
    held_out_nll: float | None


def pretrain_base(
    texts: Iterable[str],
    out_dir: Path,
    *,
    preset: str = "new:30m",
    epochs: float = 1.0,
    batch_size: int = 32,
    learning_rate: float = 6e-4,
    n_vocab: int = 16_384,
    context: int = 2048,
    held_out: float = 0.01,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = lambda _: None,
) -> Pretraining:
    """Trains a tokenizer and a decoder on texts and writes a folder that `finetune_refiner` takes as its base.

    A killed run goes on from its checkpoint, in a hidden folder beside ``out_dir``, when it is called again.

    Args:
        texts: Documents; all of them are held in memory as ids.
        out_dir: Folder to write.
        preset: ``new:PRESET`` (`corpusmill.prox.program_model_base.SHAPES`).
        epochs: Passes over the text.
        batch_size: Sequences of a step; on a GPU a forward pass holds all of them.
        learning_rate: Peak of the cosine.
        n_vocab: Ids of the tokenizer at most.
        context: Positions.
        held_out: Share of the sequences that is not trained on but measured.
        seed: Of weights and data order.
        device: Torch device.
        progress: Called with a line of text now and then.

    Raises:
        ConfigError: The preset is unknown, or a number is out of its range.
        ModelError: There is too little text, or training diverged.
    """
    shape = shape_of(preset)
    if not 0 < epochs < float("inf") or not 0 <= held_out < 1:
        raise ConfigError(f"epochs={epochs!r}, held_out={held_out!r}: expected a number above 0, and a share below 1")
    documents = [replace_surrogates(text)[0] for text in texts if text.strip()]
    digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()
    identity = fingerprint([digest, preset, epochs, batch_size, learning_rate, n_vocab, context, held_out, seed])
    state = out_dir.parent / f".{out_dir.name}.pretraining-{identity}"
    if not (state / "tokenizer").is_dir():
        write_sentencepiece(state / "tokenizer", documents, n_vocab, context)
    tokenizer = load_tokenizer(state / "tokenizer")
    sequences = pack_documents(documents, tokenizer, context)
    if len(sequences) < 2:
        raise ModelError(f"{len(documents)} documents fill {len(sequences)} sequences of {context} ids; give more text")
    n_held_out = min(len(sequences) - 1, round(held_out * len(sequences)))
    order = np.random.default_rng(seed).permutation(len(sequences))
    training, measured = sequences[order[n_held_out:]], sequences[order[:n_held_out]]
    steps = max(1, round(epochs * len(training) / batch_size))
    plan = TrainingSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=min(200, steps // 10 + 1),
        seed=seed,
        checkpoint_every=STEPS_A_CHECKPOINT,
    )
    model = new_llama(shape, tokenizer.n_vocab, context, seed).to(choose_device(device))

    def tell(step: int, loss: float) -> None:
        if step % STEPS_A_LINE == 0 or step == steps:
            progress(f"step {step} of {steps}: loss {loss:.3f} nats a token")

    run = train_lm(model, training, plan, state, tell)
    done = Pretraining(
        int(training.size), sum(p.numel() for p in model.parameters()), run.losses, _held_out_nll(model, measured)
    )
    published_folder(out_dir, lambda folder: _write(folder, model, state / "tokenizer", done, preset, plan, digest))
    shutil.rmtree(state)
    return done


def pack_documents(documents: Iterable[str], tokenizer: RefinerTokenizer, context: int) -> npt.NDArray[np.int64]:
    """Returns documents as ids, each between BOS and EOS, one after the other in rows of ``context`` ids.

    What does not fill a row at the end is left out.
    """
    if tokenizer.eos is None or tokenizer.encoder.bos is None:
        raise ModelError("the tokenizer names no BOS or no EOS, so documents cannot be told apart; name both")
    bos, eos = tokenizer.encoder.bos, tokenizer.eos
    parts = [
        np.array([bos, *ids, eos], dtype=np.int64)
        for some in _batches(documents)
        for ids in tokenizer.encode_batch(some)
    ]
    stream = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    n = len(stream) // context
    return stream[: n * context].reshape(n, context)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in documents:
        batch.append(text)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _held_out_nll(model: Any, sequences: npt.NDArray[np.int64]) -> float | None:
    """Returns nats per token over packed sequences, one at a time."""
    if not len(sequences):
        return None
    device = next(model.parameters()).device
    total = 0.0
    with torch.inference_mode():
        for row in sequences:
            ids_1T = torch.from_numpy(row)[None].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits_1TV = model(input_ids=ids_1T, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits_1TV[0, :-1].float(), ids_1T[0, 1:])
            total += float(loss.item())
    return total / len(sequences)


def _write(
    folder: Path, model: Any, tokenizer: Path, done: Pretraining, preset: str, plan: TrainingSettings, digest: str
) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would fill task logs
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    copy_tokenizer(tokenizer, folder)
    record = {
        "preset": preset.removeprefix(NEW),
        "text_sha256": digest,
        "n_tokens": done.n_tokens,
        "n_parameters": done.n_parameters,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "seed": plan.seed,
        "held_out_nll": done.held_out_nll,
        "losses": [round(loss, 4) for loss in done.losses],
    }
    (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
