"""Keeps one bad document from failing the batch that it is in."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def one_by_one(call: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]) -> list[Answer | Exception]:
    """Returns an answer or an exception for each item.

    The whole batch is tried first. Where that raises, each item is tried alone, so that only the items at fault (or too
    big for the memory at hand) carry an exception.
    """
    try:
        return list(_complete(call, items))
    except Exception as error:  # noqa: BLE001 - whatever a model raises is told apart by item below
        if len(items) == 1:
            return [error]
    answers: list[Answer | Exception] = []
    for item in items:
        answers += one_by_one(call, [item])
    return answers


def _complete(call: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]) -> Sequence[Answer]:
    answers = call(items) if items else []
    if len(answers) != len(items):
        raise RuntimeError(f"the refiner gave {len(answers)} answers to {len(items)} inputs; expected one each")
    return answers


def error_reason(error: Exception) -> str:
    """Returns ``error.<what>`` from the exception's class name, for instance ``error.out_of_memory_error``."""
    return "error." + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()
