"""The program writer's network: the line labeller's encoders, and a small causal decoder that writes program tokens.

The encoders (trained as line labellers, then left as they are) read all lines of a window in both directions and give
each a state and a first opinion. The decoder is a language model over program tokens: a causal transformer whose input
is a word's embedding or, for a number, the state of the line that it names. Its output says what kind of token follows,
and a pointer says which line.

The pointer scans lines from the place that the program has reached, and stops at line j with probability
p_j = sigmoid(energy_j), the energy being the encoders' opinion corrected by the decoder; running past the last line
means that no further range follows. So "remove_lines(start=" is written exactly where a scan is expected to stop, and
P(next number is j) = p_j * prod_{i < j} (1 - p_i). Source: monotonic attention (arXiv 1704.00784, equations 6 to 8, and
its test-time rule: stop at the first p of one half or more).

Why not a softmax over lines: the most likely next number is not the number that costs least. Where ten lines are each
removed with probability 0.3, "line 1" is the most likely next start and "no further range" has 0.03, although leaving
all ten is right. An untrained decoder with a scan writes exactly what its line head thinks.

The decoder's correction is added with a weight, as a language model is fused with a recogniser (shallow fusion, arXiv
1503.03535): learned on pages that the encoders know by heart, it is too sure of itself on others. Measured by domain:
weight 1 lost .013 to .015 keep-F1 against the opinions alone, weight 0.3 gained .002 to .003.

Shapes: B windows, N lines, T program tokens, D width, G groups of next tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from corpusmill.prox.line_network import LineNetwork, NetworkShape, WindowBatch
from corpusmill.prox.program_tokens import Group, Word


@dataclass(frozen=True)
class WriterShape:
    """Sizes of a program writer's network.

    Attributes:
        lines: Sizes of each encoder over lines.
        n_encoders: Encoders, whose opinions are averaged and whose states are joined.
        n_layers: Layers of the decoder.
        n_heads: Attention heads of the decoder; divides the encoder's width, which is the decoder's as well.
        dropout: Dropout of the decoder in training.
    """

    lines: NetworkShape = field(default_factory=lambda: NetworkShape(max_lines=400))
    n_encoders: int = 1
    n_layers: int = 2
    n_heads: int = 4
    dropout: float = 0.1

    def as_dict(self) -> dict[str, Any]:
        """Returns the sizes as they stand in ``config.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, sizes: dict[str, Any]) -> "WriterShape":
        """Returns the sizes that `as_dict` gave."""
        return cls(**{**sizes, "lines": NetworkShape(**sizes["lines"])})


@dataclass(frozen=True)
class Lines:
    """What the encoders say about windows of lines.

    Attributes:
        states: (B, N, D).
        logits: (B, N), the encoders' opinion; positive: remove.
        padding: bool (B, N), True where there is no line.
    """

    states: Tensor
    logits: Tensor
    padding: Tensor


class _CausalLayer(nn.Module):
    """A pre-norm transformer layer over the tokens written so far."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x_BTD: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the new states, and keys and values (2, B, heads, tokens so far, D / heads)."""
        n_windows, n_tokens, width = x_BTD.shape
        qkv = self.qkv(self.norm_attention(x_BTD)).view(n_windows, n_tokens, 3, self.n_heads, width // self.n_heads)
        q, *kv = qkv.permute(2, 0, 3, 1, 4)
        seen = torch.stack(kv) if past is None else torch.cat([past, torch.stack(kv)], dim=3)
        drop = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, seen[0], seen[1], is_causal=past is None, dropout_p=drop)
        mixed = self.out(mixed.transpose(1, 2).reshape(n_windows, n_tokens, width))
        x_BTD = x_BTD + F.dropout(mixed, drop, self.training)
        update = self.down(F.gelu(self.up(self.norm_mlp(x_BTD))))
        return x_BTD + F.dropout(update, drop, self.training), seen


