"""Causal language models over packed tokens: no padding in any linear layer, keys and values kept in fixed slots.

All tokens of a batch stand in one row [1, N]. Only attention sees documents: this module registers an attention
function of transformers that reads from a `PackedStep` which tokens belong together. A token's slot in its row of the
cache is its position, so a row needs no mask of its own history: a query at position p sees the slots 0 to p, whatever
stands behind them. Rejected drafts and earlier owners of a row are thereby invisible and overwritten in time.

Heads that share keys and values (grouped or multi-query attention) are folded into the query axis, where transformers
copies keys and values once for each head as soon as there is a mask.

Shapes: N packed tokens, R rows of a step, S slots, H heads, G heads sharing one key head, D head width, K tokens of the
widest row in a step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from corpusmill.modeling.plain_llama import embedded, is_plain_llama, last_layer_output, layer_output, norm
from corpusmill.modeling.slot_cache import SlotCache

NAME = "corpusmill_packed"
CPU_ROWS = 512
"""Rows that pass a feed-forward layer together on a CPU, so that its inner activations stay in the cache."""
_REFUSED = ("softcap", "s_aux", "sliding_window", "position_bias", "head_mask")


@dataclass
class PackedStep:
    """Which of the packed tokens belong together; made by `prefill_step` and `decode_step`.

    Attributes:
        cache: Where keys and values go.
        members: Row of the cache of each row of the step.
        lengths: Tokens of each row of the step.
        rows: [N] row of the cache of each packed token.
        places: [N] position of each packed token.
        starts: First position of each row in a step of decoding or on a CPU; None for whole prompts on a GPU.
        n_shared: Positions that all rows share with the first one, which alone has tokens there.
        n_seen: Slots in sight of any query.
        spread: [R * K] packed token that stands at each padded place; None where K is 1, and on a CPU.
        gather: [N] padded place of each packed token.
        mask: [R, 1, K, S] added to the scores; None on a CPU.
    """

    cache: SlotCache
    members: Sequence[int]
    lengths: Sequence[int]
    rows: torch.Tensor
    places: torch.Tensor
    starts: Sequence[int] | None = None
    n_shared: int = 0
    n_seen: int = 0
    spread: torch.Tensor | None = None
    gather: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    _folded: dict[int, Any] = field(default_factory=dict)  # heads per key head -> masks for queries side by side
    _slots: dict[int, torch.Tensor] = field(default_factory=dict)  # key heads -> slots [N * H], numbered over all rows

    def slots(self, n_heads: int) -> torch.Tensor:
        """Returns the slot of each head of each packed token, numbered over all rows and heads."""
        if n_heads not in self._slots:
            head_H = torch.arange(n_heads, device=self.rows.device)
            slots_NH = (self.rows[:, None] * n_heads + head_H) * self.cache.n_slots + self.places[:, None]
            self._slots[n_heads] = slots_NH.flatten()
        return self._slots[n_heads]

    def folded_mask(self, n_shared: int) -> torch.Tensor:
        """Returns the mask [R, 1, G * K, S] for queries of G heads side by side."""
        assert self.mask is not None
        if n_shared == 1:
            return self.mask
        if n_shared not in self._folded:
            self._folded[n_shared] = self.mask.repeat(1, 1, n_shared, 1)
        found: torch.Tensor = self._folded[n_shared]
        return found

    def write(self, layer: int, key_NHD: torch.Tensor, value_NHD: torch.Tensor) -> None:
        """Puts keys and values of a layer into the cache."""
        self.cache.write(layer, self.slots(key_NHD.shape[1]), key_NHD, value_NHD)
        if self.n_shared and len(self.members) > 1:
            self.cache.share(layer, self.members, self.n_shared)

    def attend(self, layer: int, query_NHD: torch.Tensor, scale: float | None) -> torch.Tensor:
        """Returns attention [N, H, D], row by row over the slots that each row has."""
        assert self.starts is not None
        out_NHD = query_NHD.new_empty((*query_NHD.shape[:2], self.cache.of(layer)[1].shape[3]))
        first = 0
        for row, start, n in zip(self.members, self.starts, self.lengths, strict=True):
            end = first + n
            self.cache.attend(layer, row, start, query_NHD[first:end], scale, out_NHD[first:end])
            first = end
        return out_NHD

    def single(self, wanted: torch.Tensor) -> "PackedStep":
        """Returns the step in which some of the packed tokens attend, each one for itself."""
        rows, places = self.rows[wanted], self.places[wanted]
        return PackedStep(self.cache, rows.tolist(), [1] * len(rows), rows, places, starts=places.tolist())


def prefill_step(
    cache: SlotCache, rows: Sequence[int], lengths: Sequence[int], model: Any, n_shared: int = 0
) -> PackedStep:
    """Returns the step of prompts that lie one behind the other.

    Args:
        cache: Where keys and values go.
        rows: Row of the cache for each prompt; consecutive ones where they share a beginning.
        lengths: Tokens of each prompt.
        model: The model, for its device.
        n_shared: Tokens with which all prompts begin; all but the first prompt are packed without them. Only where
            `shares_beginnings`, and less than the shortest prompt has.
    """
    starts = [0] + [n_shared] * (len(lengths) - 1)
    packed_lengths = [n - start for n, start in zip(lengths, starts, strict=True)]
    step = PackedStep(cache, rows, packed_lengths, *_places(rows, starts, packed_lengths, model.device))
    if shares_beginnings(model):
        step.starts, step.n_shared = starts, n_shared
    return step


def decode_step(cache: SlotCache, starts: Sequence[int], lengths: Sequence[int], model: Any) -> PackedStep:
    """Returns the step in which row r of the cache goes on with ``lengths[r]`` tokens at position ``starts[r]``.

    On a GPU all rows attend in one padded call. On a CPU each row attends for itself, so that neither a longer block
    nor a longer history of another row is computed.

    Args:
        cache: Holds the positions before each start.
        starts: First new position of each of the rows 0, 1, ...
        lengths: New tokens of each row, at least 1.
        model: The model, for its device and the dtype of its mask.
    """
    rows = range(len(lengths))
    step = PackedStep(cache, rows, lengths, *_places(rows, starts, lengths, model.device), starts=starts)
    return step if _attends_by_rows(model) else _padded(step, starts, model.device, model.dtype)


def shares_beginnings(model: Any) -> bool:
    """Returns whether `prefill_step` may leave out what all prompts begin with."""
    return _attends_by_rows(model)


def _attends_by_rows(model: Any) -> bool:
    return bool(model.device.type == "cpu")


def _places(
    rows: Sequence[int], starts: Sequence[int], lengths: Sequence[int], device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns row and position of every packed token."""
    row_N = [row for row, n in zip(rows, lengths, strict=True) for _ in range(n)]
    place_N = [start + i for start, n in zip(starts, lengths, strict=True) for i in range(n)]
    return torch.tensor(row_N, device=device), torch.tensor(place_N, device=device)


