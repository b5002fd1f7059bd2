"""One forward pass over many prompts for the logits behind each prompt's last token, and nothing else.

For plain Llama models, the shape of the public refiners, the pass is written out (`corpusmill.modeling.plain_llama`):

- packed on a CPU: the prompts' tokens stand one behind another, so no padding is computed, what all prompts of a pass
  begin with is computed once, and attention runs prompt by prompt;
- rectangular on a GPU, padded on the right, where a causal model cannot see it, since one large kernel beats many small
  ones and length-sorted batches hold little padding;
- the last layer computes keys and values for every token but queries, feed-forward and output layer for the last token
  of each prompt alone: of 24 layers that saves 4 % beside the 13 % of the output layer (arithmetic of the 354M shape).

Any other architecture takes its own forward with padding on the right and a hook that gives the output layer one row a
prompt. All three are the same function up to float rounding.

Shapes: B prompts, T tokens of the longest, N rows (tokens of all prompts, or B * T), H heads, K key-value heads, D
width of a head, M width of the model, V vocabulary.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F

from corpusmill.modeling.packed_attention import packed_logits, prefill_step
from corpusmill.modeling.plain_llama import embedded, is_plain_llama, last_layer_output, layer_output, norm
from corpusmill.modeling.slot_cache import SlotCache
from corpusmill.modeling.token_batches import pad_right, plan_batches, shared_beginning

CPU_BATCH_TOKENS = 2048
"""Tokens of a packed batch on a CPU: larger batches only leave the caches (measured flat from 1,000 to 16,000)."""


def plan_prefill(model: Any, lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Returns batches of prompt numbers for `last_logits`, longest prompts first.

    Args:
        model: The model that will run them.
        lengths: Tokens of each prompt, at least 1.
        token_budget: Tokens of a batch at most, padding included; packed prompts are not padded, but each has a row of
            the cache as long as the longest prompt.
    """
    if not _packs(model):
        return plan_batches(lengths, token_budget)
    budget = min(token_budget, CPU_BATCH_TOKENS)
    batches: list[list[int]] = []
    held = longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        slots = (len(batches[-1]) + 1) * longest if batches else 0
        if not batches or held + lengths[index] > budget or slots > token_budget:
            batches.append([])
            held, longest = 0, lengths[index]
        batches[-1].append(index)
        held += lengths[index]
    return batches


def last_logits(model: Any, prompts: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """Returns float32 logits [B, V] of the token that follows each prompt, on the model's device.

    On a GPU the call returns before the device is done.

    Args:
        model: A causal language model of transformers.
        prompts: Token ids of one batch (`plan_prefill`), none empty.
        pad: Id in padded places; any valid id will do.
    """
    with torch.inference_mode():
        if not is_plain_llama(model):
            return _own_forward(model, prompts, pad).float()
        if _packs(model):
            return _packed(model, prompts).float()
        return _llama(model, _Rectangular(prompts, pad, model.device)).float()


def _packs(model: Any) -> bool:
    return is_plain_llama(model) and model.device.type == "cpu"


def _own_forward(model: Any, prompts: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    ids_BT, mask_BT = pad_right(prompts, pad)
    last_B = (mask_BT.sum(dim=1) - 1).to(model.device)

    def take_last(_head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTM = inputs[0]
        row_B = torch.arange(hidden_BTM.shape[0], device=hidden_BTM.device)
        return (hidden_BTM[row_B, last_B][:, None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take_last)
    try:
        return model(input_ids=ids_BT.to(model.device), use_cache=False).logits[:, 0]
    finally:
        hook.remove()


class _Rectangular:
    """Prompts padded on the right to the longest one, N = B * T.

    Attributes:
        ids_N: Token ids.
        position_N: Position of each token in its prompt.
        last_B: Row of each prompt's last token.
        n_block: Rows that pass a feed-forward layer together.
    """

    n_block = 1 << 30

    def __init__(self, prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> None:
        ids_BT, mask_BT = pad_right(prompts, pad)
        self.shape = ids_BT.shape
        self.ids_N = ids_BT.flatten().to(device, non_blocking=True)
        self.position_N = torch.arange(self.shape[1], device=device).repeat(self.shape[0])
        self.mask_B11T = mask_BT[:, None, None].to(device, non_blocking=True)
        self.last_B = (mask_BT.sum(dim=1) - 1 + torch.arange(self.shape[0]) * self.shape[1]).to(device)

    def attend(
        self, _layer: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Returns attention [N, H * D]; rows of padding hold what no real token reads."""
        q, k, v = (x.unflatten(0, self.shape).transpose(1, 2) for x in (q_NHD, k_NKD, v_NKD))
        out_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        return out_BHTD.transpose(1, 2).flatten(0, 1).flatten(1)

    def attend_some(
        self,
        _layer: int,
        _wanted_B: torch.Tensor,
        q_BHD: torch.Tensor,
        k_NKD: torch.Tensor,
        v_NKD: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Returns attention [B, H * D] of each prompt's last token to its prompt."""
        k, v = (x.unflatten(0, self.shape).transpose(1, 2) for x in (k_NKD, v_NKD))
        out_BH1D = F.scaled_dot_product_attention(
            q_BHD[:, :, None], k, v, attn_mask=self.mask_B11T, scale=scale, enable_gqa=True
        )
        return out_BH1D.flatten(1)


def _packed(model: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Returns the logits [B, V] of a plain Llama on a CPU."""
    lengths = [len(ids) for ids in prompts]
    cache = SlotCache(len(prompts), max(lengths), every_layer=False)
    step = prefill_step(cache, range(len(prompts)), lengths, model, shared_beginning(prompts))
    ids = [i for prompt, n in zip(prompts, step.lengths, strict=True) for i in prompt[-n:]]
    last = [end - 1 for end in accumulate(step.lengths)]
    return packed_logits(model, ids, step.places.tolist(), step, last)


def _llama(model: Any, rows: _Rectangular) -> torch.Tensor:
    """Returns the logits [B, V] of a plain Llama."""
    decoder = model.model
    hidden_NM, angles = embedded(model, rows.ids_N, rows.position_N)
    for layer in decoder.layers[:-1]:
        hidden_NM = layer_output(layer, hidden_NM, angles, rows)
    hidden_BM = last_layer_output(decoder.layers[-1], hidden_NM, angles, rows, rows.last_B)
    return model.lm_head(norm(decoder.norm, hidden_BM))
