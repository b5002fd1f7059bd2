"""The document stage over any causal language model of transformers, from a local folder or a hub id.

One prefill, no decoding, wherever the most probable first token is that of ``drop_doc()`` or ``keep_doc()``; only other
first tokens are decoded. Exact up to float rounding: padding never enters a result.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from corpusmill.batches import replace_surrogates
from corpusmill.modeling.halving import halving
from corpusmill.modeling.packed_prefill import last_logits, plan_prefill
from corpusmill.prox.causal_model import CausalModel, fetched_model
from corpusmill.prox.config import DocRefinementConfig
from corpusmill.prox.decision_tokens import decided_call
from corpusmill.prox.greedy_decoding import greedy
from corpusmill.prox.program_execution import decide_document
from corpusmill.prox.refiner import DocDecision

GROUP_CHARACTERS = 64
"""Characters per token of a batch that are encoded together on a GPU: some sixteen batches, enough to sort by length,
while the GPU works at the group before."""

Prompt = tuple[list[int], bool]


@dataclass(frozen=True)
class FirstToken:
    """The most probable first new token, and of two watched tokens the first one's share of their probability."""

    token: int
    share: float


class FirstTokens:
    """Finds the most probable first new token of prompts, group by group, by one forward pass a batch.

    On a GPU the passes of a group are only queued: the caller can encode the next group meanwhile, and `collect` waits.

    Args:
        model: The model.
        watched: Two ids whose share is wanted.
    """

    def __init__(self, model: CausalModel, watched: tuple[int, int]) -> None:
        self.model, self.watched = model, watched
        self.rows: list[Any] = []

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Runs prompts, or queues their runs on a GPU; a batch that memory does not hold runs in halves.

        Raises:
            RuntimeError: A prompt does not fit into memory even alone.
        """
        found: dict[int, Any] = {}
        model = self.model
        for batch in plan_prefill(model.model, [len(ids) for ids in prompts], model.batch_tokens):
            answers = halving(lambda members: self._run([prompts[i] for i in members]), batch)
            for index, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Exception):
                    raise answer
                found[index] = answer
        self.rows += [found[index] for index in range(len(prompts))]

    def _run(self, prompts: Sequence[Sequence[int]]) -> list[Any]:
        """Returns one tensor (token, share) for each prompt, on the device."""
        import torch

        logits_BV = last_logits(self.model.model, prompts, self.model.pad)
        first, second = self.watched
        share_B = torch.sigmoid((logits_BV[:, first] - logits_BV[:, second]).double())
        return list(torch.stack([logits_BV.argmax(dim=1).double(), share_B], dim=1).unbind())

    def collect(self) -> list[FirstToken]:
        """Returns the first token of every prompt that was added, in order."""
        import torch

        found = torch.stack(self.rows).tolist() if self.rows else []
        return [FirstToken(int(token), share) for token, share in found]


def first_tokens(model: CausalModel, prompts: Sequence[Sequence[int]], watched: tuple[int, int]) -> list[FirstToken]:
    """Returns the most probable first new token of each prompt, in order."""
    runs = FirstTokens(model, watched)
    runs.add(prompts)
    return runs.collect()


class TransformersDocRefiner:
    """Decides keep or drop of whole documents with a causal language model.

    Raises:
        ConfigError: The model's digest is not the expected one.
        ModelError: The model cannot be loaded.
    """

    def __init__(self, config: DocRefinementConfig) -> None:
        folder, resolved = fetched_model(config)
        self.model_id, self.fingerprint = resolved.model_id, resolved.fingerprint
        self.config = config
        self.causal = CausalModel(folder, config)
        self.decision_ids = self.causal.tokenizer.decision_ids()
        context = self.causal.context
        self.limit = config.max_prompt_tokens if context is None else min(config.max_prompt_tokens, context - 1)

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision for each text, in order.

        A first token "drop" or "keep" decides alone: ``output`` is then the call that it begins. One case is decoded
        all the same: in compat mode without a threshold a "keep" of a prompt that was cut. Such a prompt lacks its
        closing tag, its output may run on, and the official code drops the document where "drop" occurs in it anywhere.
        """
        prompts, first = self._read(texts)
        calls = [self._call(token, cut) for token, (_, cut) in zip(first, prompts, strict=True)]
        rest = [index for index, call in enumerate(calls) if call is None]
        written = greedy(self.causal, [prompts[index][0] for index in rest], self.config.max_new_tokens)
        outputs = {index: self._text(ids) for index, (ids, _) in zip(rest, written, strict=True)}
        return [
            self._decision(outputs.get(index, call or ""), token, prompt)
            for index, (call, token, prompt) in enumerate(zip(calls, first, prompts, strict=True))
        ]

    def _read(self, texts: Sequence[str]) -> tuple[list[Prompt], list[FirstToken | None]]:
        """Returns each text's prompt and first new token; None where the vocabulary has no decision tokens."""
        runs = None if self.decision_ids is None else FirstTokens(self.causal, self.decision_ids)
        prompts: list[Prompt] = []
        for group in self._groups(texts):
            clean = [replace_surrogates(text)[0] for text in group]
            encoded = self.causal.tokenizer.encoder.all_document_ids(clean, self.config.prompt_ids, self.limit)
            if runs is not None:
                runs.add([ids for ids, _ in encoded])
            prompts += encoded
        return prompts, [None] * len(texts) if runs is None else list(runs.collect())

    def _groups(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yields the texts: on a GPU in groups to encode one while another runs, on a CPU together."""
        if self.causal.model.device.type == "cpu":
            yield texts
            return
        start = size = 0
        for index, text in enumerate(texts):
            size += min(len(text), 8 * self.limit)
            if size >= GROUP_CHARACTERS * self.causal.batch_tokens:
                yield texts[start : index + 1]
                start, size = index + 1, 0
        yield texts[start:]

    def _call(self, first: FirstToken | None, cut: bool) -> str | None:
        """Returns the call for which a decision token stands, by the threshold if set; None where text must decide."""
        if first is None or self.decision_ids is None:
            return None
        return decided_call(self.config, self.decision_ids, first.token, first.share, cut=cut)

    def _text(self, ids: list[int]) -> str:
        return replace_surrogates(self.causal.tokenizer.decode(ids))[0].strip(" ")

    def _decision(self, output: str, first: FirstToken | None, prompt: Prompt) -> DocDecision:
        kept, reason = decide_document(output, self.config.execution_mode)
        margin = None if first is None else first.share
        return DocDecision("keep" if kept else "drop", margin, output, len(prompt[0]), prompt[1], reason)
