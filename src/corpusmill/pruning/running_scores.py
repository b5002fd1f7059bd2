"""Scores of positions whose logits come in parts of the vocabulary, with one exponential per logit.

With m the largest logit but the label's, e_v = exp(z_v - m) for v != y, S1 = sum e, S2 = sum e^2 and
d = m + ln S1 - z_y (so that p_y = sigmoid(-d)): NLL = softplus(d) and
EL2N = sqrt((1 - p_y)^2 + sum p_v^2) = sigmoid(d) * sqrt(1 + S2 / S1^2). No term is a difference of near-equals. Where a
later part of the vocabulary has a larger maximum, the sums so far are rescaled.

Source: "When Less is More" (arXiv 2309.04564v1), equations 5 and 6.
"""

from typing import NamedTuple

import torch


class Wanted(NamedTuple):
    """What to compute of each token; greedy hits cost a maximum and are always there.

    Attributes:
        nll: Negative log-likelihood.
        el2n: L2 norm of softmax minus one-hot.
        top_k: k of the top-k hit, 0 for none.
    """

    nll: bool = True
    el2n: bool = True
    top_k: int = 0


class TokenScores(NamedTuple):
    """Scores of N positions, None where not asked for.

    Attributes:
        nll: Nats, at least 0.
        el2n: In [0, sqrt 2].
        hit: Whether the label is the greedy token, the lowest id among the largest logits.
        finite: Whether the label's logit and the largest other one are finite numbers; NaN anywhere makes it False.
        top_k_hit: Whether fewer than k tokens come before the label, by logit and then by id.
    """

    nll: torch.Tensor | None
    el2n: torch.Tensor | None
    hit: torch.Tensor
    finite: torch.Tensor
    top_k_hit: torch.Tensor | None = None


class RunningScores:
    """Maximum, sums of exponentials and label logits of N positions over the parts of the vocabulary seen so far.

    Args:
        labels_N: Label of each position.
        dtype: float32 or float64, of logits and scores.
        wanted: What `finish` will return.
    """

    def __init__(self, labels_N: torch.Tensor, dtype: torch.dtype, wanted: Wanted) -> None:
        self._labels, self._wanted = labels_N, wanted
        lowest = torch.full(labels_N.shape, float("-inf"), dtype=dtype, device=labels_N.device)
        self._top, self._top_below = lowest, lowest  # largest logit of the others; of others with a lower id
        self._label_z = torch.full_like(lowest, float("nan"))
        self._s1, self._s2 = torch.zeros_like(lowest), torch.zeros_like(lowest)
        self._top_k_hit: torch.Tensor | None = None

    def add(self, z_NC: torch.Tensor, start: int) -> None:
        """Takes the logits of ids from ``start`` on; parts come in any order, each id once. Overwrites them.

        Top-k hits need the whole vocabulary in one part.
        """
        at_N = self._labels - start
        rows = torch.nonzero((at_N >= 0) & (at_N < z_NC.shape[1])).squeeze(1)
        here = at_N[rows]
        label_z = z_NC[rows, here]
        self._label_z[rows] = label_z
        z_NC[rows, here] = float("-inf")
        if self._wanted.top_k:
            self._top_k_hit = _in_top_k(z_NC, label_z, here, self._wanted.top_k)
        top = z_NC.amax(1)
        below = torch.where(at_N >= z_NC.shape[1], top, float("-inf"))
        tied = rows[label_z == top[rows]]
        if len(tied):  # equal to the label's: the lowest id is the greedy token
            below[tied] = torch.where(lowest_argmax(z_NC[tied]) < at_N[tied], top[tied], float("-inf"))
        self._top_below = torch.maximum(self._top_below, below)
        before, self._top = self._top, torch.maximum(self._top, top)
        if self._wanted.nll or self._wanted.el2n:
            self._add_exponentials(z_NC, before)

    def _add_exponentials(self, z_NC: torch.Tensor, before: torch.Tensor) -> None:
        # A part may hold nothing but a label: -inf less -inf is no number.
        shift = self._top.clamp(min=torch.finfo(z_NC.dtype).min)
        e_NC = z_NC.sub_(shift[:, None]).exp_()
        rescale = (before - shift).exp()
        self._s1 = self._s1 * rescale + e_NC.sum(1)
        if self._wanted.el2n:
            norm = torch.linalg.vector_norm(e_NC, dim=1)
            self._s2 = self._s2 * (rescale * rescale) + norm * norm

    def finish(self) -> TokenScores:
        """Returns the scores, after every part of the vocabulary was added."""
        label_z = self._label_z
        hit = (label_z > self._top_below) & (label_z >= self._top)
        finite = label_z.isfinite() & self._top.isfinite()
        if not (self._wanted.nll or self._wanted.el2n):
            return TokenScores(None, None, hit, finite, self._top_k_hit)
        d = (self._top - label_z) + self._s1.log()  # the difference first: it is exact for logits of one size
        nll = torch.logaddexp(d, d.new_zeros(())) if self._wanted.nll else None
        el2n = None
        if self._wanted.el2n:
            s1 = self._s1.clamp(min=torch.finfo(d.dtype).tiny)
            el2n = torch.sigmoid(d) * torch.sqrt(1 + self._s2 / s1 / s1)
        return TokenScores(nll, el2n, hit, finite, self._top_k_hit)


def _in_top_k(z_NV: torch.Tensor, label_z: torch.Tensor, labels_N: torch.Tensor, k: int) -> torch.Tensor:
    """Returns whether fewer than k of the others (the label's own place holds -inf) come before each label."""
    n_above = torch.count_nonzero(z_NV > label_z[:, None], dim=1)
    n_not_below = torch.count_nonzero(z_NV >= label_z[:, None], dim=1)
    hit = n_above < k
    open_rows = torch.nonzero(hit & (n_not_below >= k)).squeeze(1)
    if len(open_rows):  # ties decide: lower ids come first
        ids_V = torch.arange(z_NV.shape[1], device=z_NV.device)
        equal = (z_NV[open_rows] == label_z[open_rows, None]) & (ids_V < labels_N[open_rows, None])
        hit[open_rows] = n_above[open_rows] + equal.sum(1) < k
    return hit & ~label_z.isnan()


def lowest_argmax(z_NV: torch.Tensor) -> torch.Tensor:
    """Returns the lowest id among the largest logits of each row; torch promises no order among equals."""
    ids_V = torch.arange(z_NV.shape[1], device=z_NV.device)
    lowest = torch.where(z_NV == z_NV.amax(1, keepdim=True), ids_V, z_NV.shape[1]).amin(1)
    return lowest.clamp(max=z_NV.shape[1] - 1)  # a row with NaN equals nothing; its id must exist all the same
