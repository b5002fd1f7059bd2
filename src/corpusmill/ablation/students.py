"""Training of students, and what all of them can do: give a text its probability."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from corpusmill.ablation.config import StudentConfig
from corpusmill.ablation.existing_models import model_place
from corpusmill.ablation.pool import pool_tokenizer
from corpusmill.ablation.trigram import TrigramModel
from corpusmill.errors import ModelError
from corpusmill.modeling.decoder_shapes import Preset
from corpusmill.pruning.reference_tokenizer import EOD

Progress = Callable[[str], None]
LN2 = math.log(2)
CURVE_POINTS = 10
"""Measurements of the test sets during training, unless ``evaluate_every`` says otherwise."""
CURVE_DOCUMENTS = 64
"""Test documents of a measurement during training; the final one takes all."""
EVALUATION_TOKENS = 8192
"""Positions of one forward pass in evaluation."""


class LanguageModel(Protocol):
    """A trained student."""

    def nll(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Returns the negative log-likelihood of each sequence of token ids in nats, its end token not included."""
        ...


class Encoder(Protocol):
    """A tokenizer without special tokens."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Returns token ids of each text."""
        ...


@dataclass(frozen=True)
class TestSet:
    """Held-out documents, tokenised.

    Attributes:
        sequences: Token ids of each document.
        n_bytes: UTF-8 bytes of all documents.
    """

    __test__ = False  # not one of pytest's
    sequences: list[list[int]]
    n_bytes: int

    def first(self, n: int) -> "TestSet":
        """Returns the first documents alone; bytes are those of the whole, which only `bits_per_byte` needs."""
        return TestSet(self.sequences[:n], self.n_bytes)


@dataclass
class Trained:
    """A student with what its training took.

    Attributes:
        model: The student.
        tokenizer: Its tokenizer.
        eod: Id that stands before each text.
        n_parameters: Without embeddings; 0 for a trigram.
        n_tokens: Tokens of its corpus.
        tokens_seen: Tokens that it was trained on, repetitions counted.
        losses: Training loss of each step.
        curve: Nats per token on the test sets during training: ``step``, and one figure for each set.
        network: The torch module of a ``gpt``, for fine-tuning.
    """

    model: LanguageModel
    tokenizer: Encoder
    eod: int
    n_parameters: int
    n_tokens: int
    tokens_seen: int
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    network: Any = None

    @property
    def epochs(self) -> float:
        """How often the student saw its corpus."""
        return self.tokens_seen / self.n_tokens


