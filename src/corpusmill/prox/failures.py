"""Keeps one bad document from failing the batch that it is in."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from corpusmill.errors import ConfigError, ModelError, Transient

ERROR = "error."
"""Beginning of the reasons of items that something failed on."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def answer_each(call: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]) -> list[Answer | Exception]:
    """Returns an answer or an exception for each item.

    The whole batch is tried first. Where that raises, it is halved, down to single items, so that only the items at
    fault (or too big for the memory at hand) carry an exception; k of them among n cost about k log n calls.

    Raises:
        ConfigError: As raised by the call: no item can be at fault for it.
        ModelError: Likewise, for instance where the model cannot be loaded.
        Transient: Likewise, for instance a server that does not answer: the same work may succeed later.
    """
    try:
        return list(_complete(call, items))
    except Exception as error:
        if isinstance(error, ConfigError | ModelError | Transient):
            raise
        if len(items) == 1:
            return [error.with_traceback(None)]  # its frames hold the batch's tensors
    # outside the handler: the exception would keep the failed batch's memory alive
    half = len(items) // 2
    return [*answer_each(call, items[:half]), *answer_each(call, items[half:])]


def _complete(call: Callable[[Sequence[Item]], Sequence[Answer]], items: Sequence[Item]) -> Sequence[Answer]:
    answers = call(items) if items else []
    if len(answers) != len(items):
        raise RuntimeError(f"the refiner gave {len(answers)} answers to {len(items)} inputs; expected one each")
    return answers


def error_reason(error: Exception) -> str:
    """Returns ``error.<what>`` from the exception's class name, for instance ``error.out_of_memory_error``."""
    return ERROR + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()


def is_error(reason: str) -> bool:
    """Returns whether a reason says that something failed: another attempt may give an answer."""
    return reason.startswith(ERROR)
