"""Greedy decoding of many prompts with one causal language model, in batches of similar length."""

from collections.abc import Sequence

from corpusmill.modeling.token_batches import plan_batches
from corpusmill.prox.causal_model import CausalModel


def greedy(model: CausalModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[tuple[list[int], bool]]:
    """Returns the new ids of each prompt without EOS, and True where the limit and not EOS ended them.

    Prompts are padded on the left under an attention mask, from which positions follow. Prompts so long that the
    context limits their output run with prompts of their own length only.
    """
    outputs: list[tuple[list[int], bool]] = [([], True)] * len(prompts)
    groups: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        groups.setdefault(model.room(len(ids), max_new_tokens), []).append(index)
    for room, members in sorted(groups.items(), reverse=True):
        if room < 1:
            continue
        lengths = [len(prompts[i]) + room for i in members]
        for batch in plan_batches(lengths, model.batch_tokens):
            rows = [members[i] for i in batch]
            for index, new in zip(rows, _generate(model, [prompts[i] for i in rows], room), strict=True):
                outputs[index] = new
    return outputs


def _generate(model: CausalModel, prompts: list[Sequence[int]], room: int) -> list[tuple[list[int], bool]]:
    import torch
    from transformers import GenerationConfig

    width = max(len(ids) for ids in prompts)
    ids_BT = torch.full((len(prompts), width), model.pad, dtype=torch.long)
    mask_BT = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, ids in enumerate(prompts):
        ids_BT[row, width - len(ids) :] = torch.as_tensor(ids, dtype=torch.long)
        mask_BT[row, width - len(ids) :] = 1
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=room,
        eos_token_id=model.tokenizer.eos,
        pad_token_id=model.pad,
        use_cache=True,
    )
    with torch.inference_mode():
        new_BT = model.model.generate(
            input_ids=ids_BT.to(model.model.device),
            attention_mask=mask_BT.to(model.model.device),
            generation_config=settings,
        )[:, width:].tolist()
    return [_until_eos(model, row) for row in new_BT]


def _until_eos(model: CausalModel, ids: list[int]) -> tuple[list[int], bool]:
    if model.tokenizer.eos is None or model.tokenizer.eos not in ids:
        return ids, True
    return ids[: ids.index(model.tokenizer.eos)], False
