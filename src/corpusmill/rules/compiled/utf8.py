"""Reading valid UTF-8 bytes as Python reads text: white space, line ends, code points."""

import numpy as np
import numpy.typing as npt

from corpusmill.rules.compiled.byte_hashing import Bytes
from corpusmill.rules.compiled.kernel_cache import part, signed

NEWLINE = 10


@part
def space_width(data: Bytes, i: int) -> int:
    """Returns the bytes of the white space character (`str.isspace`) that begins at i, 0 if it is none."""
    c = data[i]
    if c < 0x80:
        return 1 if c == 32 or 9 <= c <= 13 or 0x1C <= c <= 0x1F else 0
    if c == 0xC2:
        return 2 if data[i + 1] == 0x85 or data[i + 1] == 0xA0 else 0
    if 0xE1 <= c <= 0xE3:
        return _wide_space(data, i)
    return 0


@part
def _wide_space(data: Bytes, i: int) -> int:
    point = (signed(data[i] & 0x0F) << 12) | (signed(data[i + 1] & 0x3F) << 6) | signed(data[i + 2] & 0x3F)
    if point < 0x2000:
        return 3 if point == 0x1680 else 0
    if point <= 0x200A:
        return 3
    return 3 if point == 0x2028 or point == 0x2029 or point == 0x202F or point == 0x205F or point == 0x3000 else 0


@part
def line_end_width(data: Bytes, i: int, stop: int) -> int:
    """Returns the bytes of the line end (`str.splitlines`) that begins at i, 0 if there is none."""
    c = data[i]
    if c < 0x80:
        if c == 13 and i + 1 < stop and data[i + 1] == NEWLINE:
            return 2
        return 1 if 10 <= c <= 13 or 0x1C <= c <= 0x1E else 0
    if c == 0xC2:
        return 2 if data[i + 1] == 0x85 else 0
    if c == 0xE2 and data[i + 1] == 0x80:
        return 3 if data[i + 2] == 0xA8 or data[i + 2] == 0xA9 else 0
    return 0


@part
def point_width(first: int) -> int:
    """Returns the bytes of a code point from its first byte."""
    if first < 0x80:
        return 1
    if first < 0xE0:
        return 2
    return 3 if first < 0xF0 else 4


@part
def point_at(data: Bytes, i: int) -> int:
    """Returns the code point that begins at i."""
    c = signed(data[i])
    if c < 0x80:
        return c
    point = c & (0x1F if c < 0xE0 else 0x0F if c < 0xF0 else 0x07)
    for k in range(1, point_width(c)):
        point = (point << 6) | signed(data[i + k] & 0x3F)
    return point


@part
def last_point_start(data: Bytes, start: int, stop: int) -> int:
    """Returns where the last code point of ``data[start:stop]`` begins; the range is not empty."""
    i = stop - 1
    while i > start and (data[i] & 0xC0) == 0x80:
        i -= 1
    return i


@part
def n_points(data: Bytes, start: int, stop: int) -> int:
    """Returns the code points in ``data[start:stop]``."""
    n = 0
    for i in range(start, stop):
        n += (data[i] & 0xC0) != 0x80
    return n


@part
def strip_left(data: Bytes, start: int, stop: int) -> int:
    """Returns where the text begins without leading white space."""
    while start < stop:
        width = space_width(data, start)
        if width == 0:
            return start
        start += width
    return start


@part
def strip_right(data: Bytes, start: int, stop: int) -> int:
    """Returns where the text ends without trailing white space."""
    while stop > start:
        i = last_point_start(data, start, stop)
        if space_width(data, i) == 0:
            return stop
        stop = i
    return stop


@part
def in_sorted(values: npt.NDArray[np.int32], value: int) -> bool:
    """Returns whether a sorted array holds a value."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < len(values) and values[low] == value
