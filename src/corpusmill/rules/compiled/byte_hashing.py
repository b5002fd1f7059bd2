"""Hashes of bytes for hash tables whose entries are verified: a collision costs time, never a result.

Seeds are drawn per process, so that nobody can prepare a text whose pieces collide.
"""

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from corpusmill.rules.compiled.kernel_cache import part

Bytes = npt.NDArray[np.uint8]
Words64 = npt.NDArray[np.uint64]

PRIME = np.uint64((1 << 61) - 1)
"""Modulus of the polynomial hash of concatenated words."""
N_POWERS = 4096
"""Powers of the base that are kept in a table; longer words compute theirs."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LAST_MULTIPLIER = np.uint64(0xE7037ED1A0B428DB)
_LENGTH_MULTIPLIER = np.uint64(0xA0761D6478BD642F)


@intrinsic
def _product_halves(_context: Any, a: Any, b: Any) -> Any:  # noqa: ARG001 - numba takes names and number from here
    """Returns the lower and the upper 64 bits of a product."""
    signature = types.UniTuple(types.uint64, 2)(types.uint64, types.uint64)

    def generate(context: Any, builder: Any, made: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(value, wide) for value in arguments))
        halves = [
            builder.trunc(product, ir.IntType(64)),
            builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64)),
        ]
        return context.make_tuple(builder, made.return_type, halves)

    return signature, generate


@part
def fold(a: np.uint64, b: np.uint64) -> np.uint64:
    """Returns both halves of the 128-bit product, mixed."""
    low, high = _product_halves(a, b)
    return low ^ high


@part
def hash_bytes(data: Bytes, start: int, stop: int, seed: np.uint64) -> np.uint64:
    """Returns the hash of ``data[start:stop]``."""
    h = seed ^ (np.uint64(stop - start) * _LENGTH_MULTIPLIER)
    word = np.uint64(0)
    shift = np.uint64(0)
    for i in range(start, stop):
        word |= np.uint64(data[i]) << shift
        shift += np.uint64(8)
        if shift == np.uint64(64):
            h = fold(h ^ word, _MULTIPLIER)
            word = np.uint64(0)
            shift = np.uint64(0)
    return fold(h ^ word, _LAST_MULTIPLIER)


@part
def hash_pair(a: np.uint64, b: np.uint64) -> np.uint64:
    """Returns a hash of two numbers in order."""
    return fold(a ^ _LENGTH_MULTIPLIER, b ^ _MULTIPLIER)


@part
def same_bytes(left: Bytes, left_start: int, right: Bytes, right_start: int, n: int) -> bool:
    """Returns whether n bytes are equal."""
    for i in range(n):  # noqa: SIM110 - numba compiles no generator expression
        if left[left_start + i] != right[right_start + i]:
            return False
    return True


@part
def multiply(a: np.uint64, b: np.uint64) -> np.uint64:
    """Returns a times b modulo `PRIME`; both below it."""
    low, high = _product_halves(a, b)
    return add((low & PRIME), (low >> np.uint64(61)) | (high << np.uint64(3)))


@part
def add(a: np.uint64, b: np.uint64) -> np.uint64:
    """Returns a plus b modulo `PRIME`; both at most it."""
    total = a + b
    if total >= PRIME:
        total -= PRIME
    return total


@part
def power(powers: Words64, n: int) -> np.uint64:
    """Returns the base to the power of n modulo `PRIME`."""
    if n < N_POWERS:
        return powers[n]
    result = powers[n % (N_POWERS - 1)]
    step = powers[N_POWERS - 1]
    exponent = n // (N_POWERS - 1)
    while exponent:
        if exponent & 1:
            result = multiply(result, step)
        step = multiply(step, step)
        exponent >>= 1
    return result


@part
def polynomial(data: Bytes, start: int, stop: int, base: np.uint64) -> np.uint64:
    """Returns the polynomial of ``data[start:stop]`` at the base, modulo `PRIME`; concatenation is linear in it."""
    h = np.uint64(0)
    for i in range(start, stop):
        h = add(multiply(h, base), np.uint64(data[i]) + np.uint64(1))
    return h


def draw_seed() -> np.uint64:
    """Returns a secret 64-bit seed."""
    return np.uint64(secrets.randbits(64))


def draw_powers() -> Words64:
    """Returns the powers of a secret base modulo `PRIME`, from the 0th, (`N_POWERS`,)."""
    base, value, powers = secrets.randbelow(int(PRIME) - 1024) + 512, 1, []
    for _ in range(N_POWERS):
        powers.append(value)
        value = value * base % int(PRIME)
    return np.array(powers, dtype=np.uint64)
