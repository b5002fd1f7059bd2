"""Causal language models over packed tokens: no padding in any linear layer, keys and values kept in fixed slots.

All tokens of a batch stand in one row [1, N]. Only attention sees documents: this module registers an attention
function of transformers that reads from a `PackedStep` which tokens belong together. A token's slot in its row of the
cache is its position, so a row needs no mask of its own history: a query at position p sees the slots 0 to p, whatever
stands behind them. Rejected drafts and earlier owners of a row are thereby invisible and overwritten in time.

Heads that share keys and values (grouped or multi-query attention) are folded into the query axis, where transformers
copies keys and values once for each head as soon as there is a mask.

Shapes: N packed tokens, R rows of the cache, S slots, H heads, G heads sharing one key head, D head width, K tokens of
the widest row in a step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

NAME = "corpusmill_packed"
_REFUSED = ("softcap", "s_aux", "sliding_window", "position_bias", "head_mask")


class SlotCache:
    """Keys and values of R rows with S slots each; memory is taken layer by layer when its shape is first seen.

    Args:
        n_rows: R.
        n_slots: S, at least the positions of the longest row.
    """

    def __init__(self, n_rows: int, n_slots: int) -> None:
        self.n_rows, self.n_slots = n_rows, n_slots
        self.keys: dict[int, torch.Tensor] = {}  # layer -> [R, S, H / G, D]
        self.values: dict[int, torch.Tensor] = {}

    def write(self, layer: int, slots_N: torch.Tensor, key_NHD: torch.Tensor, value_NHD: torch.Tensor) -> None:
        """Puts keys and values of packed tokens into their slots, numbered over all rows."""
        if layer not in self.keys:
            for store, new in ((self.keys, key_NHD), (self.values, value_NHD)):
                store[layer] = new.new_zeros((self.n_rows, self.n_slots, *new.shape[1:]))
        self.keys[layer].flatten(0, 1).index_copy_(0, slots_N, key_NHD)
        self.values[layer].flatten(0, 1).index_copy_(0, slots_N, value_NHD)

    def move(self, source: int, target: int, n_slots: int) -> None:
        """Copies the first slots of one row to another row."""
        for store in (self.keys, self.values):
            for stored in store.values():
                stored[target, :n_slots] = stored[source, :n_slots]


@dataclass
class PackedStep:
    """Which of the packed tokens belong together; made by `prefill_step` and `decode_step`."""

    cache: SlotCache | None
    lengths: Sequence[int]
    slots: torch.Tensor | None = None  # [N] slot of each packed token, numbered over all rows
    n_seen: int = 0  # decoding: slots in sight of any query
    spread: torch.Tensor | None = None  # [R * K] packed token that stands at each padded place; None where K == 1
    gather: torch.Tensor | None = None  # [N] padded place of each packed token
    mask: torch.Tensor | None = None  # [R, 1, K, S] added to the scores; None for whole prompts
    folded: dict[int, torch.Tensor] = field(default_factory=dict)  # heads per key head -> mask [R, 1, G * K, S]

    def folded_mask(self, n_shared: int) -> torch.Tensor:
        """Returns the mask for queries of G heads side by side."""
        assert self.mask is not None
        if n_shared == 1:
            return self.mask
        if n_shared not in self.folded:
            self.folded[n_shared] = self.mask.repeat(1, 1, n_shared, 1)
        return self.folded[n_shared]


def prefill_step(cache: SlotCache | None, rows: Sequence[int], lengths: Sequence[int], device: Any) -> PackedStep:
    """Returns the step of whole prompts that lie one behind the other; ``cache`` None keeps no keys and values.

    Args:
        cache: Where keys and values go.
        rows: Row of the cache for each prompt.
        lengths: Tokens of each prompt.
        device: Torch device of the model.
    """
    if cache is None:
        return PackedStep(None, lengths)
    slots = [torch.arange(n) + row * cache.n_slots for row, n in zip(rows, lengths, strict=True)]
    return PackedStep(cache, lengths, torch.cat(slots).to(device))


def decode_step(cache: SlotCache, starts: Sequence[int], lengths: Sequence[int], model: Any) -> PackedStep:
    """Returns the step in which row r of the cache goes on with ``lengths[r]`` tokens at position ``starts[r]``.

    Args:
        cache: Holds the positions before each start.
        starts: First new position of each of the rows 0, 1, ...
        lengths: New tokens of each row, at least 1.
        model: The model, for its device and the dtype of its mask.
    """
    device, dtype = model.device, model.dtype
    width, n_seen = max(lengths), max(start + n for start, n in zip(starts, lengths, strict=True))
    starts_R = torch.tensor(starts)
    place_K = torch.arange(width)
    position_RK = starts_R[:, None] + place_K
    real_RK = place_K < torch.tensor(lengths)[:, None]
    slots_RK = position_RK + torch.arange(len(lengths))[:, None] * cache.n_slots
    step = PackedStep(cache, lengths, slots_RK[real_RK].to(device), n_seen)
    if width > 1:
        gather = real_RK.flatten().nonzero()[:, 0]
        step.gather = gather.to(device)
        spread = torch.zeros(real_RK.numel(), dtype=torch.long)  # padded places repeat token 0; nobody reads them
        spread[gather] = torch.arange(len(gather))
        step.spread = spread.to(device)
    hidden_RKS = torch.arange(n_seen, device=device) > position_RK.to(device)[:, :, None]
    mask = torch.zeros(hidden_RKS.shape, dtype=dtype, device=device).masked_fill_(hidden_RKS, float("-inf"))
    step.mask = mask[:, None]
    return step


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    packed: PackedStep | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls: [1, H, N, D] in, [1, N, H, D] out.

    Raises:
        NotImplementedError: The model wants attention of another kind (windows, soft caps, sinks, biases), or does not
            hand the step on.
    """
    wanted = [name for name in _REFUSED if options.get(name) is not None]
    if packed is None or attention_mask is not None or wanted:
        raise NotImplementedError(f"{type(module).__name__}: packed attention lacks {wanted or 'its step'}")
    key_NHD, value_NHD = key[0].transpose(0, 1), value[0].transpose(0, 1)
    if packed.cache is not None and packed.slots is not None:
        packed.cache.write(module.layer_idx, packed.slots, key_NHD, value_NHD)
    if packed.mask is None:
        return _whole_prompts(query, key, value, packed.lengths, scaling), None
    assert packed.cache is not None
    stored_keys, stored_values = packed.cache.keys[module.layer_idx], packed.cache.values[module.layer_idx]
    return _new_tokens(query, stored_keys, stored_values, packed, scaling), None


