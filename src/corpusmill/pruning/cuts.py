"""The selection manifest: a few integers per stratum that any shard applies to its own rows as a pure predicate."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from corpusmill.errors import ConfigError
from corpusmill.pruning.order import Ids, Strata, codes_of, float_of_key, keys_of, tiebreaks


class Cut(NamedTuple):
    """A place in the order of (key, tie-break): the first row that is not below it."""

    key: int
    tie: int


START = Cut(0, 0)
"""Below every row."""
END = Cut(1 << 64, 0)
"""Above every row."""


@dataclass(frozen=True)
class StratumCuts:
    """What is kept of one stratum: rows with ``lo <= (key, tie-break) < hi``.

    Attributes:
        lo: First kept place.
        hi: First place that is not kept any more.
        n_scored: Rows with a score.
        n_kept: Rows with a score that are kept.
        n_unscored: Rows without a score.
    """

    lo: Cut
    hi: Cut
    n_scored: int = 0
    n_kept: int = 0
    n_unscored: int = 0

    @classmethod
    def between(cls, lo: float | None, hi: float | None, n_scored: int, n_unscored: int) -> Self:
        """Returns the cuts that keep ``lo <= score <= hi``; None is an open end."""
        first = START if lo is None else Cut(int(keys_of([lo])[0]), 0)
        last = END if hi is None else Cut(int(keys_of([hi])[0]) + 1, 0)
        return cls(first, last, n_scored=n_scored, n_unscored=n_unscored)

    def counted(self, n_scored: int, n_kept: int, n_unscored: int) -> Self:
        """Returns the same cuts with other counts."""
        return replace(self, n_scored=n_scored, n_kept=n_kept, n_unscored=n_unscored)


@dataclass(frozen=True)
class Manifest:
    """A resolved selection.

    Attributes:
        column: Score it orders by.
        fraction: Share that was asked for, as text.
        which: ``bottom``, ``middle`` or ``top``.
        mode: How it was resolved.
        by: Columns that split the strata.
        seed: Seed of the tie-break.
        keep_unscored: Whether rows without a score are kept.
        score_key: Identity of the scores, ``""`` where unknown.
        strata: Cuts by stratum label.
        warnings: What a person should know, for instance a share that ties moved.
    """

    column: str
    fraction: str
    which: str
    mode: str
    by: tuple[str, ...]
    seed: int
    keep_unscored: bool
    score_key: str
    strata: Mapping[str, StratumCuts]
    warnings: tuple[str, ...] = ()

    @property
    def n_scored(self) -> int:
        """Rows with a score, over all strata."""
        return sum(cuts.n_scored for cuts in self.strata.values())

    @property
    def n_kept(self) -> int:
        """Kept rows that have a score, over all strata."""
        return sum(cuts.n_kept for cuts in self.strata.values())

    @property
    def n_unscored(self) -> int:
        """Rows without a score, over all strata."""
        return sum(cuts.n_unscored for cuts in self.strata.values())

    def keep(self, values: Any, doc_ids: Ids, strata: Strata = None) -> np.ndarray:
        """Returns a boolean array: which rows are kept. It depends on each row alone.

        Args:
            values: float64 scores; NaN is "no score" and kept only with ``keep_unscored``.
            doc_ids: Document ids, or a uint64 array that is the tie-break itself.
            strata: One label per row; a label the manifest does not know is treated as "no score".
        """
        scores = np.asarray(values, dtype=np.float64)
        names, codes = codes_of(strata, len(scores))
        unscored = np.isnan(scores)
        keys = keys_of(np.where(unscored, 0.0, scores))
        mask = np.zeros(len(scores), dtype=bool)
        for code, name in enumerate(names):
            here = codes == code
            cuts = self.strata.get(name)
            if cuts is None:
                unscored = unscored | here
                continue
            mask |= here & self._from(cuts.lo, keys, doc_ids) & ~self._from(cuts.hi, keys, doc_ids)
        return np.where(unscored, self.keep_unscored, mask)

    def _from(self, cut: Cut, keys: np.ndarray, doc_ids: Ids) -> np.ndarray:
        """Returns which rows are not below the cut; ids are hashed only where the key alone does not decide."""
        if cut == END:
            return np.zeros(len(keys), dtype=bool)
        mask = keys >= np.uint64(cut.key)
        if cut.tie:
            tied = np.flatnonzero(keys == np.uint64(cut.key))
            mask[tied] = tiebreaks(doc_ids, self.seed, tied) >= np.uint64(cut.tie)
        return mask

    def replaced(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """Returns canonical JSON: equal selections give equal text. Keys and hashes are 16 hex digits."""
        values = asdict(replace(self, strata={}))
        values["strata"] = {
            name: {
                "lo": _cut_to_json(cuts.lo),
                "hi": _cut_to_json(cuts.hi),
                "n_scored": cuts.n_scored,
                "n_kept": cuts.n_kept,
                "n_unscored": cuts.n_unscored,
            }
            for name, cuts in self.strata.items()
        }
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any]) -> Self:
        """Returns the manifest that `to_json` wrote.

        Raises:
            ConfigError: The text is not such a manifest.
        """
        try:
            values = dict(json.loads(text) if isinstance(text, str) else text)
            strata = {
                name: StratumCuts(
                    lo=_cut_from_json(item["lo"]),
                    hi=_cut_from_json(item["hi"]),
                    **{count: int(item.get(count, 0)) for count in ("n_scored", "n_kept", "n_unscored")},
                )
                for name, item in values.pop("strata").items()
            }
            by, warnings = tuple(values.pop("by", ())), tuple(values.pop("warnings", ()))
            return cls(strata=strata, by=by, warnings=warnings, **values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"selection manifest {str(text)[:120]!r} is not readable ({error!r}); expected the JSON that a "
                "resolved selection wrote"
            ) from error


def with_unknown(strata: Mapping[str, StratumCuts], labels: Iterable[str]) -> dict[str, StratumCuts]:
    """Returns the strata and, for labels they lack, cuts that keep nothing, so that their rows are counted too."""
    return {**{label: StratumCuts(START, START) for label in sorted(labels)}, **strata}


def _cut_to_json(cut: Cut) -> str | dict[str, Any]:
    if cut in (START, END):
        return "start" if cut == START else "end"
    return {"score": float_of_key(cut.key), "key": f"{cut.key:016x}", "tie": f"{cut.tie:016x}"}


def _cut_from_json(value: str | Mapping[str, str]) -> Cut:
    if isinstance(value, str):
        return {"start": START, "end": END}[value]
    return Cut(int(value["key"], 16), int(value["tie"], 16))
