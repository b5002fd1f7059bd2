"""Refiners over any causal language model of transformers, from a local folder or a hub id.

Document stage: one prefill, no decoding, wherever the most probable first token is that of ``drop_doc()`` or
``keep_doc()``; only other first tokens are decoded. Chunk stage: greedy decoding in batches of similar length.

Both are exact up to float rounding: padding never enters a result, and the checkpoint's own generation settings
(temperature, minimum length, stop lists) are put aside. Weights are safetensors and code from a model is never run.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ModelError
from corpusmill.modeling.load import load_causal_lm, model_folder
from corpusmill.modeling.token_batches import pad_right, plan_batches
from corpusmill.prox.chunking import Chunk, number_line, split_lines
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig, RefinerConfig
from corpusmill.prox.program_execution import decide_document
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.prompts import CHARACTERS_PER_ID
from corpusmill.prox.refiner import TOO_LONG_PROMPT, ChunkOutput, DocDecision, ResolvedModel, resolve_model

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class EncodedChunk(Chunk):
    """A window of lines with the ids of each numbered line, so that no line is encoded twice."""

    line_ids: tuple[list[int], ...] = ()


@dataclass(frozen=True)
class FirstToken:
    """The most probable first new token, and of two watched tokens the first one's share of their probability."""

    token: int
    share: float


class CausalRefiner:
    """A loaded model with its tokenizer; prefill and greedy decoding over lists of ids.

    Attributes:
        context: Positions that the model has, None where its config names none.
    """

    def __init__(self, folder: Path, config: RefinerConfig) -> None:
        from transformers import GenerationConfig

        self.tokenizer: RefinerTokenizer = load_tokenizer(folder)
        self.model = load_causal_lm(str(folder), dtype=config.dtype, device=config.device)
        n_embeddings = self.model.get_input_embeddings().num_embeddings
        if self.tokenizer.n_vocab > n_embeddings:
            raise ModelError(
                f"model {folder.name!r} embeds {n_embeddings} ids, its tokenizer has {self.tokenizer.n_vocab}; "
                "the tokenizer belongs to another model"
            )
        self.model.generation_config = GenerationConfig()  # the checkpoint's own must not steer greedy decoding
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.batch_tokens = config.batch_tokens
        self.pad = self.tokenizer.eos or 0  # always masked: which id it is changes nothing

    def room(self, n_prompt: int, max_new_tokens: int) -> int:
        """Returns how many tokens may follow a prompt."""
        return max_new_tokens if self.context is None else min(max_new_tokens, self.context - n_prompt)

    def first_tokens(self, prompts: Sequence[Sequence[int]], watched: tuple[int, int]) -> list[FirstToken]:
        """Returns the most probable first new token of each prompt, by one forward pass a batch.

        Prompts are padded on the right, where a causal model cannot see it. A hook in front of the output layer takes
        each row's last real position, so that the vocabulary is multiplied once a prompt and not once a token.
        """
        import torch

        found: dict[int, FirstToken] = {}
        for batch in plan_batches([len(ids) for ids in prompts], self.batch_tokens):
            ids_BT, mask_BT = pad_right([prompts[i] for i in batch], self.pad)
            last_B = (mask_BT.sum(dim=1) - 1).to(self.model.device)

            def take_last(_head: Any, inputs: tuple[Any, ...], last_B: Any = last_B) -> tuple[Any, ...]:
                hidden_BTD = inputs[0]
                row_B = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
                return (hidden_BTD[row_B, last_B][:, None], *inputs[1:])

            hook = self.model.get_output_embeddings().register_forward_pre_hook(take_last)
            try:
                with torch.inference_mode():
                    logits_B1V = self.model(input_ids=ids_BT.to(self.model.device), use_cache=False).logits
            finally:
                hook.remove()
            logits_BV = logits_B1V[:, 0].float()
            share_B = torch.sigmoid((logits_BV[:, watched[0]] - logits_BV[:, watched[1]]).double())
            for index, first, share in zip(batch, logits_BV.argmax(dim=1).tolist(), share_B.tolist(), strict=True):
                found[index] = FirstToken(first, share)
        return [found[index] for index in range(len(prompts))]

    def greedy(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[tuple[list[int], bool]]:
        """Returns the new ids of each prompt without EOS, and True where the limit and not EOS ended them.

        Prompts are padded on the left under an attention mask, from which positions follow. Prompts so long that the
        context limits their output run with prompts of their own length only.
        """
        outputs: list[tuple[list[int], bool]] = [([], True)] * len(prompts)
        groups: dict[int, list[int]] = {}
        for index, ids in enumerate(prompts):
            groups.setdefault(self.room(len(ids), max_new_tokens), []).append(index)
        for room, members in sorted(groups.items(), reverse=True):
            if room < 1:
                continue
            lengths = [len(prompts[i]) + room for i in members]
            for batch in plan_batches(lengths, self.batch_tokens):
                rows = [members[i] for i in batch]
                for index, new in zip(rows, self._generate([prompts[i] for i in rows], room), strict=True):
                    outputs[index] = new
        return outputs

    def _generate(self, prompts: list[Sequence[int]], room: int) -> list[tuple[list[int], bool]]:
        import torch
        from transformers import GenerationConfig

        width = max(len(ids) for ids in prompts)
        ids_BT = torch.full((len(prompts), width), self.pad, dtype=torch.long)
        mask_BT = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, ids in enumerate(prompts):
            ids_BT[row, width - len(ids) :] = torch.as_tensor(ids, dtype=torch.long)
            mask_BT[row, width - len(ids) :] = 1
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=room,
            eos_token_id=self.tokenizer.eos,
            pad_token_id=self.pad,
            use_cache=True,
        )
        with torch.inference_mode():
            new_BT = self.model.generate(
                input_ids=ids_BT.to(self.model.device),
                attention_mask=mask_BT.to(self.model.device),
                generation_config=settings,
            )[:, width:].tolist()
        return [self._until_eos(row) for row in new_BT]

    def _until_eos(self, ids: list[int]) -> tuple[list[int], bool]:
        if self.tokenizer.eos is None or self.tokenizer.eos not in ids:
            return ids, True
        return ids[: ids.index(self.tokenizer.eos)], False