class WriterNetwork(nn.Module):
    """Encoders over lines, a causal decoder over program tokens, and a pointer from tokens to lines."""

    def __init__(self, shape: WriterShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.lines.width
        self.encoders = nn.ModuleList(LineNetwork(shape.lines) for _ in range(shape.n_encoders))
        self.joined = nn.Linear(shape.n_encoders * width, width)
        self.words = nn.Embedding(len(Word), width)
        nn.init.normal_(self.words.weight, std=0.5)
        self.page = nn.Linear(width, width)
        self.rows = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.layers = nn.ModuleList(_CausalLayer(width, shape.n_heads, shape.dropout) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(width)
        self.groups = nn.Linear(width, len(Group))
        self.stop = nn.Linear(width, 2)
        self.queries = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.keys = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.trust = nn.ModuleList(nn.Linear(width, 2) for _ in range(2))
        for layer in (*self.queries, *self.trust):  # training starts from the encoders' opinion
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def read(self, batch: WindowBatch, token_dropout: float = 0.0) -> Lines:
        """Returns states and opinions of the lines; ``token_dropout`` as in `LineNetwork.forward`."""
        seen: list[Tensor] = []
        logits: list[Tensor] = []
        for encoder in self.encoders:
            assert isinstance(encoder, LineNetwork)
            # what the line head is given is the line's state
            hook = encoder.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                logits.append(encoder(batch, token_dropout))
            finally:
                hook.remove()
        states_BND = self.joined(torch.cat(seen, dim=2)).masked_fill(batch.padding[..., None], 0.0)
        return Lines(states_BND, torch.stack(logits).mean(dim=0), batch.padding)

    def embed(self, tokens_BT: Tensor, ends_range_BT: Tensor, lines: Lines) -> Tensor:
        """Returns (B, T, D): words by table, rows by the state of their line, BEGIN with the mean of all lines.

        Args:
            tokens_BT: int64 tokens, see `program_tokens`.
            ends_range_BT: bool, True where a row ends a range.
            lines: The window's lines.
        """
        is_row_BT1 = (tokens_BT >= 0)[..., None]
        words_BTD = self.words((-1 - tokens_BT).clamp(min=0))
        rows_BT1 = tokens_BT.clamp(min=0)[..., None]
        states_BTD = torch.gather(lines.states, 1, rows_BT1.expand(-1, -1, lines.states.shape[-1]))
        rows_BTD = torch.where(ends_range_BT[..., None], self.rows[1](states_BTD), self.rows[0](states_BTD))
        count_B1 = (~lines.padding).sum(1, keepdim=True).clamp(min=1)
        page_B1D = self.page(lines.states.sum(1) / count_B1)[:, None]
        begin_BT1 = (tokens_BT == Word.BEGIN)[..., None]
        return torch.where(is_row_BT1, rows_BTD, words_BTD + page_B1D * begin_BT1)

    def decode(self, x_BTD: Tensor, past: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Returns the states after each token (B, T, D), and what to hand in as ``past`` with the tokens that follow.

        With ``past``, one token at a time.
        """
        kept = []
        for i, layer in enumerate(self.layers):
            x_BTD, seen = layer(x_BTD, None if past is None else past[i])
            kept.append(seen)
        return self.norm(x_BTD), kept

    def energies(self, h_BTD: Tensor, lines: Lines, ends_range: bool, weight: float = 1.0) -> Tensor:
        """Returns (B, T, N): how much each line speaks for stopping a scan there; the logit of the stop probability.

        A scan for a start stops at a line that goes. A scan for an end stops *before* a line that stays: its energy
        stands at that line. At padding the value is meaningless.

        Args:
            h_BTD: States of the decoder.
            lines: The window's lines.
            ends_range: Which of the two scans.
            weight: Weight of the decoder's correction; 0: the encoders' opinion alone.
        """
        query_BTD, key_BND = self.queries[ends_range](h_BTD), self.keys[ends_range](lines.states)
        gain_BT1, bias_BT1 = self.trust[ends_range](h_BTD).split(1, dim=2)
        opinion_B1N = lines.logits[:, None] * (-1.0 if ends_range else 1.0)
        fit_BTN = query_BTD @ key_BND.transpose(1, 2) / math.sqrt(h_BTD.shape[2])
        return opinion_B1N + weight * (opinion_B1N * gain_BT1 + bias_BT1 + fit_BTN)
