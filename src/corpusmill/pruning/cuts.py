"""The selection manifest: a few integers per stratum that any shard applies to its own rows as a pure predicate."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any, Self

import numpy as np

from corpusmill.errors import ConfigError
from corpusmill.pruning.drift import Drift, Profile
from corpusmill.pruning.order import (
    END,
    START,
    Cut,
    Ids,
    Strata,
    codes_of,
    float_of_key,
    keys_of,
    rows_by_code,
    tiebreaks,
)
from corpusmill.pruning.sampling import with_noise

ROWS = "rows"
"""The weight by which every row counts as one."""


@dataclass(frozen=True)
class StratumCuts:
    """What is kept of one stratum: rows with ``lo <= (key, tie-break) < hi``.

    Attributes:
        lo: First kept place.
        hi: First place that is not kept any more.
        n_scored: Rows with a score.
        n_kept: Rows with a score that are kept.
        n_unscored: Rows without a score.
        weight_scored: Weight of the rows with a score, their number where rows are not weighted.
        weight_kept: Weight of those that are kept.
    """

    lo: Cut
    hi: Cut
    n_scored: int = 0
    n_kept: int = 0
    n_unscored: int = 0
    weight_scored: int = 0
    weight_kept: int = 0

    @classmethod
    def between(cls, lo: float | None, hi: float | None) -> Self:
        """Returns the cuts that keep ``lo <= score <= hi``, not counted yet; None is an open end."""
        first = START if lo is None else Cut(int(keys_of([lo])[0]), 0)
        last = END if hi is None else Cut(int(keys_of([hi])[0]) + 1, 0)
        return cls(first, last)

    @property
    def share(self) -> Fraction:
        """Kept share of the weight, 0 where there is none."""
        return Fraction(self.weight_kept, self.weight_scored) if self.weight_scored else Fraction(0)


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
        weight: What the share is measured in: ``rows`` or a column.
        percentile: Percentile method of a threshold selection.
        temperature: Temperature of a sample.
        noise: Width of the Gumbel noise that is added to the scores before they are cut: negative where low scores are
            preferred, 0 for every selection that is no sample.
        profile: Distribution of the scores it was resolved on, against which drift is measured.
        drift: Of frozen cut-offs, how far the scores have moved from that profile.
        n_unknown: Of frozen cut-offs, rows by stratum that they do not know.
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
    weight: str = ROWS
    percentile: str | None = None
    temperature: float | None = None
    noise: float = 0.0
    profile: Profile | None = None
    drift: Drift | None = None
    n_unknown: Mapping[str, int] = field(default_factory=dict)

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
        scores = with_noise(np.asarray(values, dtype=np.float64), doc_ids, self.seed, self.noise)
        names, codes = codes_of(strata, len(scores))
        unscored = np.isnan(scores)
        keys = keys_of(np.where(unscored, 0.0, scores))
        mask = np.zeros(len(scores), dtype=bool)
        for name, rows in zip(names, rows_by_code(codes, len(names)), strict=True):
            cuts = self.strata.get(name)
            if cuts is None:
                unscored[rows] = True
                continue
            at = np.arange(len(scores))[rows]
            mask[rows] = self._from(cuts.lo, keys, doc_ids, at) & ~self._from(cuts.hi, keys, doc_ids, at)
        return np.where(unscored, self.keep_unscored, mask)

    def _from(self, cut: Cut, keys: np.ndarray, doc_ids: Ids, rows: np.ndarray) -> np.ndarray:
        """Returns which rows are not below the cut; ids are hashed only where the key alone does not decide."""
        if cut.key >= END.key:
            return np.zeros(len(rows), dtype=bool)
        mask = keys[rows] >= np.uint64(cut.key)
        if cut.tie:
            tied = np.flatnonzero(keys[rows] == np.uint64(cut.key))
            mask[tied] = tiebreaks(doc_ids, self.seed, rows[tied]) >= np.uint64(cut.tie)
        return mask

    def frozen(self) -> Self:
        """Returns the cuts and the profile alone, without what was counted on any crawl."""
        strata = {name: StratumCuts(cuts.lo, cuts.hi) for name, cuts in self.strata.items()}
        return replace(self, strata=strata, mode="cutoffs", warnings=(), drift=None, n_unknown={}, keep_unscored=False)

    def replaced(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """Returns canonical JSON: equal selections give equal text. Keys and hashes are 16 hex digits."""
        values = asdict(replace(self, strata={}, profile=None, drift=None))
        for name in UNSET:
            if values[name] == UNSET[name]:
                del values[name]
        values["strata"] = {name: _stratum_to_json(cuts, self.weight) for name, cuts in self.strata.items()}
        if self.profile is not None:
            values["profile"] = self.profile.to_json()
        if self.drift is not None:
            values["drift"] = self.drift._asdict()
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any]) -> Self:
        """Returns the manifest that `to_json` wrote.

        Raises:
            ConfigError: The text is not such a manifest.
        """
        try:
            values = dict(json.loads(text) if isinstance(text, str) else text)
            weight = values.setdefault("weight", ROWS)
            strata = {name: _stratum_from_json(item, weight) for name, item in values.pop("strata").items()}
            by, warnings = tuple(values.pop("by", ())), tuple(values.pop("warnings", ()))
            profile, drift = values.pop("profile", None), values.pop("drift", None)
            return cls(
                strata=strata,
                by=by,
                warnings=warnings,
                profile=None if profile is None else Profile.from_json(profile),
                drift=None if drift is None else Drift(**drift),
                **values,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"selection manifest {str(text)[:120]!r} is not readable ({error!r}); expected the JSON that a "
                "resolved selection wrote"
            ) from error


UNSET: dict[str, Any] = {
    "weight": ROWS, "percentile": None, "temperature": None, "noise": 0.0, "profile": None, "drift": None,
    "n_unknown": {},
}  # fmt: skip
"""Fields that the JSON leaves out where they say nothing."""


def _stratum_to_json(cuts: StratumCuts, weight: str) -> dict[str, Any]:
    counts = COUNTS if weight == ROWS else (*COUNTS, *WEIGHTS)
    return {
        "lo": _cut_to_json(cuts.lo),
        "hi": _cut_to_json(cuts.hi),
        **{name: getattr(cuts, name) for name in counts},
    }


def _stratum_from_json(item: Mapping[str, Any], weight: str) -> StratumCuts:
    counts = {name: int(item.get(name, 0)) for name in COUNTS}
    if weight == ROWS:
        weights = {"weight_scored": counts["n_scored"], "weight_kept": counts["n_kept"]}
    else:
        weights = {name: int(item.get(name, 0)) for name in WEIGHTS}
    return StratumCuts(lo=_cut_from_json(item["lo"]), hi=_cut_from_json(item["hi"]), **counts, **weights)


COUNTS = ("n_scored", "n_kept", "n_unscored")
WEIGHTS = ("weight_scored", "weight_kept")


def _cut_to_json(cut: Cut) -> str | dict[str, Any]:
    if cut in (START, END):
        return "start" if cut == START else "end"
    return {"score": float_of_key(cut.key), "key": f"{cut.key:016x}", "tie": f"{cut.tie:016x}"}


def _cut_from_json(value: str | Mapping[str, str]) -> Cut:
    if isinstance(value, str):
        return {"start": START, "end": END}[value]
    return Cut(int(value["key"], 16), int(value["tie"], 16))
