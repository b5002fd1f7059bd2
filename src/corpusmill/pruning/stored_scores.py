"""Scores that were computed before, taken from the crawl's table or from a checkpoint, so that no model runs twice.

The table's rows serve a crawl that is decided again: what it holds was committed and is the truth, whatever was scored
beside it. A checkpoint serves a task that was killed. It holds the rows of one group of texts that went through the
model together and is found by exactly that group again, so that a shard comes out as if nobody had killed it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from corpusmill.schema import text_digest

Row = dict[str, Any]


class StoredScores(Protocol):
    """Score rows that were written under the same settings and models."""

    def find(self, key: str) -> Row | None:
        """Returns the row of a text by its digest, None where there is none."""
        ...


class Checkpoints(Protocol):
    """JSON texts by 16-byte keys. It may forget, and never gives another text than was stored."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Returns the texts that are there."""
        ...

    def store(self, values: Mapping[bytes, str]) -> None:
        """Keeps texts for a while."""
        ...


@dataclass(frozen=True)
class ScoreReuse:
    """Where existing scores are looked for; nowhere by default.

    Attributes:
        identity: What the scores depend on beside the texts: settings and contents of models.
        stored: The crawl's own table as it is now.
        checkpoints: Groups that a task on this machine has scored.
    """

    identity: str = ""
    stored: StoredScores | None = None
    checkpoints: Checkpoints | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is any place to look."""
        return self.stored is not None or self.checkpoints is not None

    def known(self, digest: str) -> Row | None:
        """Returns the committed row of a text, None where there is none."""
        return None if self.stored is None else self.stored.find(digest)

    def resumed(self, digests: Sequence[str]) -> list[Row] | None:
        """Returns the rows of a group of texts that was scored before, None where it was not."""
        if self.checkpoints is None:
            return None
        key = self._key(digests)
        text = self.checkpoints.find([key]).get(key)
        return None if text is None else json.loads(text)

    def keep(self, digests: Sequence[str], rows: Sequence[Row]) -> None:
        """Stores the rows of a group of texts."""
        if self.checkpoints is not None:
            self.checkpoints.store({self._key(digests): json.dumps(list(rows))})

    def _key(self, digests: Sequence[str]) -> bytes:
        return hashlib.blake2b("\n".join([self.identity, *digests]).encode(), digest_size=16).digest()


NO_SCORES = ScoreReuse()
"""Every unit reaches the model."""


def content_digests(batch: pa.Table) -> list[str]:
    """Returns what identifies the text or the token ids of each row, ``""`` for a row that has none."""
    if "text" in batch.schema.names:
        return ["" if text is None else text_digest(text) for text in batch.column("text").to_pylist()]
    return ["" if ids is None else text_digest(" ".join(map(str, ids))) for ids in batch.column("tokens").to_pylist()]
