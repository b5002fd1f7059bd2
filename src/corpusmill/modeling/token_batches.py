"""Batches of token sequences of similar length under a token budget."""

from collections.abc import Sequence
from typing import Any


def plan_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Returns lists of sequence numbers, each list one padded batch.

    The plan depends on the lengths alone and is the same on every machine. The longest sequences come first, so that
    memory runs out at once if at all; ties keep their order.

    Args:
        lengths: Tokens of each sequence, at least 1.
        token_budget: Positions of a batch, padding included; a longer sequence gets a batch of its own.
    """
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * width > token_budget:
            batches.append([])
            width = lengths[index]
        batches[-1].append(index)
    return batches


def shared_beginning(sequences: Sequence[Sequence[int]]) -> int:
    """Returns with how many equal ids all sequences begin, leaving each at least one of its own.

    Args:
        sequences: At least one, none empty.
    """
    lowest, highest = min(map(tuple, sequences)), max(map(tuple, sequences))
    most = min(len(ids) for ids in sequences) - 1
    return next((i for i in range(most) if lowest[i] != highest[i]), most)


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int = 0, multiple: int = 1) -> tuple[Any, Any]:
    """Returns ids [B, T] (int64) and mask [B, T] (bool, True where a token is real), padded on the right.

    Args:
        sequences: Token ids; at least one sequence.
        pad_id: What stands in padded places; the mask hides it, so any valid id will do.
        multiple: T is rounded up to a multiple of it.
    """
    import torch

    longest = max(len(ids) for ids in sequences)
    width = max(-(-longest // multiple) * multiple, 1)
    ids_BT = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, ids in enumerate(sequences):
        ids_BT[row, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
        mask_BT[row, : len(ids)] = True
    return ids_BT, mask_BT
