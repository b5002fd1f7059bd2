"""The forward pass of plain Llama models over packed tokens, written out over the model's own modules.

A model's own forward builds masks, a cache and some thirty small operations a layer; on a CPU these cost more than the
arithmetic of a small model. Here a layer is its seven linear layers, fused norms, rotation and attention. Attention is
the caller's, since only it knows which tokens see each other.

Shapes: N tokens, H heads, K key-value heads, D width of a head, M width of the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary variants whose angles depend on the position alone, not on the longest prompt of a batch."""


class Attention(Protocol):
    """Which tokens see each other.

    Attributes:
        n_block: Rows that pass a feed-forward layer together.
    """

    n_block: int

    def attend(
        self, layer: int, q_NHD: torch.Tensor, k_NKD: torch.Tensor, v_NKD: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Returns the attention [N, H * D] of a layer."""

    def attend_some(
        self,
        layer: int,
        wanted_B: torch.Tensor,
        q_BHD: torch.Tensor,
        k_NKD: torch.Tensor,
        v_NKD: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Returns the attention [B, H * D] of some of the tokens."""


def is_plain_llama(model: Any) -> bool:
    """Returns whether a model is a Llama as this file writes it out."""
    if type(model) is not LlamaForCausalLM:
        return False
    return model.config.rope_parameters.get("rope_type", "default") in STATIC_ROPE


@dataclass(frozen=True)
class Angles:
    """Rotary cosines and sines [N, D]."""

    cos: torch.Tensor
    sin: torch.Tensor

    def turn(self, x_NHD: torch.Tensor) -> torch.Tensor:
        """Returns queries or keys turned by the angles of their positions: half against half, as Llama pairs them."""
        half = x_NHD.shape[-1] // 2
        cos_N1D, sin_N1D = self.cos[:, None], self.sin[:, None]
        turned_NHD = x_NHD * cos_N1D
        turned_NHD[..., :half].addcmul_(x_NHD[..., half:], sin_N1D[..., :half], value=-1)
        turned_NHD[..., half:].addcmul_(x_NHD[..., :half], sin_N1D[..., half:])
        return turned_NHD

    def at(self, rows: torch.Tensor) -> "Angles":
        """Returns the angles of some tokens."""
        return Angles(self.cos[rows], self.sin[rows])


def embedded(model: Any, ids_N: torch.Tensor, position_N: torch.Tensor) -> tuple[torch.Tensor, Angles]:
    """Returns the first layer's input [N, M] and the angles of the positions."""
    decoder = model.model
    hidden_NM = decoder.embed_tokens(ids_N)
    cos, sin = decoder.rotary_emb(hidden_NM[None], position_N[None])
    return hidden_NM, Angles(cos[0], sin[0])


def layer_output(layer: Any, hidden_NM: torch.Tensor, angles: Angles, rows: Attention) -> torch.Tensor:
    """Returns the output [N, M] of a decoder layer."""
    attention = layer.self_attn
    normed_NM = norm(layer.input_layernorm, hidden_NM)
    q_NHD = angles.turn(heads(attention.q_proj(normed_NM), attention))
    k_NKD = angles.turn(heads(attention.k_proj(normed_NM), attention))
    v_NKD = heads(attention.v_proj(normed_NM), attention)
    mixed_NM = attention.o_proj(rows.attend(attention.layer_idx, q_NHD, k_NKD, v_NKD, attention.scaling))
    return fed_forward(layer, mixed_NM.add_(hidden_NM), rows.n_block)


def last_layer_output(
    layer: Any, hidden_NM: torch.Tensor, angles: Angles, rows: Attention, wanted_B: torch.Tensor
) -> torch.Tensor:
    """Returns the output [B, M] of the last layer for some tokens: of the others only keys and values are computed."""
    attention = layer.self_attn
    normed_NM = norm(layer.input_layernorm, hidden_NM)
    q_BHD = angles.at(wanted_B).turn(heads(attention.q_proj(normed_NM[wanted_B]), attention))
    k_NKD = angles.turn(heads(attention.k_proj(normed_NM), attention))
    v_NKD = heads(attention.v_proj(normed_NM), attention)
    mixed_BM = attention.o_proj(rows.attend_some(attention.layer_idx, wanted_B, q_BHD, k_NKD, v_NKD, attention.scaling))
    return fed_forward(layer, mixed_BM.add_(hidden_NM[wanted_B]), rows.n_block)


def heads(x: torch.Tensor, attention: Any) -> torch.Tensor:
    """Returns the output of a projection, head by head."""
    return x.unflatten(1, (-1, attention.head_dim))


def fed_forward(layer: Any, hidden_NM: torch.Tensor, n_block: int) -> torch.Tensor:
    """Adds the feed-forward layer to its input, in place, block by block."""
    for block in _blocks(hidden_NM, n_block):
        block.add_(_gated(layer.mlp, norm(layer.post_attention_layernorm, block)))
    return hidden_NM


def _gated(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    """Returns a feed-forward layer's output; the gate is opened and multiplied in its own memory."""
    gate = mlp.gate_proj(x)
    gate = F.silu(gate, inplace=True) if mlp.config.hidden_act == "silu" else mlp.act_fn(gate)
    return mlp.down_proj(gate.mul_(mlp.up_proj(x)))


def _blocks(x: torch.Tensor, n: int) -> Iterator[torch.Tensor]:
    return (x[start : start + n] for start in range(0, len(x), n))


def norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Returns the root-mean-square norm by torch's fused kernel; in half precision it rounds once, not twice."""
    return F.rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)
