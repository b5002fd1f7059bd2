"""XXH64, as its specification writes it: the readable definition behind the compiled kernel.

Source: "xxHash fast digest algorithm", XXH64, version 0.2.0 of the specification.
"""

PRIME_1 = 11400714785074694791
PRIME_2 = 14029467366897019727
PRIME_3 = 1609587929392839161
PRIME_4 = 9650029242287828579
PRIME_5 = 2870177450012600261

_ALL = (1 << 64) - 1


def xxh64(data: bytes) -> int:
    """Returns the 64-bit hash of some bytes under seed 0."""
    n, i = len(data), 0
    if n >= 32:
        lanes = [(PRIME_1 + PRIME_2) & _ALL, PRIME_2, 0, -PRIME_1 & _ALL]
        while i + 32 <= n:
            lanes = [_round(lane, _number(data, i + 8 * k, 8)) for k, lane in enumerate(lanes)]
            i += 32
        h = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _ALL
        for lane in lanes:
            h = ((h ^ _round(0, lane)) * PRIME_1 + PRIME_4) & _ALL
    else:
        h = PRIME_5
    h = (h + n) & _ALL
    return _mix(_add_rest(h, data, i))


def _add_rest(h: int, data: bytes, i: int) -> int:
    """Returns the hash with the last bytes, fewer than 32, in steps of 8, 4 and 1."""
    n = len(data)
    while i + 8 <= n:
        h = (_rotate(h ^ _round(0, _number(data, i, 8)), 27) * PRIME_1 + PRIME_4) & _ALL
        i += 8
    if i + 4 <= n:
        h = (_rotate(h ^ (_number(data, i, 4) * PRIME_1 & _ALL), 23) * PRIME_2 + PRIME_3) & _ALL
        i += 4
    for byte in data[i:]:
        h = _rotate(h ^ (byte * PRIME_5 & _ALL), 11) * PRIME_1 & _ALL
    return h


def _mix(h: int) -> int:
    h = (h ^ (h >> 33)) * PRIME_2 & _ALL
    h = (h ^ (h >> 29)) * PRIME_3 & _ALL
    return h ^ (h >> 32)


def _number(data: bytes, i: int, width: int) -> int:
    return int.from_bytes(data[i : i + width], "little")


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _ALL


def _round(lane: int, value: int) -> int:
    return _rotate((lane + value * PRIME_2) & _ALL, 31) * PRIME_1 & _ALL
