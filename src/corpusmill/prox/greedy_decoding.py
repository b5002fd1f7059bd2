"""Greedy decoding of many prompts with one causal language model: the text of plain ``generate``, sooner.

Tokens are packed without padding (`corpusmill.modeling.packed_attention`), the output layer runs where a token is
chosen, rows that end make room for waiting prompts, and drafts (`corpusmill.prox.program_drafts`) let one forward pass
write many tokens. A drafted token is kept only where it is the model's own choice behind what stands before it, so the
text is that of decoding token by token, up to the rounding of other matrix shapes. A model that cannot run packed
(windows, soft caps, recurrent layers) is decoded by ``generate``.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import GenerationConfig, LogitsProcessor

from corpusmill.modeling.halving import free_memory, halving, is_out_of_memory
from corpusmill.modeling.packed_attention import (
    decode_step,
    packed,
    packed_logits,
    prefill_step,
    shares_beginnings,
)
from corpusmill.modeling.slot_cache import SlotCache
from corpusmill.modeling.token_batches import plan_batches, shared_beginning
from corpusmill.prox.causal_model import CausalModel
from corpusmill.prox.decoding_row import Decoded, Decoding, DecodingRow
from corpusmill.prox.program_grammar import ChunkGrammar

SAME_POOL = 0.6
"""Rows at least this long beside the longest share its memory; shorter ones wait, and then more of them fit."""
REST = 3
"""Shorter rows get memory of their own where they are this many times the rows that fit now, else they join these."""
JOIN_SHARE = 0.25
"""Share of the rows that must be free before waiting prompts join; each joining costs a forward pass."""
CPU_PREFILL_TOKENS = 2048
"""Prompt tokens of one pass on a CPU: more only leave the caches (50 us a token up to there, 57 at 8,000)."""


def greedy(
    model: CausalModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, drafting: bool = True
) -> list[tuple[list[int], bool]]:
    """Returns the new ids of each prompt without EOS, and True where the limit and not EOS ended them.

    Raises:
        Exception: A prompt does not fit into memory even alone, as torch says it.
    """
    outputs = decode(model, prompts, Decoding(max_new_tokens, drafting=drafting))
    for output in outputs:
        if output.error is not None:
            raise output.error
    return [(output.ids, output.truncated) for output in outputs]


def decode(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    settings: Decoding,
    grammars: Sequence[ChunkGrammar] | None = None,
) -> list[Decoded]:
    """Returns one output for each prompt, in order.

    A batch that does not fit into memory is halved; what one row alone does not fit into is its ``error``. Under a
    grammar every output is a whole program of it, cut behind the last whole call where the limit ends it.

    Args:
        model: The model.
        prompts: Ids of each prompt.
        settings: Limits and options.
        grammars: One grammar for each prompt; None: any token may follow.

    Raises:
        ConfigError: A grammar is given and the tokenizer is of a kind whose tokens cannot be read.
    """
    rows = [
        DecodingRow(index, ids, model.room(len(ids), settings.max_new_tokens), grammars[index] if grammars else None)
        for index, ids in enumerate(prompts)
    ]
    outputs = [Decoded([], truncated=True)] * len(rows)
    waiting = sorted((row for row in rows if row.room > 0 and row.prompt), key=lambda row: (-row.total, row.index))
    finished = _decode_packed(model, waiting, settings) if model.packs else _decode_generated(model, waiting, settings)
    for index, output in finished:
        outputs[index] = output
    return outputs


def _decode_packed(model: CausalModel, waiting: list[DecodingRow], settings: Decoding) -> list[tuple[int, Decoded]]:
    """Decodes rows, longest first, in pools of rows of similar length."""
    finished: list[tuple[int, Decoded]] = []
    most_rows = len(waiting)  # falls for good where memory did not hold them
    with torch.inference_mode(), packed(model.model):
        while waiting:
            longest = waiting[0].total
            members = [row for row in waiting if row.total >= SAME_POOL * longest]
            if len(waiting) - len(members) < REST * model.batch_tokens / longest:
                members = waiting
            n_rows = max(1, min(most_rows, len(members), model.batch_tokens // longest))
            pool = _Pool(model, settings, n_rows, longest)
            failure = _run(pool, members)
            finished += [(row.index, row.output()) for row in pool.finished]
            if failure is not None:
                if n_rows == 1:
                    row = pool.live[0]
                    finished.append((row.index, Decoded([], truncated=False, error=failure)))
                    pool.finished.append(row)
                most_rows = max(1, min(n_rows, len(pool.live)) // 2)
                failure = None
            done = {row.index for row in pool.finished}
            waiting = [row for row in waiting if row.index not in done]
            if most_rows < n_rows:
                del pool
                free_memory()
    return finished


def _run(pool: "_Pool", members: list[DecodingRow]) -> Exception | None:
    """Runs a pool to its end; returns the exception where memory ran out."""
    try:
        pool.run(members)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return error.with_traceback(None)  # its frames hold tensors
    return None


class _Pool:
    """Rows that are decoded together in one cache; rows 0 to n - 1 of the cache are those of ``live``."""

    def __init__(self, model: CausalModel, settings: Decoding, n_rows: int, n_slots: int) -> None:
        self.model, self.settings, self.n_rows = model, settings, n_rows
        self.cache = SlotCache(n_rows, n_slots)
        self.live: list[DecodingRow] = []
        self.finished: list[DecodingRow] = []

    def run(self, waiting: Sequence[DecodingRow]) -> None:
        """Decodes all rows; prompts join where enough rows are free."""
        place = 0
        join_from = max(1, int(self.n_rows * JOIN_SHARE))
        while place < len(waiting) or self.live:
            joins = self.n_rows - len(self.live) >= join_from or not self.live
            while joins and place < len(waiting) and (free := self.n_rows - len(self.live)):
                joining = self._together(waiting[place : place + free])
                place += len(joining)
                self._join(joining)
            if self.live:
                self._step()

    def _together(self, rows: Sequence[DecodingRow]) -> Sequence[DecodingRow]:
        """Returns the first rows, as many as one pass should read: all on a GPU, a few on a CPU."""
        if self.model.model.device.type != "cpu":
            return rows
        ends = itertools.accumulate(len(row.prompt) for row in rows)
        return rows[: max(1, sum(end <= CPU_PREFILL_TOKENS for end in ends))]

    def _join(self, rows: Sequence[DecodingRow]) -> None:
        """Reads prompts and writes their first tokens."""
        first, lengths = len(self.live), [len(row.prompt) for row in rows]
        self.live += rows  # before the pass, so that a failure names them
        for row in rows:
            row.begin(self.model, self.settings)
        model, prompts = self.model.model, [row.prompt for row in rows]
        n_shared = shared_beginning(prompts) if shares_beginnings(model) else 0
        step = prefill_step(self.cache, range(first, len(self.live)), lengths, model, n_shared)
        ids = [token for prompt, n in zip(prompts, step.lengths, strict=True) for token in prompt[-n:]]
        ends = list(itertools.accumulate(step.lengths))
        logits_RV = packed_logits(model, ids, step.places.tolist(), step, [end - 1 for end in ends])
        self._take(rows, [[-1]] * len(rows), logits_RV)

    def _step(self) -> None:
        """Writes at least one token of every live row."""
        blocks = [row.block() for row in self.live]
        starts = [row.n_cached for row in self.live]
        lengths = [len(block) for block in blocks]
        step = decode_step(self.cache, starts, lengths, self.model.model)
        ids = [token for block in blocks for token in block]
        positions = [start + i for start, n in zip(starts, lengths, strict=True) for i in range(n)]
        self._take(self.live, blocks, packed_logits(self.model.model, ids, positions, step))

    def _take(self, rows: Sequence[DecodingRow], blocks: list[list[int]], logits_NV: torch.Tensor) -> None:
        chosen, place = _likeliest(logits_NV), 0
        for row, block in zip(rows, blocks, strict=True):
            end = place + len(block)
            row.take(block, chosen[place:end], logits_NV[place:end], self.model.tokenizer.eos)
            place = end
        self._remove_ended()

    def _remove_ended(self) -> None:
        """Takes ended rows out; the last live row moves to the place that becomes free."""
        for place in range(len(self.live) - 1, -1, -1):
            if not self.live[place].ended:
                continue
            self.finished.append(self.live[place])
            last = self.live.pop()
            if place < len(self.live):
                self.cache.move(len(self.live), place, last.n_cached)
                self.live[place] = last


def _likeliest(logits_NV: torch.Tensor) -> list[int]:
    """Returns the first id of the highest logit in each row; numpy finds it in a fifth of torch's time on a CPU."""
    if logits_NV.device.type == "cpu" and logits_NV.dtype == torch.float32:
        return logits_NV.numpy().argmax(axis=1).tolist()
    found: list[int] = logits_NV.argmax(dim=1).tolist()
    return found