def _padded(step: PackedStep, starts: Sequence[int], device: Any, dtype: torch.dtype) -> PackedStep:
    """Adds what one call over all rows needs to a step."""
    width, lengths_R = max(step.lengths), torch.tensor(step.lengths)
    step.n_seen = max(start + n for start, n in zip(starts, step.lengths, strict=True))
    place_K = torch.arange(width)
    position_RK = torch.tensor(starts)[:, None] + place_K
    real_RK = place_K < lengths_R[:, None]
    if width > 1:
        gather = real_RK.flatten().nonzero()[:, 0]
        step.gather = gather.to(device)
        spread = torch.zeros(real_RK.numel(), dtype=torch.long)  # padded places repeat token 0; nobody reads them
        spread[gather] = torch.arange(len(gather))
        step.spread = spread.to(device)
    hidden_RKS = torch.arange(step.n_seen, device=device) > position_RK.to(device)[:, :, None]
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
    return _attention(module.layer_idx, query, key_NHD, value_NHD, packed, scaling), None


def _attention(
    layer: int,
    query: torch.Tensor,
    key_NHD: torch.Tensor,
    value_NHD: torch.Tensor,
    step: PackedStep,
    scaling: float | None,
) -> torch.Tensor:
    """Returns attention [1, N, H, D] of queries [1, H, N, D]; new keys and values go into the cache before."""
    step.write(layer, key_NHD, value_NHD)
    if step.starts is None:
        key, value = key_NHD.transpose(0, 1)[None], value_NHD.transpose(0, 1)[None]
        return _whole_prompts(query, key, value, step.lengths, scaling)
    if step.mask is None:
        return step.attend(layer, query[0].transpose(0, 1), scaling)[None]
    return _all_rows(query, *step.cache.of(layer), step, scaling)


