"""The line labeller's network: hashed words and scalars of each line, a small encoder over lines, one logit a line.

Shapes: B windows, N lines, W word hashes of all lines of a batch, D width, E word embedding width.
Positive logits mean "remove this line".
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corpusmill.prox.line_features import SCALARS, LineFeatures, bucket_ids


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread inside: sums are taken in the same order everywhere, and no thread waits for another.

    The matrices are small: on a busy machine two threads were 40 times slower than one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of a labeller's network.

    Attributes:
        n_buckets: Rows of the word embedding, row 0 for "no token".
        word_width: Width of a word embedding (E); projected to ``width``.
        width: Width of a line's state (D).
        n_layers: Attention layers over lines.
        n_heads: Attention heads; divides ``width``.
        max_lines: Lines of the longest window it is trained and run on.
        dropout: Dropout in training, after the line encoder and in the layers.
    """

    n_buckets: int = 8192
    word_width: int = 64
    width: int = 128
    n_layers: int = 2
    n_heads: int = 4
    max_lines: int = 1024
    dropout: float = 0.2

    def as_dict(self) -> dict[str, Any]:
        """Returns the sizes as they stand in ``config.json``."""
        return asdict(self)


@dataclass
class WindowBatch:
    """Windows of lines as tensors; line-level tensors are padded to the longest window.

    Attributes:
        words: int64 (W,), embedding rows of all lines' tokens, windows one after the other.
        offsets: int64 (B * N + 1,), where each padded line's tokens begin in ``words``.
        edges: int64 (B, N, 2), embedding rows of the first and last token.
        scalars: float32 (B, N, scalars), not standardised.
        padding: bool (B, N), True where there is no line.
    """

    words: Tensor
    offsets: Tensor
    edges: Tensor
    scalars: Tensor
    padding: Tensor


def collate(windows: Sequence[LineFeatures], n_buckets: int) -> WindowBatch:
    """Returns windows as one padded batch."""
    n_lines = max(window.n_lines for window in windows)
    counts = np.zeros((len(windows), n_lines), dtype=np.int64)
    edges = np.zeros((len(windows), n_lines, 2), dtype=np.int64)
    scalars = np.zeros((len(windows), n_lines, len(SCALARS)), dtype=np.float32)
    padding = np.ones((len(windows), n_lines), dtype=np.bool_)
    for b, window in enumerate(windows):
        n = window.n_lines
        counts[b, :n] = np.diff(window.offsets)
        edges[b, :n] = bucket_ids(window.edges, n_buckets)
        scalars[b, :n] = window.scalars()
        padding[b, :n] = False
    offsets = np.concatenate([[0], np.cumsum(counts.reshape(-1))])
    words = bucket_ids(np.concatenate([window.words for window in windows]), n_buckets)
    return WindowBatch(
        torch.from_numpy(words),
        torch.from_numpy(offsets),
        torch.from_numpy(edges),
        torch.from_numpy(scalars),
        torch.from_numpy(padding),
    )


class _AttentionLayer(nn.Module):
    """A pre-norm transformer encoder layer over lines."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x_BND: Tensor, mask_B11N: Tensor | None) -> Tensor:
        n_windows, n_lines, width = x_BND.shape
        qkv = self.qkv(self.norm_attention(x_BND)).view(n_windows, n_lines, 3, self.n_heads, width // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        # no dropout of attention weights: with it a CPU leaves the fused kernel, and a step takes 1.5 times as long
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11N)
        mixed = self.out(mixed.transpose(1, 2).reshape(n_windows, n_lines, width))
        x_BND = x_BND + F.dropout(mixed, drop, self.training)
        update = self.down(F.gelu(self.up(self.norm_mlp(x_BND))))
        return x_BND + F.dropout(update, drop, self.training)


class LineNetwork(nn.Module):
    """Bag of hashed words + first and last token + scalars -> two dilated convolutions -> attention over lines."""

    scalar_mean: Tensor
    scalar_scale: Tensor
    positions: Tensor

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        width, word_width = shape.width, shape.word_width
        self.words = nn.Embedding(shape.n_buckets, word_width)
        nn.init.normal_(self.words.weight, std=0.05)
        self.words.weight.data[0] = 0
        self.bag = nn.Linear(word_width, width, bias=False)
        self.first, self.last = nn.Linear(word_width, width, bias=False), nn.Linear(word_width, width, bias=False)
        self.scalar_mlp = nn.Sequential(nn.Linear(len(SCALARS), width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in (1, 2))
        self.convolution_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.layers = nn.ModuleList(_AttentionLayer(width, shape.n_heads, shape.dropout) for _ in range(shape.n_layers))
        self.head = nn.Linear(width, 1)
        self.register_buffer("scalar_mean", torch.zeros(len(SCALARS)))
        self.register_buffer("scalar_scale", torch.ones(len(SCALARS)))
        angle = torch.arange(shape.max_lines)[:, None] * torch.exp(
            -math.log(2000.0) * torch.arange(0, width, 2) / width
        )
        # a fixed function of the shape, so it is not stored
        self.register_buffer("positions", 0.3 * torch.cat([angle.sin(), angle.cos()], dim=1), persistent=False)

    def forward(self, batch: WindowBatch, token_dropout: float = 0.0) -> Tensor:
        """Returns logits (B, N); the value at padding is meaningless.

        Args:
            batch: At most ``shape.max_lines`` lines a window.
            token_dropout: Share of tokens that are left out; for training.
        """
        padding_BN1 = batch.padding[..., None]
        x_BND = self._lines(batch, token_dropout)
        x_BND = F.dropout(x_BND, self.shape.dropout, self.training).masked_fill(padding_BN1, 0.0)
        for convolution, norm in zip(self.convolutions, self.convolution_norms, strict=True):
            inner = norm(x_BND).masked_fill(padding_BN1, 0.0).transpose(1, 2)
            x_BND = (x_BND + F.gelu(convolution(inner)).transpose(1, 2)).masked_fill(padding_BN1, 0.0)
        x_BND = x_BND + self.positions[: x_BND.shape[1]]
        mask = None if not bool(batch.padding.any()) else ~batch.padding[:, None, None, :]
        for layer in self.layers:
            x_BND = layer(x_BND, mask)
        return self.head(x_BND)[..., 0]

    def _lines(self, batch: WindowBatch, token_dropout: float) -> Tensor:
        n_windows, n_lines = batch.padding.shape
        counts = batch.offsets.diff()
        weights_W = counts.clamp(min=1).float().rsqrt().repeat_interleave(counts)
        edges_BN2 = batch.edges
        if token_dropout:
            weights_W = weights_W * (torch.rand(len(weights_W)) >= token_dropout)
            edges_BN2 = edges_BN2 * (torch.rand(edges_BN2.shape) >= token_dropout)
        bag = F.embedding_bag(
            batch.words, self.words.weight, batch.offsets[:-1], mode="sum", per_sample_weights=weights_W
        ).view(n_windows, n_lines, -1)
        edge_vectors = F.embedding(edges_BN2, self.words.weight)
        scalars = ((batch.scalars - self.scalar_mean) / self.scalar_scale).clamp(-5, 5)
        x_BND = self.bag(bag) + self.first(edge_vectors[:, :, 0]) + self.last(edge_vectors[:, :, 1])
        return self.norm(x_BND + self.scalar_mlp(scalars))
