"""One output while it is written: what it drafts, what its grammar allows, and when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from corpusmill.prox.causal_model import CausalModel
from corpusmill.prox.loop_detection import LoopWatch
from corpusmill.prox.program_drafts import RowDraft
from corpusmill.prox.program_grammar import ChunkGrammar, Guide

PROBED = 48
"""Choices of the model that are tried one by one before the whole vocabulary is searched for allowed tokens."""


@dataclass(frozen=True)
class Decoded:
    """One output.

    Attributes:
        ids: New ids without EOS.
        truncated: True where the limit and not EOS ended the output.
        looped: True where it was stopped because it repeated a call; ``ids`` end in front of the repetition.
        error: Why there is no output: the row did not fit into memory even alone.
    """

    ids: list[int]
    truncated: bool
    looped: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class Decoding:
    """How outputs are decoded.

    Attributes:
        max_new_tokens: Limit of every output; the model's context may limit it further.
        drafting: Whether forced tokens are guessed and checked; changes the time only.
        stops_loops: Whether an output that repeats a call is stopped.
    """

    max_new_tokens: int
    drafting: bool = True
    stops_loops: bool = False


@dataclass
class DecodingRow:
    """One output while it is written."""

    index: int
    prompt: Sequence[int]
    room: int
    grammar: ChunkGrammar | None
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    by_eos: bool = False
    draft: RowDraft | None = None
    guide: Guide | None = None
    watch: LoopWatch | None = None

    @property
    def total(self) -> int:
        """Positions that this row may need."""
        return len(self.prompt) + self.room

    @property
    def n_cached(self) -> int:
        """Positions whose keys and values are known: all but that of the last token."""
        return len(self.prompt) + len(self.ids) - 1

    def begin(self, model: CausalModel, settings: Decoding) -> None:
        """Forgets what was written, for a first or another try."""
        self.ids, self.ended, self.by_eos = [], False, False
        self.draft = RowDraft(model.drafts, self.prompt) if settings.drafting else None
        self.guide = Guide(self.grammar, model.vocabulary) if self.grammar is not None else None
        self.watch = LoopWatch(model.pieces) if settings.stops_loops and model.pieces is not None else None

    def block(self) -> list[int]:
        """Returns the last token, which is not in the cache yet, and the tokens drafted behind it."""
        limit = self.room - len(self.ids) - 1
        draft = self.draft.propose(limit) if self.draft is not None and limit > 0 else []
        return [self.ids[-1], *draft]

    def take(self, block: Sequence[int], chosen: Sequence[int], logits_KV: torch.Tensor, eos: int | None) -> None:
        """Takes the model's choices as far as the block goes along with them, and the one behind."""
        for place, choice in enumerate(chosen):
            token: int | None = choice
            if self.guide is not None and not self.guide.allows(choice):
                token = _best_allowed(self.guide, logits_KV[place])
            self._add(token, eos)
            if self.ended or (place + 1 < len(chosen) and block[place + 1] != token):
                return

    def take_all(self, tokens: Sequence[int], eos: int | None) -> None:
        """Takes tokens that were chosen elsewhere, up to the end."""
        for token in tokens:
            if self.ended:
                return
            self._add(token, eos)

    def _add(self, token: int | None, eos: int | None) -> None:
        if token is None or token == eos:
            self.ended = True
            self.by_eos = token is not None and (self.guide is None or self.guide.state.whole)
            return
        self.ids.append(token)
        if self.guide is not None:
            self.guide.advance(token)
        if self.draft is not None:
            self.draft.accept(token)
        loops = self.watch is not None and self.watch.advance(token)
        self.ended = loops or len(self.ids) >= self.room

    def output(self) -> Decoded:
        """Returns what was written."""
        if self.watch is not None and self.watch.looped:
            return Decoded(self.ids[: self.watch.n_good], truncated=False, looped=True)
        if not self.by_eos and self.guide is not None:
            return Decoded(self.ids[: self.guide.n_good], truncated=True)
        return Decoded(self.ids, truncated=not self.by_eos)


def _best_allowed(guide: Guide, logits_V: torch.Tensor) -> int | None:
    """Returns the allowed token of the highest logit, None where the vocabulary has none."""
    for token in logits_V.topk(min(PROBED, len(logits_V))).indices.tolist():
        if guide.allows(token):
            return int(token)
    allowed = guide.allowed()
    if not allowed:
        return None
    return allowed[int(logits_V[torch.tensor(allowed, device=logits_V.device)].argmax())]