class _Trigram:
    def __init__(self, model: TrigramModel) -> None:
        self.counts = model

    def nll(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        return [self.counts.nll(ids) for ids in sequences]


class _BpeEncoder:
    """The tokenizer that students from scratch share."""

    def __init__(self, pool: Path) -> None:
        self.backend = pool_tokenizer(pool)

    @property
    def n_vocab(self) -> int:
        return int(self.backend.get_vocab_size())

    @property
    def eod(self) -> int:
        return int(self.backend.get_vocab()[EOD])

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [encoded.ids for encoded in self.backend.encode_batch_fast(texts, add_special_tokens=False)]


def train_student(
    config: StudentConfig,
    seed: int,
    texts: Sequence[str],
    pool: Path,
    tests: dict[str, list[str]],
    state: Path,
    progress: Progress,
) -> Trained:
    """Returns a student of the texts.

    Args:
        config: Which one, and for how long.
        seed: Of initialisation and data order.
        texts: The arm's corpus.
        pool: Folder of the prepared pool, for the shared tokenizer.
        tests: Held-out texts by name, measured on the way.
        state: Folder of the resume checkpoint and of the curve.
        progress: Receives a line at every measurement.

    Raises:
        ModelError: The corpus is empty or does not fill one sequence.
    """
    if not texts:
        raise ModelError("the arm's corpus is empty: nothing is left to train on")
    if config.kind == "trigram":
        return _train_trigram(texts, pool)
    return _train_gpt(config, seed, texts, pool, tests, state, progress)


def _train_trigram(texts: Sequence[str], pool: Path) -> Trained:
    encoder = _BpeEncoder(pool)
    model = TrigramModel(encoder.encode_batch(list(texts)), encoder.n_vocab, encoder.eod)
    return Trained(_Trigram(model), encoder, encoder.eod, 0, model.n_tokens, model.n_tokens)


def _train_gpt(
    config: StudentConfig,
    seed: int,
    texts: Sequence[str],
    pool: Path,
    tests: dict[str, list[str]],
    state: Path,
    progress: Progress,
) -> Trained:
    from corpusmill.modeling.flops import n_without_embeddings
    from corpusmill.modeling.train_lm import TrainingSettings, train_lm
    from corpusmill.pruning.packing import pack

    network, encoder, eod = _new_network(config, seed, pool)
    positions = int(network.config.max_position_embeddings)
    context = min(config.context or positions, positions)
    packed = pack(encoder.encode_batch(list(texts)), eod, context)
    settings = TrainingSettings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        warmup_steps=min(config.warmup_steps, max(config.steps // 4, 1)),
        seed=seed,
        checkpoint_every=config.checkpoint_every,
    )
    model = TorchStudent(network, eod, context)
    curve = _Curve(model, encode_tests(encoder, tests), config, state, progress)
    run = train_lm(network, packed.sequences, settings, state, None, curve.after_step)
    return Trained(
        model,
        encoder,
        eod,
        n_without_embeddings(network),
        int(packed.sequences.size),
        config.steps * config.batch_size * context,
        [float(loss) for loss in run.losses],
        curve.points,
        network,
    )


def _new_network(config: StudentConfig, seed: int, pool: Path) -> tuple[Any, Encoder, int]:
    from corpusmill.modeling.load import choose_device, load_causal_lm, load_tokenizer

    device = choose_device("auto")
    if config.base is None:
        from corpusmill.modeling.train_lm import new_model

        encoder = _BpeEncoder(pool)
        shape = config.preset if isinstance(config.preset, str) else Preset(**config.preset.model_dump())
        return new_model(shape, encoder.n_vocab, encoder.eod, seed).to(device), encoder, encoder.eod
    folder = str(model_place(config.base))
    tokenizer = load_tokenizer(folder)
    if tokenizer.eod_id is None:
        raise ModelError(f"base {config.base!r} names no end-of-document token; expected eos_token_id in config.json")
    return load_causal_lm(folder, device=device), tokenizer, tokenizer.eod_id


def encode_tests(tokenizer: Encoder, tests: dict[str, list[str]]) -> dict[str, TestSet]:
    """Returns the test sets tokenised, those without text left out."""
    return {
        name: TestSet(tokenizer.encode_batch(texts), sum(len(t.encode("utf-8", "surrogatepass")) for t in texts))
        for name, texts in tests.items()
        if texts
    }


def nll_per_token(model: LanguageModel, test: TestSet) -> float:
    """Returns nats per token over all documents of a test set."""
    return math.fsum(model.nll(test.sequences)) / max(sum(map(len, test.sequences)), 1)


def measure_test(model: LanguageModel, test: TestSet) -> dict[str, float]:
    """Returns ``nll`` (nats per token), ``perplexity`` and ``bits_per_byte`` on a test set."""
    nll = nll_per_token(model, test)
    n_tokens = sum(map(len, test.sequences))
    return {
        "nll": nll,
        "perplexity": math.exp(min(nll, 700.0)),
        "bits_per_byte": nll * n_tokens / LN2 / max(test.n_bytes, 1),
    }


class TorchStudent:
    """A causal language model that scores documents, each with an end-of-document token before it.

    Args:
        network: A transformers causal language model.
        eod: Id of that token.
        context: Tokens of a window, that token included; longer documents are cut.
    """

    def __init__(self, network: Any, eod: int, context: int) -> None:
        self.network, self.eod, self.context = network, eod, context

    def nll(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Returns the negative log-likelihood of each sequence in nats."""
        from corpusmill.modeling.token_batches import plan_batches

        size = self.context - 1
        windows = [
            (row, [self.eod, *ids[start : start + size]])
            for row, ids in enumerate(sequences)
            for start in range(0, len(ids), size)
        ]
        sums = np.zeros(len(sequences))
        for batch in plan_batches([len(ids) for _, ids in windows], EVALUATION_TOKENS):
            values = self._window_nll([windows[i][1] for i in batch])
            for i, value in zip(batch, values, strict=True):
                sums[windows[i][0]] += value
        return [float(value) for value in sums]

    def _window_nll(self, windows: Sequence[Sequence[int]]) -> list[float]:
        import torch
        import torch.nn.functional as F

        from corpusmill.modeling.token_batches import pad_right

        ids_BT, mask_BT = pad_right(windows)
        device = next(self.network.parameters()).device
        ids_BT, mask_BT = ids_BT.to(device), mask_BT.to(device)
        with torch.inference_mode():
            logits_BTV = self.network(input_ids=ids_BT, attention_mask=mask_BT.long(), use_cache=False).logits[:, :-1]
            losses = F.cross_entropy(logits_BTV.float().flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
        losses_BT = losses.view(len(windows), -1).double() * mask_BT[:, 1:]
        return [float(value) for value in losses_BT.sum(dim=1).cpu()]


class _Curve:
    """Test losses on the way, kept in a file so that a resumed run has those before the kill too."""

    def __init__(
        self, model: TorchStudent, tests: dict[str, TestSet], config: StudentConfig, state: Path, progress: Progress
    ) -> None:
        self.model, self.progress, self.steps = model, progress, config.steps
        self.tests = {name: test.first(CURVE_DOCUMENTS) for name, test in tests.items()}
        self.every = config.evaluate_every or max(config.steps // CURVE_POINTS, 1)
        self.path = state / "curve.json"
        self.points: list[dict[str, float]] = json.loads(self.path.read_text()) if self.path.exists() else []

    def after_step(self, step: int, network: Any) -> None:
        if step % self.every and step != self.steps:
            return
        network.eval()
        point = {"step": float(step), **{name: nll_per_token(self.model, test) for name, test in self.tests.items()}}
        network.train()
        self.points = [*(p for p in self.points if p["step"] < step), point]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.points))
        os.replace(scratch, self.path)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in point.items() if name != "step")
        self.progress(f"step {step} of {self.steps}: {figures} nats per token")