def _decode_generated(model: CausalModel, waiting: list[DecodingRow], settings: Decoding) -> list[tuple[int, Decoded]]:
    """Decodes rows by ``generate``, in batches of equal room."""
    finished: list[tuple[int, Decoded]] = []
    for _, group in itertools.groupby(sorted(waiting, key=lambda row: -row.room), key=lambda row: row.room):
        rows = list(group)
        for batch in plan_batches([row.total for row in rows], model.batch_tokens):
            members = [rows[i] for i in batch]
            answers = halving(lambda part: _generate(model, part, settings), members)
            for row, answer in zip(members, answers, strict=True):
                if isinstance(answer, Exception):
                    answer = Decoded([], truncated=False, error=answer)
                finished.append((row.index, answer))
    return finished


def _generate(model: CausalModel, rows: Sequence[DecodingRow], settings: Decoding) -> list[Decoded]:
    width, room, eos = max(len(row.prompt) for row in rows), rows[0].room, model.tokenizer.eos
    ids_BT = torch.full((len(rows), width), model.pad, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        row.begin(model, replace(settings, drafting=False))
        ids_BT[place, width - len(row.prompt) :] = torch.as_tensor(row.prompt, dtype=torch.long)
        mask_BT[place, width - len(row.prompt) :] = 1
    options = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=room, eos_token_id=eos, pad_token_id=model.pad, use_cache=True
    )
    guided = _AllowedTokens(rows, width, eos) if rows[0].guide is not None else None
    with torch.inference_mode():
        new_BT = model.model.generate(
            input_ids=ids_BT.to(model.model.device),
            attention_mask=mask_BT.to(model.model.device),
            generation_config=options,
            logits_processor=[guided] if guided is not None else None,
        )[:, width:].tolist()
    for row, new in zip(rows, new_BT, strict=True):
        row.take_all(new[len(row.ids) :], eos)
    return [row.output() for row in rows]


class _AllowedTokens(LogitsProcessor):
    """Hides from ``generate`` the tokens that the grammar of each row does not allow."""

    def __init__(self, rows: Sequence[DecodingRow], n_prompt: int, eos: int | None) -> None:
        self.rows, self.n_prompt, self.eos = rows, n_prompt, eos

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns scores [B, V] with minus infinity where a token is not allowed."""
        hidden_BV = torch.full_like(scores, float("-inf"))
        for place, row in enumerate(self.rows):
            row.take_all(input_ids[place, self.n_prompt + len(row.ids) :].tolist(), self.eos)
            allowed = [] if row.ended or row.guide is None else row.guide.allowed()
            hidden_BV[place, allowed or [self.eos or 0]] = 0
        return scores + hidden_BV
