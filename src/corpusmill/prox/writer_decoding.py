"""Writes the program of one window, token by token, under the grammar or freely.

Both ways take the same steps: the network says which kind of token follows, a scan over the lines says which line, or
that none follows. Under the grammar the kind is given instead, so a free program that is whole is also the constrained
one. A window is decoded alone, so its program never depends on what else is in a batch. A program has at most one range
for every second line, which bounds the work of any input and any weights.

Cost: five steps of the decoder a range; measured: see the model card.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.prox.program_tokens import RANGE_TOKENS, Group, Scan, Word, next_group, next_scan
from corpusmill.prox.writer_network import Lines, WriterNetwork


class ProgramDecoder:
    """Decodes windows with one network.

    Args:
        network: In eval mode.
        constrained: True: the grammar says which kind of token follows; False: the network does.
        threshold: Probability in [0, 1] from which on a scan stops at a line; at 0 at every line, at 1 at none.
        weight: Weight of the decoder's correction of the encoders' opinion, see `writer_network`.
    """

    def __init__(
        self, network: WriterNetwork, constrained: bool = True, threshold: float = 0.5, weight: float = 1.0
    ) -> None:
        self.network, self.constrained, self.weight = network, constrained, weight
        inner = 0 < threshold < 1
        self.stop_at = math.log(threshold / (1 - threshold)) if inner else math.copysign(math.inf, threshold - 0.5)

    def write(self, lines: Lines) -> tuple[list[int], bool]:
        """Returns the program tokens with END, and False; or an unfinished program and True.

        Args:
            lines: One window of at least one line, without padding.
        """
        n_rows = lines.logits.shape[1]
        limit = RANGE_TOKENS * (n_rows // 2 + 1) + 2
        tokens: list[int] = []
        past: list[torch.Tensor] | None = None
        while len(tokens) < limit:
            last = torch.tensor([[tokens[-1] if tokens else int(Word.BEGIN)]])
            ends_range = torch.tensor([[len(tokens) > 1 and tokens[-2] == Word.MIDDLE]])
            h_11D, past = self.network.decode(self.network.embed(last, ends_range, lines), past)
            tokens.append(self._next(tokens, h_11D, lines))
            if tokens[-1] == Word.END:
                return tokens, False
        return tokens, True

    def _next(self, tokens: Sequence[int], h_11D: torch.Tensor, lines: Lines) -> int:
        group = next_group(tokens) if self.constrained else int(self.network.groups(h_11D).argmax())
        if group == Group.MIDDLE:
            return Word.MIDDLE
        if group == Group.CLOSE:
            return Word.CLOSE
        scan = next_scan(tokens)
        energies = self.network.energies(h_11D, lines, scan.ends_range, self.weight)[0, 0].double().numpy()
        if group == Group.ROW:
            return self._row(scan, energies)
        return self._decision(tokens, scan, energies, h_11D)

    def _row(self, scan: Scan, energies: npt.NDArray[np.float64]) -> int:
        last = len(energies) - 1
        if scan.ends_range:
            stops = np.flatnonzero(energies[scan.first + 1 :] >= self.stop_at)
            return scan.first + int(stops[0]) if len(stops) else last
        stops = np.flatnonzero(energies[scan.first :] >= self.stop_at)
        if len(stops):
            return scan.first + int(stops[0])
        # "remove_lines(start=" is written and has to name a line: the most likely one
        return scan.first + _likeliest(energies[scan.first :]) if scan.first <= last else last

    def _decision(
        self, tokens: Sequence[int], scan: Scan, energies: npt.NDArray[np.float64], h_11D: torch.Tensor
    ) -> int:
        done = self.constrained and list(tokens) == [Word.KEEP]
        if not done and not scan.ends_range and (energies[scan.first :] >= self.stop_at).any():
            return Word.OPEN
        if self.constrained:
            return Word.END if tokens else Word.KEEP
        return Word.KEEP if self.network.stop(h_11D).argmax() == 0 else Word.END


def _likeliest(energies: npt.NDArray[np.float64]) -> int:
    """Returns argmax of p_j * prod_{i < j} (1 - p_i), in logarithms."""
    log_p, log_q = -np.logaddexp(0, -energies), -np.logaddexp(0, energies)
    return int(np.argmax(log_p + np.concatenate([[0.0], np.cumsum(log_q)[:-1]])))