def _whole_prompts(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scaling: float | None
) -> torch.Tensor:
    shared = query.shape[1] != key.shape[1]
    parts = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=shared)
        for q, k, v in zip(*(x.split(list(lengths), dim=2) for x in (query, key, value)), strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)).transpose(1, 2)


def _all_rows(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, step: PackedStep, scaling: float | None
) -> torch.Tensor:
    """Attends in one call, rows padded to the widest block and the longest history."""
    n_rows, n_heads, head_width = len(step.lengths), query.shape[1], query.shape[3]
    n_key_heads = keys.shape[1]
    n_shared = n_heads // n_key_heads
    query_NHD = query[0].transpose(0, 1)
    if step.spread is not None:
        query_NHD = query_NHD.index_select(0, step.spread)
    width = query_NHD.shape[0] // n_rows
    # [R, K, Hk, G, D] -> [R, Hk, G * K, D]
    folded = query_NHD.reshape(n_rows, width, n_key_heads, n_shared, head_width).permute(0, 2, 3, 1, 4)
    out = F.scaled_dot_product_attention(
        folded.reshape(n_rows, n_key_heads, n_shared * width, head_width),
        keys[:n_rows, :, : step.n_seen],
        values[:n_rows, :, : step.n_seen],
        attn_mask=step.folded_mask(n_shared),
        scale=scaling,
    )
    value_width = out.shape[-1]
    out = out.view(n_rows, n_key_heads, n_shared, width, value_width).permute(0, 3, 1, 2, 4)
    out_NHD = out.reshape(n_rows * width, n_heads, value_width)
    if step.gather is not None:
        out_NHD = out_NHD.index_select(0, step.gather)
    return out_NHD[None]


class _Rows:
    """The tokens of a step as `corpusmill.modeling.plain_llama` wants them."""

    n_block = CPU_ROWS

    def __init__(self, step: PackedStep) -> None:
        self.step = step

    def attend(
        self, layer: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Returns attention [N, H * D]."""
        self.step.write(layer, k_NKD, v_NKD)
        return self.step.attend(layer, q_NHD, scale).flatten(1)

    def attend_some(
        self,
        layer: int,
        wanted_B: torch.Tensor,
        q_BHD: torch.Tensor,
        k_NKD: torch.Tensor,
        v_NKD: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Returns attention [B, H * D] of some tokens."""
        self.step.write(layer, k_NKD, v_NKD)
        return self.step.single(wanted_B).attend(layer, q_BHD, scale).flatten(1)


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
    if _attends_by_rows(model) and is_plain_llama(model):
        return _plain_logits(model, torch.tensor(ids), torch.tensor(positions), step, wanted)
    options = {} if wanted is None else {"logits_to_keep": torch.tensor(wanted, device=device)}
    logits: torch.Tensor = model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        use_cache=False,
        packed=step,
        **options,
    ).logits
    return logits[0]


def _plain_logits(
    model: Any, ids_N: torch.Tensor, position_N: torch.Tensor, step: PackedStep, wanted: Sequence[int] | None
) -> torch.Tensor:
    hidden_NM, angles = embedded(model, ids_N, position_N)
    layers, rows = model.model.layers, _Rows(step)
    for layer in layers[:-1]:
        hidden_NM = layer_output(layer, hidden_NM, angles, rows)
    if wanted is None:
        hidden_NM = layer_output(layers[-1], hidden_NM, angles, rows)
    else:
        hidden_NM = last_layer_output(layers[-1], hidden_NM, angles, rows, torch.tensor(wanted))
    logits: torch.Tensor = model.lm_head(norm(model.model.norm, hidden_NM))
    return logits


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
                step = prefill_step(cache, [0, 1], [4, 2], model)
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
