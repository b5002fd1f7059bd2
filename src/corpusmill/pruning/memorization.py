"""Memorization: the share of a continuation that greedy decoding reproduces, position by position.

The scoring pass already shows where the true continuation first departs from the greedy one. Up to there greedy
decoding is known; after it real decoding goes on from the pass's own key-value cache. Teacher-forced accuracy is not a
substitute: it counts hits in contexts that greedy decoding never reaches. Where only a threshold is asked, decoding
ends as soon as the bounds of a score lie on one side of it.

Source: Biderman et al. 2023, score(M, N); "When Less is More" (arXiv 2309.04564v1), equation 7.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from corpusmill.pruning.causal_head import CausalHead
from corpusmill.pruning.one_pass import BatchScores
from corpusmill.pruning.running_scores import lowest_argmax


@dataclass(frozen=True)
class Memorization:
    """Memorization of one row.

    Attributes:
        score: Share of the N continuation tokens that greedy decoding gets right, in [0, 1]; None where a threshold
            was settled before the last token.
        first_mismatch: Continuation tokens before the first wrong one; N if none is wrong.
        generated: The N greedy tokens, or those up to the one that settled the threshold.
        memorized: Whether the score reaches the threshold, None without one.
    """

    score: float | None
    first_mismatch: int
    generated: tuple[int, ...]
    memorized: bool | None = None


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
    threshold: float | None = None,
) -> list[Memorization | None]:
    """Returns the memorization of each row, None for a row of fewer than ``prompt + continuation`` tokens.

    The end-of-document token is an ordinary token: it neither stops decoding nor is it forbidden. Of equal logits the
    lowest id is taken. Rows that the scoring pass settles are not decoded: those without mismatch, and with a threshold
    those with k tokens before it where k/N reaches it, or (N-1)/N does not.

    Args:
        model: The model of the scoring pass.
        head: Its head.
        ids_BT: The ids of the scoring pass.
        lengths: Real tokens of each row.
        scores: What `score_batch` returned with ``keep_states``.
        prompt: M, tokens that the model is given.
        continuation: N, tokens that it must reproduce.
        threshold: Ask only whether the score reaches this share; None for the exact score of every row.
    """
    assert scores.hidden is not None, "memorization needs score_batch(..., keep_states=True)"
    first = first_mismatches(scores.hit, lengths, prompt, continuation)
    generated = {row: ids_BT[row, prompt : prompt + k].tolist() for row, k in enumerate(first) if k is not None}
    by_k: dict[int, list[int]] = {}
    for row, k in enumerate(first):
        if k is not None and k < continuation and not _settled(k, continuation - k - 1, continuation, threshold):
            by_k.setdefault(k, []).append(row)
    for k, rows in sorted(by_k.items()):
        wrong = _wrong_tokens(head, scores.hidden, ids_BT, rows, prompt + k)
        truth = ids_BT[rows, prompt + k + 1 : prompt + continuation]
        group = _Group(rows, k, ids_BT[rows, : prompt + k].to(wrong.device), wrong, truth.to(wrong.device))
        for row, tokens in zip(rows, _decode(model, head, group, scores.cache, threshold), strict=True):
            generated[row] += tokens
    return [
        None
        if k is None
        else _scored(ids_BT[row, prompt : prompt + continuation].tolist(), generated[row], k, threshold)
        for row, k in enumerate(first)
    ]


class _Group(NamedTuple):
    """Rows with the same first mismatch k: what they were fed [N, M+k], the wrong token [N], what follows [N, S]."""

    rows: list[int]
    k: int
    prefix: torch.Tensor
    wrong: torch.Tensor
    truth: torch.Tensor


def _scored(truth: list[int], generated: list[int], k: int, threshold: float | None) -> Memorization:
    """Returns the result of a row; what its group decoded after it was settled counts for nothing."""
    n = len(truth)
    matches = length = k
    while not _settled(matches, n_open := max(0, n - max(length, k + 1)), n, threshold):
        if not n_open:
            break
        matches += truth[length] == generated[length]
        length += 1
    reached = None if threshold is None else matches / n >= threshold
    if n_open:
        return Memorization(None, k, tuple(generated[:length]), reached)
    return Memorization(matches / n, k, tuple(generated), reached)


def _settled(matches: int, n_open: int, n: int, threshold: float | None) -> bool:
    """Returns whether a threshold is decided by the matches so far, with some tokens of the n still open."""
    return threshold is not None and (matches / n >= threshold or (matches + n_open) / n < threshold)


def _wrong_tokens(
    head: CausalHead, hidden: torch.Tensor, ids_BT: torch.Tensor, rows: list[int], at: int
) -> torch.Tensor:
    """Returns the greedy token of each row at position ``at``, which the scoring pass found not to be the true one."""
    z_NV = head.logits(hidden[rows, at - 1])
    truth = ids_BT[rows, at].to(z_NV.device)
    # A product of another shape may round a near-tie the other way; the scoring pass has decided already.
    return lowest_argmax(z_NV.scatter(1, truth[:, None], float("-inf")))


def _decode(model: Any, head: CausalHead, group: _Group, cache: Any, threshold: float | None) -> list[list[int]]:
    """Returns the wrong token and S greedy tokens after it for each row, fewer once a threshold is settled for all."""
    rows, k, fed, token_N, truth_NS = group
    n_known, steps = fed.shape[1], truth_NS.shape[1]
    out, matches_N = [token_N], torch.full_like(token_N, k)
    past = cropped_cache(cache, rows, n_known) if steps else None
    fed = torch.cat([fed, token_N[:, None]], dim=1)
    for step in range(steps):
        if past is None:  # no cache that can be cut: feed everything again
            output = model.base_model(input_ids=fed, use_cache=False)
        else:
            output = model.base_model(input_ids=fed[:, -1:], past_key_values=past, use_cache=True)
        token_N = head.greedy(output.last_hidden_state[:, -1])
        fed = torch.cat([fed, token_N[:, None]], dim=1)
        out.append(token_N)
        if threshold is not None:
            matches_N += token_N == truth_NS[:, step]
            n = k + 1 + steps
            if all(_settled(found, steps - step - 1, n, threshold) for found in matches_N.tolist()):
                break
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
