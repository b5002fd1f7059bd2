"""The head of a causal language model by itself: logits of some positions and a part of the vocabulary at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from corpusmill.errors import ModelError
from corpusmill.modeling.onednn_linear import linear
from corpusmill.pruning.running_scores import RunningScores, TokenScores, Wanted, lowest_argmax

PROBE_TOKENS = 8
VOCABULARY_PART = 2048
"""Ids whose logits exist at one time on a CPU: with 1,024 positions 8 MB, which stay in its cache."""
WHOLE_VOCABULARY_ROWS = 256
"""Positions with all logits at one time on a CPU, where ranks are asked for: 51 MB for 50,257 ids."""


@dataclass(frozen=True)
class CausalHead:
    """The part of a causal language model that makes logits of hidden states.

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

    def logits(self, h_ND: torch.Tensor, start: int = 0, end: int | None = None) -> torch.Tensor:
        """Returns logits [N, V] of ids ``start`` to ``end`` in float32 (float64 for a float64 model)."""
        bias = None if self.bias is None else self.bias[start:end]
        z_NV = linear(h_ND, self.weight[start:end], bias)
        z_NV = z_NV if z_NV.dtype == torch.float64 else z_NV.float()
        if self.scale != 1.0:
            z_NV.mul_(self.scale)
        if self.softcap:
            z_NV.div_(self.softcap).tanh_().mul_(self.softcap)
        return z_NV

    def parts(self, h_ND: torch.Tensor, width: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields (first id, logits [N, <= width]) over the vocabulary."""
        for start in range(0, len(self.weight), width):
            yield start, self.logits(h_ND, start, start + width)

    def scores(self, h_ND: torch.Tensor, labels_N: torch.Tensor, chunk: int, wanted: Wanted) -> TokenScores:
        """Returns the scores of N positions, at least one, ``chunk`` of them at a time."""
        # On a GPU few large products are faster; ranks of labels need all logits at once.
        on_gpu = h_ND.device.type != "cpu"
        width = len(self.weight) if on_gpu or wanted.top_k else VOCABULARY_PART
        if wanted.top_k and not on_gpu:
            chunk = min(chunk, WHOLE_VOCABULARY_ROWS)
        dtype = torch.float64 if h_ND.dtype == torch.float64 else torch.float32
        done = []
        for i in range(0, len(h_ND), chunk):
            running = RunningScores(labels_N[i : i + chunk], dtype, wanted)
            for start, z_NC in self.parts(h_ND[i : i + chunk], width):
                running.add(z_NC, start)
            done.append(running.finish())
        columns = zip(*done, strict=True)
        return TokenScores(*(None if column[0] is None else torch.cat(column) for column in columns))

    def greedy(self, h_ND: torch.Tensor) -> torch.Tensor:
        """Returns the token of the largest logit of each position, the lowest id among equals."""
        return lowest_argmax(self.logits(h_ND))


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
