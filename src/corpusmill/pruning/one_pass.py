"""NLL, EL2N, greedy hits and top-k hits of every token from one forward pass, in bounded memory.

One exponential per logit gives NLL and EL2N, to about 3e-6 relative in float32 where the textbook identity for EL2N
loses every digit on confident tokens. Logits exist for some positions and a part of the vocabulary at a time, never as
[B, T, V], and what nobody asked for is not computed.

Source: "When Less is More" (arXiv 2309.04564v1), equations 4 to 6, rearranged as in `running_scores`.
"""

from typing import Any, NamedTuple

import torch

from corpusmill.pruning.causal_head import CausalHead
from corpusmill.pruning.running_scores import RunningScores, TokenScores, Wanted

EVERYTHING = Wanted()


class BatchScores(NamedTuple):
    """Sums of each row of a batch; float64 and int64 tensors of length B on the CPU.

    Attributes:
        nll_sum: Nats.
        el2n_sum: Sum of the tokens' EL2N.
        hits: Scored positions whose label is the greedy token.
        n_scored: Scored positions.
        hit: Greedy hit by label position [B, T-1], False where masked.
        finite: Whether the logits of every scored position are finite numbers.
        top_k_hits: Scored positions whose label is among the k tokens with the largest logits.
        hidden: Final hidden states [B, T, D], on the model's device; None unless asked for.
        cache: The pass's key-value cache; None unless asked for or where the model has none.
    """

    nll_sum: torch.Tensor
    el2n_sum: torch.Tensor
    hits: torch.Tensor
    n_scored: torch.Tensor
    hit: torch.Tensor
    finite: torch.Tensor
    top_k_hits: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    cache: Any = None


@torch.inference_mode()
def score_batch(
    model: Any,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    head: CausalHead | None = None,
    head_chunk: int = 1024,
    keep_states: bool = False,
    wanted: Wanted = EVERYTHING,
) -> BatchScores:
    """Returns the score sums of each row from one forward pass.

    Args:
        model: A causal language model of transformers.
        ids_BT: Token ids, padded on the right with any valid id.
        mask_BT: True where a token is scored as a label; column 0 has no context and is never scored.
        head: The model's head, `CausalHead.of` if None.
        head_chunk: Positions whose logits are computed at one time.
        keep_states: Also return hidden states and key-value cache, for memorization.
        wanted: What to compute; sums of anything else are zeros.
    """
    head = head or CausalHead.of(model)
    device = head.weight.device
    ids_BT = ids_BT.to(device)
    # Right padding is invisible to a causal model, so no attention mask: the kernels are then the same for all batches.
    output = model.base_model(input_ids=ids_BT, use_cache=keep_states)
    hidden_BTD = output.last_hidden_state
    cache = getattr(output, "past_key_values", None) if keep_states else None
    del output
    scored_BT = mask_BT[:, 1:].to(device)
    tokens = None
    if bool(scored_BT.any()):
        tokens = head.scores(hidden_BTD[:, :-1][scored_BT], ids_BT[:, 1:][scored_BT], head_chunk, wanted)
    hit_BT = _spread(scored_BT, tokens.hit if tokens else None, torch.bool)
    top_k_BT = _spread(scored_BT, tokens.top_k_hit if tokens else None, torch.bool)
    return BatchScores(
        nll_sum=_spread(scored_BT, tokens.nll if tokens else None, torch.float64).sum(1).cpu(),
        el2n_sum=_spread(scored_BT, tokens.el2n if tokens else None, torch.float64).sum(1).cpu(),
        hits=hit_BT.sum(1).cpu(),
        n_scored=scored_BT.sum(1).cpu(),
        hit=hit_BT.cpu(),
        finite=~_spread(scored_BT, ~tokens.finite if tokens else None, torch.bool).any(1).cpu(),
        top_k_hits=top_k_BT.sum(1).cpu() if wanted.top_k else None,
        hidden=hidden_BTD if keep_states else None,
        cache=cache,
    )


def _spread(scored_BT: torch.Tensor, values_N: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Returns the scored tokens' values at their places [B, T-1], zeros elsewhere."""
    out_BT = torch.zeros(scored_BT.shape, dtype=dtype, device=scored_BT.device)
    if values_N is not None:
        out_BT[scored_BT] = values_N.to(dtype)
    return out_BT


def one_exp(z_NV: torch.Tensor, labels_N: torch.Tensor) -> TokenScores:
    """Returns the scores of N positions from all of their logits [N, V], which are overwritten."""
    running = RunningScores(labels_N, z_NV.dtype, EVERYTHING)
    running.add(z_NV, 0)
    return running.finish()
