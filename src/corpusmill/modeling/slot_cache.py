"""Keys and values of rows that are decoded together, and attention of one row over the slots that it has.

Shapes: R rows of the cache, S slots, n tokens of a row, H heads, K key-value heads, G heads sharing one of them, D
width of a head.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

BLOCK_ROWS = 256
"""Queries, heads that share keys counted each, that attend in one call on a CPU: of a longer prompt, fewer queries
over the keys in front of them cost less than all of them over all keys (measured: 1.5 ms against 2.0 at 470 tokens)."""


class SlotCache:
    """Keys and values of R rows with S slots each; memory is taken layer by layer when its shape is first seen.

    Args:
        n_rows: R.
        n_slots: S, at least the positions of the longest row.
        every_layer: False: each layer takes the place of the one before, for a single pass.
    """

    def __init__(self, n_rows: int, n_slots: int, *, every_layer: bool = True) -> None:
        self.n_rows, self.n_slots, self.every_layer = n_rows, n_slots, every_layer
        self._keys: dict[int, torch.Tensor] = {}  # layer -> [R, K, S, D]
        self._values: dict[int, torch.Tensor] = {}
        self._sight: dict[int, torch.Tensor] = {}  # G -> mask

    def write(self, layer: int, slots: torch.Tensor, key_NKD: torch.Tensor, value_NKD: torch.Tensor) -> None:
        """Puts keys and values of packed tokens into slots [N * K], numbered over all rows and heads."""
        layer = layer if self.every_layer else 0
        for stores, new_NKD in ((self._keys, key_NKD), (self._values, value_NKD)):
            if layer not in stores:
                n_heads, width = new_NKD.shape[1:]
                stores[layer] = new_NKD.new_zeros((self.n_rows, n_heads, self.n_slots, width))
            stores[layer].flatten(0, 2).index_copy_(0, slots, new_NKD.flatten(0, 1))

    def of(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns keys and values [R, K, S, D] of a layer."""
        layer = layer if self.every_layer else 0
        return self._keys[layer], self._values[layer]

    def share(self, layer: int, rows: Sequence[int], n_slots: int) -> None:
        """Copies a layer's first slots of the first of some rows to the other ones."""
        for stored in self.of(layer):
            stored[rows[1] : rows[-1] + 1, :, :n_slots] = stored[rows[0], :, :n_slots]

    def move(self, source: int, target: int, n_slots: int) -> None:
        """Copies the first slots of one row to another row."""
        for store in (self._keys, self._values):
            for stored in store.values():
                stored[target, :, :n_slots] = stored[source, :, :n_slots]

    def attend(
        self, layer: int, row: int, start: int, q_nHD: torch.Tensor, scale: float | None, out_nHD: torch.Tensor
    ) -> None:
        """Writes the attention of a row's tokens, from a position on, to the row's slots up to each of them.

        Args:
            layer: Which layer.
            row: The row of the cache; it holds keys and values of the tokens already.
            start: Position of the first token.
            q_nHD: Queries.
            scale: Factor of the scores; None as torch has it.
            out_nHD: Where the attention goes.
        """
        keys, values = (stored[row : row + 1] for stored in self.of(layer))
        n_tokens, n_heads, width = q_nHD.shape
        n_key_heads = keys.shape[1]
        n_shared = n_heads // n_key_heads
        n_block = block_tokens(n_shared)
        for first in range(0, n_tokens, n_block):
            q = q_nHD[first : first + n_block]
            n, end = len(q), start + first + len(q)
            # [n, K, G, D] -> [1, K, n * G, D]: the heads of a token stand side by side
            folded = q.view(n, n_key_heads, n_shared, width).transpose(0, 1).reshape(1, n_key_heads, -1, width)
            mask = None if n == 1 else self.sight(start + first, n, n_shared, q.dtype)
            out = F.scaled_dot_product_attention(
                folded, keys[:, :, :end], values[:, :, :end], attn_mask=mask, scale=scale
            )
            unfolded = out.view(n_key_heads, n, n_shared, -1).transpose(0, 1)
            out_nHD[first : first + n].view(n, n_key_heads, n_shared, -1).copy_(unfolded)

    def sight(self, start: int, n: int, n_shared: int, dtype: torch.dtype) -> torch.Tensor:
        """Returns the mask [n * G, start + n] of n tokens from a position on: a view of memory that all share."""
        if n_shared not in self._sight:
            n_block = block_tokens(n_shared)
            last = torch.arange(n_block).repeat_interleave(n_shared)[:, None] + self.n_slots
            hidden = torch.arange(self.n_slots + n_block) > last
            self._sight[n_shared] = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
        return self._sight[n_shared][: n * n_shared, self.n_slots - start : self.n_slots + n]


def block_tokens(n_shared: int) -> int:
    """Returns how many tokens attend in one call, where so many heads share keys and values."""
    return max(16, BLOCK_ROWS // n_shared)
