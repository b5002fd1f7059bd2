"""Arrow strings as the bytes and offsets that kernels read, in groups that bound memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.errors import DataError
from corpusmill.rules.compiled.byte_hashing import Bytes

if TYPE_CHECKING:
    Strings: TypeAlias = pa.Array[Any]
else:  # generic only in the stubs
    Strings: TypeAlias = pa.Array

Longs = npt.NDArray[np.int64]

GROUP_BYTES = 4_000_000
"""Texts are worked on in groups of about so many bytes, which bounds memory; a longer text is a group of its own."""


def string_buffers(texts: Strings) -> tuple[Bytes, Longs]:
    """Returns the UTF-8 bytes of an array of strings without nulls and the offsets of its elements in them, (n + 1,).

    Raises:
        DataError: The texts are not valid UTF-8.
    """
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"texts are not valid UTF-8 strings: {error}; decode them before they enter a table") from error
    width: Any = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    if offsets is None or data is None or not len(texts):
        return np.zeros(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    places = np.frombuffer(memoryview(offsets), dtype=width)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(memoryview(data), dtype=np.uint8), places.astype(np.int64)


def text_groups(offsets: Longs) -> Iterator[tuple[int, int]]:
    """Yields the bounds of groups of consecutive texts."""
    first, n = 0, len(offsets) - 1
    while first < n:
        stop = int(np.searchsorted(offsets, offsets[first] + GROUP_BYTES, side="right")) - 1
        stop = min(max(stop, first + 1), n)
        yield first, stop
        first = stop
