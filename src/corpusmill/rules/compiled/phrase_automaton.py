"""C4's phrases as one automaton over lower-cased bytes (Aho and Corasick 1975)."""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from corpusmill.rules.c4 import POLICY_PHRASES
from corpusmill.rules.compiled.byte_hashing import Bytes

LOREM, JAVASCRIPT, POLICY = 1, 2, 4
"""Bits of what a state has found."""

PHRASES = {"lorem ipsum": LOREM, "javascript": JAVASCRIPT, **dict.fromkeys(POLICY_PHRASES, POLICY)}
_N_LETTERS = 32


class Phrases(NamedTuple):
    """The automaton.

    Attributes:
        letters: Column of each byte, upper case as lower case, (256,); 0 for bytes in no phrase.
        steps: Next state by state and column, (states, 32).
        found: What is found on reaching a state, (states,).
    """

    letters: Bytes
    steps: npt.NDArray[np.uint8]
    found: npt.NDArray[np.uint8]


_U8 = numba.types.Array(numba.uint8, 1, "C")
PHRASES_TYPE = numba.types.NamedTuple((_U8, numba.types.Array(numba.uint8, 2, "C"), _U8), Phrases)
"""Type of `Phrases` in kernels."""


def make_phrases() -> Phrases:
    """Returns the automaton of `PHRASES`."""
    alphabet = sorted({c for phrase in PHRASES for c in phrase})
    assert len(alphabet) < _N_LETTERS
    letters = np.zeros(256, dtype=np.uint8)
    for column, c in enumerate(alphabet, 1):
        letters[[ord(c), ord(c.upper())]] = column
    tree, found = _tree(letters)
    steps = np.zeros((len(tree), _N_LETTERS), dtype=np.uint8)
    back = [0] * len(tree)
    queue = [0]
    for state in queue:
        for column in range(1, _N_LETTERS):
            behind = int(steps[back[state], column]) if state else 0
            child = tree[state].get(column)
            if child is None:
                steps[state, column] = behind
                continue
            steps[state, column], back[child] = child, behind
            found[child] |= found[behind]
            queue.append(child)
    return Phrases(letters, steps, np.array(found, dtype=np.uint8))


def _tree(letters: Bytes) -> tuple[list[dict[int, int]], list[int]]:
    """Returns the children of each state by column, and what ends in each state."""
    tree: list[dict[int, int]] = [{}]
    found = [0]
    for phrase, what in PHRASES.items():
        state = 0
        for c in phrase:
            column = int(letters[ord(c)])
            if column not in tree[state]:
                tree[state][column] = len(tree)
                tree.append({})
                found.append(0)
            state = tree[state][column]
        found[state] |= what
    return tree, found
