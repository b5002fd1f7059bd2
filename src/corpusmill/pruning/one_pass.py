"""NLL, EL2N and greedy hits of every token from one forward pass, in bounded memory.

One exponential per logit gives all three, to about 3e-6 relative in float32 where the textbook identity for EL2N loses
every digit on confident tokens. Logits exist for a few hundred positions at a time, never as [B, T, V].

Source: "When Less is More" (arXiv 2309.04564v1), equations 4 to 6, rearranged as derived in `one_exp`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from corpusmill.errors import ModelError

PROBE_TOKENS = 8


class TokenScores(NamedTuple):
    """Scores of N positions: NLL in nats, EL2N in [0, sqrt 2], and whether the label is the greedy token."""

    nll: torch.Tensor
    el2n: torch.Tensor
    hit: torch.Tensor


class BatchScores(NamedTuple):
    """Sums of each row of a batch; float64 and int64 tensors of length B on the CPU.

    Attributes:
        nll_sum: Nats.
        el2n_sum: Sum of the tokens' EL2N.
        hits: Scored positions whose label is the greedy token.
        n_scored: Scored positions.
        hit: Greedy hit by label position [B, T-1], False where masked.
        hidden: Final hidden states [B, T, D], on the model's device; None unless asked for.
        cache: The pass's key-value cache; None unless asked for or where the model has none.
    """

    nll_sum: torch.Tensor
    el2n_sum: torch.Tensor
    hits: torch.Tensor
    n_scored: torch.Tensor
    hit: torch.Tensor
    hidden: torch.Tensor | None = None
    cache: Any = None


def one_exp(z_NV: torch.Tensor, labels_N: torch.Tensor) -> TokenScores:
    """Returns the scores of N positions from their logits, with one exponential per logit.

    With m the largest logit but the label's, e_v = exp(z_v - m) for v != y, S1 = sum e, S2 = sum e^2 and
    d = m + ln S1 - z_y (so that p_y = sigmoid(-d)): NLL = softplus(d) and
    EL2N = sqrt((1 - p_y)^2 + sum p_v^2) = sigmoid(d) * sqrt(1 + S2 / S1^2). No term is a difference of near-equals.

    Args:
        z_NV: Logits in float32 or float64, V at least 2; overwritten.
        labels_N: Label of each position.
    """
    at = labels_N[:, None]
    label_z = z_NV.gather(1, at).squeeze(1)
    z_NV.scatter_(1, at, float("-inf"))
    m = z_NV.amax(1)
    hit = label_z > m
    tied = torch.nonzero(label_z == m).squeeze(1)
    if len(tied):  # the lowest id is the greedy token
        hit[tied] = lowest_argmax(z_NV[tied]) > labels_N[tied]
    z_NV.sub_(m[:, None]).exp_()
    s1 = z_NV.sum(1)
    s2 = torch.linalg.vector_norm(z_NV, dim=1).square()
    d = m - label_z + s1.log()
    nll = torch.logaddexp(d, d.new_zeros(()))
    return TokenScores(nll, torch.sigmoid(d) * torch.sqrt(1 + s2 / (s1 * s1)), hit)


def lowest_argmax(z_NV: torch.Tensor) -> torch.Tensor:
    """Returns the lowest id among the largest logits of each row; torch promises no order among equals."""
    ids_V = torch.arange(z_NV.shape[1], device=z_NV.device)
    return torch.where(z_NV == z_NV.amax(1, keepdim=True), ids_V, z_NV.shape[1]).amin(1)


@dataclass(frozen=True)
class CausalHead:
    """The part of a causal language model that makes logits of hidden states, applied to a few positions at a time.

    Attributes:
        weight: Output embedding [V, D]; rows that no token has are cut off.
        bias: Bias [V], or None.
        scale: Factor on the logits (Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``).
        softcap: Gemma's ``final_logit_softcapping``, None for none.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: Any, n_vocab: int | None = None) -> "CausalHead":
        """Returns the head of a transformers model.

        Args:
            model: A causal language model.
            n_vocab: Ids that the tokenizer has; rows beyond are padding and get no probability.

        Raises:
            ModelError: The model has no output embedding, or fewer rows than the tokenizer has ids.
        """
        layer = model.get_output_embeddings()
        if layer is None:
            raise ModelError(f"{type(model).__name__} has no output embedding; expected a causal language model")
        rows = layer.weight.shape[0]
        if n_vocab is not None and n_vocab > rows:
            raise ModelError(
                f"the tokenizer has {n_vocab} ids but the model's vocabulary has {rows} rows; they are no pair"
            )
        n = rows if n_vocab is None else n_vocab
        bias = getattr(layer, "bias", None)
        settings = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        return cls(
            weight=layer.weight.detach()[:n],
            bias=None if bias is None else bias.detach()[:n],
            scale=float(getattr(settings, "logit_scale", None) or 1.0)
            / float(getattr(settings, "logits_scaling", 1.0)),
            softcap=getattr(settings, "final_logit_softcapping", None),
        )

    def logits(self, h_ND: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Returns logits [N, V] in float32 (float64 for a float64 model), in ``out`` where it is given and fits."""
        if out is not None and h_ND.dtype == out.dtype and self.bias is None:
            z_NV = torch.mm(h_ND, self.weight.t(), out=out[: len(h_ND)])
        else:
            z_NV = F.linear(h_ND, self.weight, self.bias)
            z_NV = z_NV if z_NV.dtype == torch.float64 else z_NV.float()
        if self.scale != 1.0:
            z_NV.mul_(self.scale)
        if self.softcap:
            z_NV.div_(self.softcap).tanh_().mul_(self.softcap)
        return z_NV

    def scores(self, h_ND: torch.Tensor, labels_N: torch.Tensor, chunk: int) -> TokenScores:
        """Returns the scores of N positions, ``chunk`` of them at a time."""
        buffer = None
        if h_ND.dtype in (torch.float32, torch.float64) and self.bias is None:
            buffer = h_ND.new_empty((min(chunk, len(h_ND)), len(self.weight)))
        parts = [
            one_exp(self.logits(h_ND[i : i + chunk], buffer), labels_N[i : i + chunk])
            for i in range(0, len(h_ND), chunk)
        ]
        return TokenScores(*(torch.cat(field) for field in zip(*parts, strict=True)))

    def greedy(self, h_ND: torch.Tensor) -> torch.Tensor:
        """Returns the token of the largest logit of each position, the lowest id among equals."""
        return lowest_argmax(self.logits(h_ND))


@torch.inference_mode()
def score_batch(
    model: Any,
    ids_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    head: CausalHead | None = None,
    head_chunk: int = 256,
    keep_states: bool = False,
) -> BatchScores:
    """Returns the score sums of each row from one forward pass.

    Args:
        model: A causal language model of transformers.
        ids_BT: Token ids, padded on the right with any valid id.
        mask_BT: True where a token is scored as a label; column 0 has no context and is never scored.
        head: The model's head, `CausalHead.of` if None.
        head_chunk: Positions whose logits exist at one time.
        keep_states: Also return hidden states and key-value cache, for memorization.
    """
    head = head or CausalHead.of(model)
    device = head.weight.device
    ids_BT = ids_BT.to(device)
    # Right padding is invisible to a causal model, so no attention mask: the kernels are then the same for all batches.
    extra = {"use_cache": True} if keep_states else {"use_cache": False}
    output = model.base_model(input_ids=ids_BT, **extra)
    hidden_BTD = output.last_hidden_state
    scored_BT = mask_BT[:, 1:].to(device)
    nll_BT = torch.zeros(scored_BT.shape, dtype=torch.float64, device=device)
    el2n_BT = torch.zeros_like(nll_BT)
    hit_BT = torch.zeros(scored_BT.shape, dtype=torch.bool, device=device)
    if bool(scored_BT.any()):
        tokens = head.scores(hidden_BTD[:, :-1][scored_BT], ids_BT[:, 1:][scored_BT], head_chunk)
        nll_BT[scored_BT], el2n_BT[scored_BT], hit_BT[scored_BT] = tokens.nll.double(), tokens.el2n.double(), tokens.hit
    return BatchScores(
        nll_sum=nll_BT.sum(1).cpu(),
        el2n_sum=el2n_BT.sum(1).cpu(),
        hits=hit_BT.sum(1).cpu(),
        n_scored=scored_BT.sum(1).cpu(),
        hit=hit_BT.cpu(),
        hidden=hidden_BTD if keep_states else None,
        cache=getattr(output, "past_key_values", None) if keep_states else None,
    )


@torch.inference_mode()
def check_model(model: Any, n_vocab: int | None = None) -> CausalHead:
    """Returns the model's head after a probe: it must give the model's own logits, and later tokens must not matter.

    Raises:
        ModelError: The architecture changes its logits in a way the head does not know, or is not causal.
    """
    head = CausalHead.of(model, n_vocab)
    n = len(head.weight)
    ids_BT = (torch.arange(2 * PROBE_TOKENS, device=head.weight.device).reshape(2, -1) * 7 + 1) % n
    half = PROBE_TOKENS // 2
    ids_BT[1, :half] = ids_BT[0, :half]
    hidden_BTD = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    ours = torch.stack([head.logits(row_TD) for row_TD in hidden_BTD])
    theirs = model(input_ids=ids_BT, use_cache=False).logits[..., :n].to(ours.dtype)
    scale = float(theirs[theirs.isfinite()].abs().max()) if bool(theirs.isfinite().any()) else 0.0
    slack = (1e-4 if head.weight.dtype in (torch.float32, torch.float64) else 5e-2) * max(scale, 1.0)
    if not torch.allclose(ours, theirs, rtol=0, atol=slack, equal_nan=True):
        raise ModelError(
            f"{type(model).__name__} changes its logits in a way this scorer does not know (largest difference "
            f"{float((ours - theirs).abs().max()):.3g}); use another reference model or report the architecture"
        )
    if not torch.allclose(ours[0, :half], ours[1, :half], rtol=0, atol=slack, equal_nan=True):
        raise ModelError(f"{type(model).__name__} sees later tokens: expected a causal (decoder) language model")
    return head
