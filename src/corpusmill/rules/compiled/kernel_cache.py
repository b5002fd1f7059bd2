"""How kernels are compiled: once per installation, into `corpusmill.kernel_folder.cache_folder`."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from corpusmill.kernel_folder import keep_kernels

Function = TypeVar("Function", bound=Callable[..., Any])

keep_kernels()  # before the first kernel is declared

BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
"""Type of input bytes: Arrow's buffers are read-only, and writable arrays convert to it without a second compile."""

signed: Any = np.int64
"""Signed numbers in kernels; untyped, because the type checker knows them as Python integers elsewhere."""


def part(function: Function) -> Function:
    """Marks a function that only kernels call; it is compiled into each of them."""
    made: Function = numba.njit(function)
    return made


def kernel(*signature: Any) -> Callable[[Function], Function]:
    """Returns a decorator that compiles for exactly these argument types, now or from the cache."""

    def compile_it(function: Function) -> Function:
        made: Function = numba.njit(tuple(signature), cache=True, nogil=True)(function)
        return made

    return compile_it
