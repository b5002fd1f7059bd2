"""Scores windows of token ids with the models of a run: one pass for each model, batches by length, halved by need."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from corpusmill.errors import ModelError
from corpusmill.modeling.halving import halving, is_out_of_memory
from corpusmill.modeling.token_batches import pad_right, plan_batches
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.loaded_models import LoadedModel, LoadedModels
from corpusmill.pruning.memorization import Memorization, first_mismatches, memorization
from corpusmill.pruning.one_pass import BatchScores, score_batch
from corpusmill.pruning.running_scores import Wanted
from corpusmill.pruning.windows import Window

LARGE_BUDGET = 16_384
CPU_BUDGET = 1_024


@dataclass(frozen=True)
class WindowScores:
    """Scores of one window; ``error`` where it could not be scored, and zeros for what was not asked for."""

    nll: float = 0.0
    el2n: float = 0.0
    hits: int = 0
    top_k_hits: int = 0
    excess_nll: float = 0.0
    n_scored: int = 0
    first_mismatch: int | None = None
    memorization: Memorization | None = None
    error: str | None = None


class WindowScorer:
    """Scores windows with loaded models.

    Args:
        models: The models.
        config: What to compute, and how large the batches are.
    """

    def __init__(self, models: LoadedModels, config: ScoringConfig) -> None:
        self._models, self._config = models, config
        metrics = set(config.metrics)
        self._wanted = Wanted(
            nll="perplexity" in metrics, el2n="el2n" in metrics, top_k=config.top_k if "top_k" in metrics else 0
        )
        self._decode = "memorization" in metrics
        self._only_memorization = metrics == {"memorization"}
        self._prompt = config.mem_prompt + len(models.prefix)
        on_gpu = models.main.head.weight.device.type != "cpu"
        self._budget = config.token_budget or (LARGE_BUDGET if on_gpu or self._decode else CPU_BUDGET)

    def needed(self, windows: list[Window]) -> list[Window]:
        """Returns what has to go through the models: for memorization alone the beginnings of first windows."""
        if not self._only_memorization:
            return windows
        need = self._prompt + self._config.mem_continuation
        return [replace(w, ids=w.ids[:need]) for w in windows if w.first and len(w.ids) >= need]

    def score(self, windows: list[Window]) -> list[WindowScores]:
        """Returns the scores of each window, in order.

        Raises:
            ModelError: A model fails on a batch for another reason than memory.
        """
        out = [WindowScores()] * len(windows)
        for plan in plan_batches([len(w.ids) for w in windows], self._budget):
            answers = halving(self._named_failure, [windows[i] for i in plan])
            for i, scores in zip(plan, answers, strict=True):
                out[i] = WindowScores(error="error.out_of_memory") if isinstance(scores, Exception) else scores
        return out

    def _named_failure(self, windows: Sequence[Window]) -> list[WindowScores]:
        try:
            return self.forward(windows)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            shape = (len(windows), max(len(w.ids) for w in windows))
            raise ModelError(
                f"reference model {self._config.model!r} failed on a batch of shape {shape}: {error}"
            ) from error

    def forward(self, windows: Sequence[Window]) -> list[WindowScores]:
        """Returns the scores of one batch."""
        ids_BT, mask_BT = pad_right([w.ids for w in windows])
        n = self._config.mem_continuation
        if self._only_memorization:
            mask_BT[:, : self._prompt] = False
        lengths = [len(w.ids) if w.first else 0 for w in windows]
        decode = self._decode and max(lengths) >= self._prompt + n
        main = self._models.main
        scores = self._pass(main, ids_BT, mask_BT, self._wanted, keep_states=decode)
        memorized: list[Memorization | None] = [None] * len(windows)
        if decode:
            memorized = memorization(
                main.model, main.head, ids_BT.to(main.head.weight.device), lengths, scores, self._prompt, n,
                self._config.memorization_threshold,
            )  # fmt: skip
        first = first_mismatches(scores.hit, lengths, self._prompt, n)
        scores = scores._replace(hidden=None, cache=None)  # free them before the next model runs
        el2n_B, excess_B = self._further(scores, ids_BT, mask_BT)
        finite_B = torch.isfinite(scores.nll_sum) & torch.isfinite(el2n_B) & torch.isfinite(excess_B) & scores.finite
        return [
            WindowScores(
                nll=float(scores.nll_sum[i]),
                el2n=float(el2n_B[i]),
                hits=int(scores.hits[i]),
                top_k_hits=0 if scores.top_k_hits is None else int(scores.top_k_hits[i]),
                excess_nll=float(excess_B[i]),
                n_scored=int(scores.n_scored[i]),
                first_mismatch=first[i],
                memorization=memorized[i],
                error=None if bool(finite_B[i]) else "error.non_finite_score",
            )
            for i in range(len(windows))
        ]

    def _pass(self, model: LoadedModel, ids_BT: Any, mask_BT: Any, wanted: Wanted, **options: bool) -> BatchScores:
        return score_batch(
            model.model,
            ids_BT,
            mask_BT,
            head=model.head,
            head_chunk=self._config.head_chunk,
            wanted=wanted,
            **options,
        )

    def _further(
        self, main: BatchScores, ids_BT: torch.Tensor, mask_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the EL2N sums averaged over the ensemble, and the excess NLL sums."""
        el2n = [main.el2n_sum]
        for model in self._models.ensemble:
            el2n.append(self._pass(model, ids_BT, mask_BT, Wanted(nll=False)).el2n_sum)
        excess_B = torch.zeros_like(main.nll_sum)
        if self._models.baseline is not None:
            excess_B = main.nll_sum - self._pass(self._models.baseline, ids_BT, mask_BT, Wanted(el2n=False)).nll_sum
        return torch.stack(el2n).mean(0), excess_B
