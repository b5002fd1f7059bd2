"""The scoring stage: one row of score sums per document, under one reference model."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from corpusmill.batches import rows_to_table
from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import TextTokenizer, load_causal_lm, load_tokenizer, model_folder, model_sha256
from corpusmill.modeling.token_batches import pad_right, plan_batches
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.memorization import Memorization, first_mismatches, memorization
from corpusmill.pruning.one_pass import CausalHead, check_model, score_batch
from corpusmill.schema import SCORES
from corpusmill.stage import StageOutput

SCORING_VERSION = 1
"""Version of the arithmetic; raised when equal inputs may give other scores."""
TOO_FEW_TOKENS = "score.too_few_tokens"
"""Reason of a document in which no token can be scored; its sums are null."""


def score_key(config: ScoringConfig, model_sha: str, tokenizer_sha: str, context: int) -> str:
    """Returns 16 hex digits that identify what a score depends on; scores with different keys must not be mixed.

    Model bytes, revision, tokenizer bytes, dtype, context, prefix policy, memorization lengths and code version. Token
    budget, head chunk and device are left out: they move scores by rounding only.
    """
    return fingerprint(
        {
            "model": model_sha,
            "revision": config.revision,
            "tokenizer": tokenizer_sha,
            "dtype": config.dtype,
            "context": context,
            "prefix": config.prefix,
            "memorization": [config.mem_prompt, config.mem_continuation],
            "unit": config.unit,
            "version": SCORING_VERSION,
        }
    )


@dataclass(frozen=True)
class _Loaded:
    model: Any
    head: CausalHead
    tokenizer: TextTokenizer
    context: int
    prefix: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class _Window:
    document: int
    ids: list[int]
    first: bool


@dataclass
class _Sums:
    """Score sums of one document, added up over its windows in order."""

    nll: float = 0.0
    el2n: float = 0.0
    hits: int = 0
    n_scored: int = 0
    first_mismatch: int | None = None
    memorization: float | None = None
    error: str | None = None


@dataclass
class _WindowScores:
    """Scores of one window; ``error`` where it could not be scored."""

    nll: float = 0.0
    el2n: float = 0.0
    hits: int = 0
    n_scored: int = 0
    first_mismatch: int | None = None
    memorization: Memorization | None = None
    error: str | None = None


@dataclass
class ScoreStage:
    """Writes score sums for every document and removes none; a document that fails is a removed row with its reason.

    A document is cut in windows of ``context`` tokens that do not overlap, padded on the right; the first token of a
    window has no context and is not scored unless ``prefix="eod"``. Give it whole input files: the batches are planned
    over the documents of one call, and a plan of its own moves scores by rounding (1e-5 relative in float32).
    """

    config: ScoringConfig
    name: str = "score"
    input_columns: tuple[str, ...] = ("crawl", "doc_id", "warc_file", "language", "text")
    output_schema: pa.Schema = field(default_factory=lambda: SCORES.schema)
    _loaded: _Loaded | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Loads model and tokenizer and checks that they belong together.

        Raises:
            ModelError: The model cannot be loaded or is not the expected one.
            ConfigError: The context does not fit the model, or a prefix is asked of a model without end-of-document.
        """
        config = self.config
        folder = model_folder(config.model, config.revision)
        sha = model_sha256(folder)
        if config.sha256 is not None and config.sha256 != sha:
            raise ModelError(
                f"model {config.model!r} has sha256 {sha!r}, expected {config.sha256!r}; it changed since it was "
                "pinned: restore the folder, or pin the new one"
            )
        tokenizer = load_tokenizer(str(folder))
        model = load_causal_lm(str(folder), dtype=config.dtype, device=config.device)
        head = check_model(model, tokenizer.n_vocab)
        context = _context(config, model)
        if config.prefix == "eod" and tokenizer.eod_id is None:
            raise ConfigError(
                f"prefix='eod' but model {config.model!r} names no end-of-document token; use prefix='none'"
            )
        prefix = (tokenizer.eod_id,) if config.prefix == "eod" and tokenizer.eod_id is not None else ()
        key = score_key(config, sha, tokenizer.sha256, context)
        self._loaded = _Loaded(model, head, tokenizer, context, prefix, key)

    @property
    def score_key(self) -> str:
        """Identity of the scores that this stage writes."""
        return self._ready().key

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns one row of sums per document, in the order of the batch."""
        loaded = self._ready()
        texts = batch.column("text").to_pylist()
        tokens = _encode(loaded.tokenizer, texts)
        windows = [w for i, ids in enumerate(tokens) if ids is not None for w in self._windows(i, ids)]
        scores = self._score_windows(windows)
        sums = [_Sums() for _ in texts]
        for window, part in zip(windows, scores, strict=True):
            _add(sums[window.document], window, part)
        columns = {name: batch.column(name).to_pylist() for name in self.input_columns if name != "text"}
        rows = [
            {**{name: values[i] for name, values in columns.items()}, **self._measures(texts[i], tokens[i], sums[i])}
            for i in range(len(texts))
        ]
        failed = [row for row in rows if (row["skipped_reason"] or "").startswith("error.")]
        kept = [row for row in rows if not (row["skipped_reason"] or "").startswith("error.")]
        metrics = {
            "n_tokens": float(sum(row["n_tokens"] for row in rows)),
            "n_scored_tokens": float(sum(row["n_scored"] for row in rows)),
            "n_windows": float(len(windows)),
            "n_unscored_documents": float(sum(row["skipped_reason"] is not None for row in rows)),
            "n_documents_longer_than_context": float(len({w.document for w in windows if not w.first})),
            "nll_sum": sum(row["nll_sum"] or 0.0 for row in rows),
        }
        return StageOutput(
            rows_to_table(kept, self.output_schema), rows_to_table(failed, self.output_schema), metrics=metrics
        )

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            self.setup()
        assert self._loaded is not None
        return self._loaded

    def _windows(self, document: int, ids: list[int]) -> list[_Window]:
        """Returns the windows of a document that have a token to score."""
        loaded = self._ready()
        size = loaded.context - len(loaded.prefix)
        cut = [[*loaded.prefix, *ids[start : start + size]] for start in range(0, len(ids), size)]
        return [_Window(document, window, i == 0) for i, window in enumerate(cut) if len(window) > 1]

    def _score_windows(self, windows: list[_Window]) -> list[_WindowScores]:
        out = [_WindowScores()] * len(windows)
        for plan in plan_batches([len(w.ids) for w in windows], self.config.token_budget):
            for at, scores in zip(plan, self._score_batch([windows[i] for i in plan]), strict=True):
                out[at] = scores
        return out

    def _score_batch(self, windows: list[_Window]) -> list[_WindowScores]:
        """Returns scores of one batch; a batch for which memory does not suffice is halved until it does."""
        try:
            return self._forward(windows)
        except RuntimeError as error:
            if not _out_of_memory(error):
                shape = (len(windows), max(len(w.ids) for w in windows))
                raise ModelError(
                    f"reference model {self.config.model!r} failed on a batch of shape {shape}: {error}"
                ) from error
        if len(windows) == 1:
            return [_WindowScores(error="error.out_of_memory")]
        half = len(windows) // 2
        return self._score_batch(windows[:half]) + self._score_batch(windows[half:])

    def _forward(self, windows: list[_Window]) -> list[_WindowScores]:
        loaded, config = self._ready(), self.config
        ids_BT, mask_BT = pad_right([w.ids for w in windows])
        prompt = config.mem_prompt + len(loaded.prefix)
        lengths = [len(w.ids) if w.first else 0 for w in windows]
        decode = "memorization" in config.metrics and max(lengths) >= prompt + config.mem_continuation
        scores = score_batch(
            loaded.model, ids_BT, mask_BT, head=loaded.head, head_chunk=config.head_chunk, keep_states=decode
        )
        memorized: list[Memorization | None] = [None] * len(windows)
        if decode:
            ids_BT = ids_BT.to(loaded.head.weight.device)
            memorized = memorization(
                loaded.model, loaded.head, ids_BT, lengths, scores, prompt, config.mem_continuation
            )
        first = first_mismatches(scores.hit, lengths, prompt, config.mem_continuation)
        return [
            _WindowScores(
                nll=float(scores.nll_sum[i]),
                el2n=float(scores.el2n_sum[i]),
                hits=int(scores.hits[i]),
                n_scored=int(scores.n_scored[i]),
                first_mismatch=first[i],
                memorization=memorized[i],
                error=None if bool(torch.isfinite(scores.nll_sum[i])) else "error.non_finite_score",
            )
            for i in range(len(windows))
        ]

    def _measures(self, text: str | None, ids: list[int] | None, sums: _Sums) -> dict[str, Any]:
        reason = sums.error or (None if sums.n_scored else TOO_FEW_TOKENS)
        if text is None:
            reason = "error.null_text"
        elif ids is None:
            reason = "error.tokenizer"
        scored = reason is None
        metrics = self.config.metrics
        return {
            "unit": self.config.unit,
            "nll_sum": sums.nll if scored and "perplexity" in metrics else None,
            "el2n_sum": sums.el2n if scored and "el2n" in metrics else None,
            "n_scored": sums.n_scored if scored else 0,
            "n_bytes": len((text or "").encode("utf-8", "surrogatepass")),
            "n_tokens": len(ids or ()),
            "hits": sums.hits if scored else None,
            "first_mismatch": sums.first_mismatch if scored else None,
            "memorization": sums.memorization if scored else None,
            "score_key": self._ready().key,
            "skipped_reason": reason,
        }


def _add(total: _Sums, window: _Window, part: _WindowScores) -> None:
    total.nll += part.nll
    total.el2n += part.el2n
    total.hits += part.hits
    total.n_scored += part.n_scored
    total.error = total.error or part.error
    if window.first:
        total.first_mismatch = part.first_mismatch
        total.memorization = part.memorization.score if part.memorization else None


def _encode(tokenizer: TextTokenizer, texts: list[str | None]) -> list[list[int] | None]:
    """Returns token ids of each text, None where the text is null or the tokenizer fails on it."""
    given = [text or "" for text in texts]
    try:
        encoded: list[list[int] | None] = list(tokenizer.encode_batch(given))
    except Exception:  # noqa: BLE001 - tokenizers raises bare Exception; one bad text must not cost the others
        encoded = [_encode_one(tokenizer, text) for text in given]
    return [None if text is None else ids for text, ids in zip(texts, encoded, strict=True)]


def _encode_one(tokenizer: TextTokenizer, text: str) -> list[int] | None:
    try:
        return tokenizer.encode_batch([text])[0]
    except Exception:  # noqa: BLE001 - see _encode
        return None


def _context(config: ScoringConfig, model: Any) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    given = config.context if config.context is not None else positions
    if given is None:
        raise ConfigError(
            f"model {config.model!r} names no number of positions; set context, for instance context=2048"
        )
    context = int(given)
    if positions is not None and context > positions:
        raise ConfigError(
            f"context={context} but model {config.model!r} has {positions} positions; set context to at most that"
        )
    need = config.mem_prompt + config.mem_continuation + (config.prefix == "eod")
    if "memorization" in config.metrics and need > context:
        raise ConfigError(f"memorization needs {need} tokens but the context has {context}; lower mem_prompt")
    return context


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
