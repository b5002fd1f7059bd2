"""Linear layers of float32 models on a CPU through oneDNN, where torch itself would call MKL.

Measured on an AMD EPYC (Zen 5) core, 1,024 rows by 1,280 by 2,048, float32: MKL 85 GFLOP/s, oneDNN 190 from plain
weights and 200 from repacked ones. Weights stay as they are, so no memory is added; at 1 to 32 rows, as in decoding,
oneDNN is equal or faster too. Results differ from MKL's in the last bits alone (other summation order). GPT-2's layers,
which store their weights transposed, are multiplied as they are: 150 GFLOP/s against 75 with MKL.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


class OneDnnLinear(nn.Linear):
    """A linear layer that multiplies float32 rows on a CPU through oneDNN; everything else as its base class does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the product of rows and weight, plus bias; with gradients enabled torch's own, which has them."""
        return _operator()(x, self.weight, self.bias, "none", [], "") if _applies(x) else super().forward(x)


class OneDnnConv1D(Conv1D):  # type: ignore[misc, unused-ignore]  # transformers is untyped to some checkers
    """GPT-2's linear layer, whose weight is stored as [in, out], through oneDNN; everything else as its base class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the product of rows and weight, plus bias; with gradients enabled torch's own, which has them."""
        if not _applies(x):
            return super().forward(x)  # type: ignore[no-any-return, unused-ignore]
        return _operator()(x, self.weight.t(), self.bias, "none", [], "")


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Returns ``x @ weight.T + bias``, for float32 rows on a CPU through oneDNN where this torch has it."""
    if _applies(x) and onednn_works():
        return _operator()(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def _applies(x: torch.Tensor) -> bool:
    return not torch.is_grad_enabled() and x.dtype == torch.float32 and x.device.type == "cpu"


def use_onednn(model: nn.Module) -> int:
    """Lets a model's plain float32 linear layers (GPT-2's too) on the CPU run through oneDNN; returns how many do.

    Weights, their names and what is saved stay the same. Does nothing where this torch has no such operator.
    """
    if not onednn_works():
        return 0
    layers = [layer for layer in model.modules() if type(layer) in _FASTER]
    chosen = [y for y in layers if y.weight.dtype == torch.float32 and y.weight.device.type == "cpu"]
    for layer in chosen:
        layer.__class__ = _FASTER[type(layer)]
    return len(chosen)


_FASTER: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: OneDnnLinear, Conv1D: OneDnnConv1D}


@cache
def onednn_works() -> bool:
    """Returns whether this torch has oneDNN's linear operator and it multiplies as expected.

    The operator is torch's own, as its compiler calls it, but not of its documented interface: hence the trial.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    rows, weight, bias = torch.arange(12.0).view(2, 6), torch.arange(18.0).view(3, 6) - 9, torch.ones(3)
    try:
        with torch.inference_mode():
            found = _operator()(rows, weight, bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, nn.functional.linear(rows, weight, bias))


def _operator() -> Any:
    return torch.ops.mkldnn._linear_pointwise
