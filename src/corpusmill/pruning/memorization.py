"""Memorization: the share of a continuation that greedy decoding reproduces, position by position.

The scoring pass already shows where the true continuation first departs from the greedy one. Up to there greedy
decoding is known; after it real decoding goes on from the pass's own key-value cache. Teacher-forced accuracy is not a
substitute: it counts hits in contexts that greedy decoding never reaches.

Source: Biderman et al. 2023, score(M, N); "When Less is More" (arXiv 2309.04564v1), equation 7.
"""

from dataclasses import dataclass
from typing import Any

import torch

from corpusmill.pruning.one_pass import BatchScores, CausalHead, lowest_argmax


@dataclass(frozen=True)
class Memorization:
    """Memorization of one row.

    Attributes:
        score: Share of the N continuation tokens that greedy decoding gets right, in [0, 1].
        first_mismatch: Continuation tokens before the first wrong one; N if none is wrong.
        generated: The N greedy tokens.
    """

    score: float
    first_mismatch: int
    generated: tuple[int, ...]


def first_mismatches(hit: torch.Tensor, lengths: list[int], prompt: int, continuation: int) -> list[int | None]:
    """Returns the continuation tokens before the first that is not greedy (N if all are) by row, None if too short.

    Args:
        hit: Greedy hit by label position [B, T-1], as `BatchScores.hit`.
        lengths: Real tokens of each row.
        prompt: M.
        continuation: N.
    """
    window = hit[:, prompt - 1 : prompt - 1 + continuation]
    leading = window.int().cumprod(1).sum(1).tolist()
    return [k if n >= prompt + continuation else None for k, n in zip(leading, lengths, strict=True)]


@torch.inference_mode()
def memorization(
    model: Any,
    head: CausalHead,
    ids_BT: torch.Tensor,
    lengths: list[int],
    scores: BatchScores,
    prompt: int = 32,
    continuation: int = 32,
) -> list[Memorization | None]:
    """Returns the memorization of each row, None for a row of fewer than ``prompt + continuation`` tokens.

    The end-of-document token is an ordinary token: it neither stops decoding nor is it forbidden. Of equal logits the
    lowest id is taken. Rows that the scoring pass settles (no mismatch, or only the last token) are not decoded.

    Args:
        model: The model of the scoring pass.
        head: Its head.
        ids_BT: The ids of the scoring pass.
        lengths: Real tokens of each row.
        scores: What `score_batch` returned with ``keep_states``.
        prompt: M, tokens that the model is given.
        continuation: N, tokens that it must reproduce.
    """
    assert scores.hidden is not None, "memorization needs score_batch(..., keep_states=True)"
    first = first_mismatches(scores.hit, lengths, prompt, continuation)
    generated = {row: ids_BT[row, prompt : prompt + k].tolist() for row, k in enumerate(first) if k is not None}
    by_k: dict[int, list[int]] = {}
    for row, k in enumerate(first):
        if k is not None and k < continuation:
            by_k.setdefault(k, []).append(row)
    for k, rows in sorted(by_k.items()):
        wrong = _wrong_tokens(head, scores.hidden, ids_BT, rows, prompt + k)
        tail = _decode(model, head, ids_BT[rows, : prompt + k], wrong, scores.cache, rows, continuation - k - 1)
        for row, tokens in zip(rows, tail, strict=True):
            generated[row] += tokens
    return [
        None if k is None else _scored(ids_BT[row, prompt : prompt + continuation].tolist(), generated[row], k)
        for row, k in enumerate(first)
    ]


def _scored(truth: list[int], generated: list[int], k: int) -> Memorization:
    matches = sum(a == b for a, b in zip(truth, generated, strict=True))
    return Memorization(matches / len(truth), k, tuple(generated))


def _wrong_tokens(
    head: CausalHead, hidden: torch.Tensor, ids_BT: torch.Tensor, rows: list[int], at: int
) -> torch.Tensor:
    """Returns the greedy token of each row at position ``at``, which the scoring pass found not to be the true one."""
    z_NV = head.logits(hidden[rows, at - 1])
    truth = ids_BT[rows, at].to(z_NV.device)
    # A product of another shape may round a near-tie the other way; the scoring pass has decided already.
    return lowest_argmax(z_NV.scatter(1, truth[:, None], float("-inf")))


def _decode(
    model: Any, head: CausalHead, prefix: torch.Tensor, token_N: torch.Tensor, cache: Any, rows: list[int], steps: int
) -> list[list[int]]:
    """Returns ``token_N`` and ``steps`` greedy tokens after it for each row."""
    out = [token_N]
    past = cropped_cache(cache, rows, prefix.shape[1]) if steps else None
    fed = torch.cat([prefix.to(token_N.device), token_N[:, None]], dim=1)
    for _ in range(steps):
        if past is None:  # no cache that can be cut: feed everything again
            output = model.base_model(input_ids=fed, use_cache=False)
        else:
            output = model.base_model(input_ids=fed[:, -1:], past_key_values=past, use_cache=True)
        token_N = head.greedy(output.last_hidden_state[:, -1])
        fed = torch.cat([fed, token_N[:, None]], dim=1)
        out.append(token_N)
    return torch.stack(out, dim=1).tolist()


def cropped_cache(cache: Any, rows: list[int], length: int) -> Any:
    """Returns a copy of some rows and the first positions of a key-value cache, None where that cannot be cut.

    Caches of sliding-window, recurrent or quantised layers hold something else than one entry per position.
    """
    layers = getattr(cache, "layers", None)
    if not layers:
        return None
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if any(type(layer) is not DynamicLayer for layer in layers):
        return None
    pairs = [(layer.keys[rows, :, :length], layer.values[rows, :, :length]) for layer in layers]
    return DynamicCache(pairs)
