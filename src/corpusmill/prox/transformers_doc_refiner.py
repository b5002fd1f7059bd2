"""The document stage over any causal language model of transformers, from a local folder or a hub id.

One prefill, no decoding, wherever the most probable first token is that of ``drop_doc()`` or ``keep_doc()``; only other
first tokens are decoded. Exact up to float rounding: padding never enters a result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corpusmill.batches import replace_surrogates
from corpusmill.modeling.token_batches import pad_right, plan_batches
from corpusmill.prox.causal_model import CausalModel, fetched_model
from corpusmill.prox.config import DocRefinementConfig
from corpusmill.prox.greedy_decoding import greedy
from corpusmill.prox.program_execution import decide_document
from corpusmill.prox.refiner import DocDecision


@dataclass(frozen=True)
class FirstToken:
    """The most probable first new token, and of two watched tokens the first one's share of their probability."""

    token: int
    share: float


def first_tokens(model: CausalModel, prompts: Sequence[Sequence[int]], watched: tuple[int, int]) -> list[FirstToken]:
    """Returns the most probable first new token of each prompt, by one forward pass a batch.

    Prompts are padded on the right, where a causal model cannot see it. A hook in front of the output layer takes
    each row's last real position, so that the vocabulary is multiplied once a prompt and not once a token.
    """
    import torch

    found: dict[int, FirstToken] = {}
    for batch in plan_batches([len(ids) for ids in prompts], model.batch_tokens):
        ids_BT, mask_BT = pad_right([prompts[i] for i in batch], model.pad)
        last_B = (mask_BT.sum(dim=1) - 1).to(model.model.device)

        def take_last(_head: Any, inputs: tuple[Any, ...], last_B: Any = last_B) -> tuple[Any, ...]:
            hidden_BTD = inputs[0]
            row_B = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
            return (hidden_BTD[row_B, last_B][:, None], *inputs[1:])

        hook = model.model.get_output_embeddings().register_forward_pre_hook(take_last)
        try:
            with torch.inference_mode():
                logits_B1V = model.model(input_ids=ids_BT.to(model.model.device), use_cache=False).logits
        finally:
            hook.remove()
        logits_BV = logits_B1V[:, 0].float()
        share_B = torch.sigmoid((logits_BV[:, watched[0]] - logits_BV[:, watched[1]]).double())
        for index, first, share in zip(batch, logits_BV.argmax(dim=1).tolist(), share_B.tolist(), strict=True):
            found[index] = FirstToken(first, share)
    return [found[index] for index in range(len(prompts))]


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
            for index, first in enumerate(first_tokens(self.causal, [ids for ids, _ in prompts], self.decision_ids)):
                margins[index] = first.share
                if first.token in self.decision_ids:
                    decisions[index] = self._decision(self._call(first), first.share, prompts[index])
        rest = [index for index, decision in enumerate(decisions) if decision is None]
        written = greedy(self.causal, [prompts[index][0] for index in rest], self.config.max_new_tokens)
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
