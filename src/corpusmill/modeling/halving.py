"""Runs a batch in halves where memory does not hold it: one big page must not end a shard.

Which error means "out of memory" differs: CUDA raises `torch.OutOfMemoryError`, the CPU allocator a plain RuntimeError,
Python and numpy a MemoryError. All else is not caught here.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Answer = TypeVar("Answer")

_ALLOCATION_FAILED = ("can't allocate memory", "not enough memory", "out of memory", "failed to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception says that memory did not suffice."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(words in text for words in _ALLOCATION_FAILED)


def free_memory() -> None:
    """Gives unused memory back, that of the GPU too; call it where no exception holds the failed batch's tensors."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def halving(run: Callable[[Sequence[Row]], Sequence[Answer]], rows: Sequence[Row]) -> list[Answer | Exception]:
    """Returns one answer for each row, in order; a row that does not fit even alone has its exception in place.

    A batch that runs out of memory is cut in two and each half is run by itself, down to single rows, so n rows take at
    most 2n - 1 runs. Any other exception passes through.

    Args:
        run: Gives one answer for each row of a batch; is called with a batch again in halves, so it must not keep
            anything of a batch that failed.
        rows: The batch; none gives no call.

    Raises:
        RuntimeError: ``run`` gave another number of answers than rows.
    """
    if not rows:
        return []
    failure: Exception | None = None
    try:
        answers = list(run(rows))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failure = error.with_traceback(None)  # its frames hold the batch's tensors
    if failure is None:
        if len(answers) != len(rows):
            raise RuntimeError(f"a batch of {len(rows)} rows gave {len(answers)} answers; expected one each")
        return list(answers)
    if len(rows) == 1:
        free_memory()
        return [failure]
    del failure
    free_memory()
    middle = len(rows) // 2
    return halving(run, rows[:middle]) + halving(run, rows[middle:])