def _whole_prompts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float | None
) -> torch.Tensor:
    shared = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=shared)
        for q, k, v in zip(*(x.split(list(lengths), dim=2) for x in (query, key, value)), strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)).transpose(1, 2)


def _new_tokens(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, packed: PackedStep, scaling: float | None
) -> torch.Tensor:
    n_rows, n_heads, head_width = len(packed.lengths), query.shape[1], query.shape[3]
    n_key_heads = keys.shape[2]
    n_shared = n_heads // n_key_heads
    query_NHD = query[0].transpose(0, 1)
    if packed.spread is not None:
        query_NHD = query_NHD.index_select(0, packed.spread)
    width = query_NHD.shape[0] // n_rows
    # [R, K, Hk, G, D] -> [R, Hk, G * K, D]
    folded = query_NHD.reshape(n_rows, width, n_key_heads, n_shared, head_width).permute(0, 2, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        folded.reshape(n_rows, n_key_heads, n_shared * width, head_width),
        keys[:n_rows, : packed.n_seen].transpose(1, 2),
        values[:n_rows, : packed.n_seen].transpose(1, 2),
        attn_mask=packed.folded_mask(n_shared),
        scale=scaling,
    )
    value_width = out.shape[-1]
    out = out.view(n_rows, n_key_heads, n_shared, width, value_width).permute(0, 3, 1, 2, 4)
    out_NHD = out.reshape(n_rows * width, n_heads, value_width)
    if packed.gather is not None:
        out_NHD = out_NHD.index_select(0, packed.gather)
    return out_NHD[None]


AttentionInterface.register(NAME, packed_attention)


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """Lets a model attend by `packed_attention` inside the block, and as before behind it."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def packed_logits(
    model: Any, ids: Sequence[int], positions: Sequence[int], step: PackedStep, wanted: Sequence[int] | None = None
) -> torch.Tensor:
    """Returns logits [M, V] of packed tokens, inside a `packed` block; the output layer runs for wanted tokens only.

    Args:
        model: A causal language model.
        ids: Packed token ids, N of them.
        positions: Position of each in its own row.
        step: Which tokens belong together.
        wanted: M indices of packed tokens; None for all of them.
    """
    device = model.device
    options = {} if wanted is None else {"logits_to_keep": torch.tensor(wanted, device=device)}
    logits: torch.Tensor = model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        use_cache=False,
        packed=step,
        **options,
    ).logits
    return logits[0]


def supports_packing(model: Any, vocabulary: int) -> bool:
    """Returns whether a model gives the same logits packed as alone, by trying: two short prompts and one more step.

    Args:
        model: A causal language model in evaluation mode.
        vocabulary: Ids below this number may be used.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        return False
    prompts = [[i % vocabulary for i in range(3, 3 + n)] for n in (5, 3)]
    alone, together = [], []
    with torch.inference_mode():
        for ids in prompts:
            alone.append(model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -2:])
        try:
            with packed(model):
                cache = SlotCache(2, 8)
                step = prefill_step(cache, [0, 1], [4, 2], model.device)
                first = packed_logits(model, prompts[0][:4] + prompts[1][:2], [0, 1, 2, 3, 0, 1], step, [3, 5])
                step = decode_step(cache, [4, 1], [1, 2], model)  # the second row's last token is written again
                second = packed_logits(model, [prompts[0][4], *prompts[1][1:]], [4, 1, 2], step)
        except (NotImplementedError, TypeError, ValueError, KeyError, AttributeError, RuntimeError):
            return False
    together = [torch.stack([first[0], second[0]]), second[1:]]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.15
    return all(
        bool(torch.isfinite(b).all()) and bool((a - b).abs().max() <= tolerance * (1 + a.abs().max()))
        for a, b in zip(alone, together, strict=True)
    )
