"""From rows to windows of token ids: texts are encoded ahead of the model, packed sequences come as ids."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from corpusmill.errors import ConfigError
from corpusmill.modeling.load import TextTokenizer

FIRST_GROUP = 32
"""Rows that are encoded before the model starts; each later group is twice as large, up to the last."""
LARGEST_GROUP = 256


@dataclass(frozen=True)
class Unit:
    """What one score row describes.

    Attributes:
        ids: Its tokens, without prefix; empty where it has a fault.
        n_bytes: Its UTF-8 bytes.
        fault: Reason why it cannot be scored at all, None for none.
    """

    ids: list[int]
    n_bytes: int
    fault: str | None = None


@dataclass(frozen=True)
class Window:
    """Some tokens of a unit that go through the model together.

    Attributes:
        unit: Number of the unit.
        ids: Prefix and tokens; at most as many as the context has.
        first: Whether the unit begins here.
    """

    unit: int
    ids: list[int]
    first: bool


def cut_windows(number: int, ids: list[int], context: int, prefix: tuple[int, ...]) -> list[Window]:
    """Returns the windows of a unit that have a token to score; they do not overlap.

    Args:
        number: The unit's number.
        ids: Its tokens.
        context: Tokens of a window at most, the prefix included.
        prefix: Tokens fed before each window, scored in none.
    """
    size = context - len(prefix)
    cut = [[*prefix, *ids[start : start + size]] for start in range(0, len(ids), size)]
    return [Window(number, window, i == 0) for i, window in enumerate(cut) if len(window) > 1]


def group_bounds(n_rows: int) -> list[tuple[int, int]]:
    """Returns first row and end of the consecutive groups that are scored together; they depend on the number alone."""
    bounds, start, size = [], 0, FIRST_GROUP
    while start < n_rows:
        bounds.append((start, min(start + size, n_rows)))
        start, size = start + size, min(2 * size, LARGEST_GROUP)
    return bounds


def read_ahead(groups: Sequence[pa.Table], read: Callable[[pa.Table], list[Unit]]) -> Iterator[list[Unit]]:
    """Yields the units of each group of rows; a thread reads the next group while the caller works on one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = deque(thread.submit(read, group) for group in groups[:1])
        for following in range(1, len(groups) + 1):
            units = coming.popleft().result()
            coming.extend(thread.submit(read, group) for group in groups[following : following + 1])
            yield units


def text_units(batch: pa.Table, tokenizer: TextTokenizer) -> list[Unit]:
    """Returns the units of rows with a ``text``."""
    texts = batch.column("text").to_pylist()
    sizes = [len((text or "").encode("utf-8", "surrogatepass")) for text in texts]
    return [
        _text_unit(text, size, ids) for text, size, ids in zip(texts, sizes, _encode(tokenizer, texts), strict=True)
    ]


def _text_unit(text: str | None, size: int, ids: list[int] | None) -> Unit:
    if text is None:
        return Unit([], size, "error.null_text")
    return Unit([], size, "error.tokenizer") if ids is None else Unit(ids, size)


def _encode(tokenizer: TextTokenizer, texts: list[str | None]) -> list[list[int] | None]:
    """Returns token ids of each text, None where the tokenizer fails on it."""
    given = [text or "" for text in texts]
    try:
        return list(tokenizer.encode_batch(given))
    except Exception:  # noqa: BLE001 - tokenizers raises bare Exception; one bad text must not cost the others
        return [_encode_one(tokenizer, text) for text in given]


def _encode_one(tokenizer: TextTokenizer, text: str) -> list[int] | None:
    try:
        return tokenizer.encode_batch([text])[0]
    except Exception:  # noqa: BLE001 - see _encode
        return None


def sequence_units(batch: pa.Table, tokenizer: TextTokenizer) -> list[Unit]:
    """Returns the units of rows with ``tokens``, ids of this tokenizer, and their ``n_bytes``.

    Raises:
        ConfigError: The tokens were made with another tokenizer.
    """
    others = sorted({str(sha) for sha in batch.column("tokenizer_sha256").to_pylist()} - {tokenizer.sha256})
    if others:
        raise ConfigError(
            f"the sequences were made with tokenizer_sha256={others[0]!r}, the reference model has "
            f"{tokenizer.sha256!r}; pack them with the reference model's tokenizer, or choose a model with theirs"
        )
    columns = zip(batch.column("tokens").to_pylist(), batch.column("n_bytes").to_pylist(), strict=True)
    return [_sequence_unit(ids, n_bytes, tokenizer) for ids, n_bytes in columns]


def _sequence_unit(ids: list[Any] | None, n_bytes: int | None, tokenizer: TextTokenizer) -> Unit:
    if ids is None:
        return Unit([], n_bytes or 0, "error.null_tokens")
    if any(token is None or not 0 <= token < tokenizer.n_vocab for token in ids):
        return Unit([], n_bytes or 0, "error.token_id")
    if n_bytes is None:
        n_bytes = len(tokenizer.decode(ids).encode("utf-8", "surrogatepass"))
    return Unit(ids, n_bytes)
