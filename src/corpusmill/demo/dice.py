"""Repeatable choices: the same seed gives the same choices on every machine and Python version."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A stream of choices that depends on its seed only (BLAKE2b in counter mode)."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def below(self, n: int) -> int:
        """Returns a number of at least 0 and below ``n``."""
        self._count += 1
        digest = hashlib.blake2b(f"{self._seed}\n{self._count}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % n

    def choice(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """Returns ``k`` different items in random order (all of them where there are fewer)."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(min(k, len(rest)))]

    def chance(self, percent: int) -> bool:
        """Returns True in about ``percent`` of 100 calls."""
        return self.below(100) < percent