def _fetched(config: DocRefinementConfig | ChunkRefinementConfig) -> tuple[Path, ResolvedModel]:
    """Returns the model's folder and identity; of a hub model the commit that was fetched, where its folder tells."""
    resolved = resolve_model(config)
    if resolved.place is not None:
        return resolved.place, resolved
    folder = model_folder(config.model, config.revision)
    if _COMMIT.fullmatch(folder.name):
        resolved = resolve_model(config.model_copy(update={"revision": folder.name}))
    return folder, resolved


class TransformersDocRefiner:
    """Decides keep or drop of whole documents with a causal language model.

    Raises:
        ConfigError: The model's digest is not the expected one.
        ModelError: The model cannot be loaded.
    """

    def __init__(self, config: DocRefinementConfig) -> None:
        folder, resolved = _fetched(config)
        self.model_id, self.fingerprint = resolved.model_id, resolved.fingerprint
        self.config = config
        self.causal = CausalRefiner(folder, config)
        self.decision_ids = self.causal.tokenizer.decision_ids()

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision for each text, in order.

        A first token "drop" or "keep" decides alone: ``output`` is then the call that it begins. For "keep" the
        official code could still drop where a run-on output spells "drop" later; that is not looked for.
        """
        if not texts:
            return []
        encoder = self.causal.tokenizer.encoder
        limit = self.config.max_prompt_tokens
        if self.causal.context is not None:
            limit = min(limit, self.causal.context - 1)
        prompts = [encoder.document_ids(replace_surrogates(t)[0], self.config.prompt_ids, limit) for t in texts]
        decisions: list[DocDecision | None] = [None] * len(texts)
        margins: list[float | None] = [None] * len(texts)
        if self.decision_ids is not None:
            for index, first in enumerate(self.causal.first_tokens([ids for ids, _ in prompts], self.decision_ids)):
                margins[index] = first.share
                if first.token in self.decision_ids:
                    decisions[index] = self._decision(self._call(first), first.share, prompts[index])
        rest = [index for index, decision in enumerate(decisions) if decision is None]
        written = self.causal.greedy([prompts[index][0] for index in rest], self.config.max_new_tokens)
        for index, (ids, _) in zip(rest, written, strict=True):
            output = replace_surrogates(self.causal.tokenizer.decode(ids))[0].strip(" ")
            decisions[index] = self._decision(output, margins[index], prompts[index])
        return [decision for decision in decisions if decision is not None]

    def _call(self, first: FirstToken) -> str:
        """Returns the call for which a decision token stands: the more probable one, or by the threshold if set."""
        if self.config.threshold is not None:
            drops = first.share >= self.config.threshold
        else:
            drops = self.decision_ids is not None and first.token == self.decision_ids[0]
        return "drop_doc()" if drops else "keep_doc()"

    def _decision(self, output: str, margin: float | None, prompt: tuple[list[int], bool]) -> DocDecision:
        kept, reason = decide_document(output, self.config.execution_mode)
        return DocDecision("keep" if kept else "drop", margin, output, len(prompt[0]), prompt[1], reason)


class TransformersChunkRefiner:
    """Writes editing programs with a causal language model.

    Raises:
        ConfigError: The model's digest is not the expected one.
        ModelError: The model cannot be loaded.
    """

    def __init__(self, config: ChunkRefinementConfig) -> None:
        folder, resolved = _fetched(config)
        self.model_id, self.fingerprint = resolved.model_id, resolved.fingerprint
        self.config = config
        self.causal = CausalRefiner(folder, config)
        self.assembles = self.causal.tokenizer.encoder.assembles()
        self.max_line = config.max_prompt_tokens * CHARACTERS_PER_ID

    def split(self, text: str) -> list[Chunk]:
        """Returns windows of at most ``window_tokens`` ids, each line counted with its number and one BOS."""
        if not text:
            return []
        lines = text.split("\n")
        shown = (line[: self.max_line] for line in lines)  # a longer line is never sent: its prompt is too long
        numbered = [replace_surrogates(number_line(number, line))[0] for number, line in enumerate(shown)]
        ids = self.causal.tokenizer.encode_batch(numbered)
        chunks = split_lines(lines, [len(line) + 1 for line in ids], self.config.window_tokens)
        return [EncodedChunk(c.first_line, c.lines, tuple(ids[c.first_line : c.last_line + 1])) for c in chunks]

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one output for each chunk, in order; a prompt over the limit is not sent.

        Lines of more than 64 characters per prompt id are counted up to there only.
        """
        prompts = [self._prompt_ids(chunk) for chunk in chunks]
        sent = [i for i, ids in enumerate(prompts) if self._fits(len(ids)) and not self._clipped(chunks[i])]
        written = self.causal.greedy([prompts[index] for index in sent], self.config.max_new_tokens)
        outputs = {
            index: ChunkOutput(self._decode(ids), len(prompts[index]), truncated)
            for index, (ids, truncated) in zip(sent, written, strict=True)
        }
        return [
            outputs.get(index, ChunkOutput("", len(ids), truncated=False, reason=TOO_LONG_PROMPT))
            for index, ids in enumerate(prompts)
        ]

    def _prompt_ids(self, chunk: Chunk) -> list[int]:
        ids = list(chunk.line_ids) if self.assembles and isinstance(chunk, EncodedChunk) else None
        if ids is None:
            lines = (replace_surrogates(line[: self.max_line])[0] for line in chunk.lines)
            chunk = Chunk(chunk.first_line, tuple(lines))
        return self.causal.tokenizer.encoder.chunk_ids(ids, chunk, self.config.prompt_ids)

    def _clipped(self, chunk: Chunk) -> bool:
        return any(len(line) > self.max_line for line in chunk.lines)

    def _fits(self, n_prompt: int) -> bool:
        return n_prompt <= self.config.max_prompt_tokens and self.causal.room(n_prompt, 1) >= 1

    def _decode(self, ids: list[int]) -> str:
        return replace_surrogates(self.causal.tokenizer.decode(ids))[0].strip(" ")
