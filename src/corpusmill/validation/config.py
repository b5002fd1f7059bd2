"""Settings of the checks: one check as data, and the bounds of a recipe's audit.

Imports pydantic only, so that DAG files and recipes can read it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corpusmill.config import StageConfig

Kind = Literal[
    "metric_between",
    "metrics_equal",
    "share_between",
    "drift",
    "relative_drift",
    "mix_drift",
    "columns",
    "not_null",
    "unique",
    "length_between",
    "value_between",
    "values_in",
    "matches",
]

METRIC_KINDS: frozenset[str] = frozenset(
    {"metric_between", "metrics_equal", "share_between", "drift", "relative_drift", "mix_drift"}
)
"""Kinds whose subject is a metric; all others look at a column of the sample."""
BOUNDED_KINDS = METRIC_KINDS - {"metrics_equal"} | {"length_between", "value_between"}
"""Kinds that need ``minimum`` or ``maximum``."""
PREVIOUS = "previous_"
"""Prefix of the metrics of the crawl published before; drift kinds compare with them."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class CheckConfig(StageConfig):
    """One check as data: what is looked at, what is allowed, how bad a failure is, and why anybody cares."""

    name: str
    """Stable name, ``subject.what``; part of messages and of the Data Docs."""
    kind: Kind
    """What is compared. ``share_between``: subject / other. ``drift``: \\|subject - previous\\|; ``relative_drift``:
    the same over \\|previous\\|; ``mix_drift``: half the summed differences of all shares ``subject.*`` (0 equal mixes,
    1 disjoint). Drift kinds are skipped with a note where there is no previous crawl."""
    subject: str
    """Metric name, or column of the sample; ``"*"`` for kind ``columns``."""
    other: str | None = None
    """Second metric: ``metrics_equal`` and ``share_between`` only."""
    minimum: float | None = None
    """Lowest allowed value, inclusive; None means no lower bound."""
    maximum: float | None = None
    """Highest allowed value, inclusive; None means no upper bound."""
    values: tuple[str, ...] = ()
    """Allowed values (``values_in``), the exact column names (``columns``), or one regular expression (``matches``)."""
    mostly: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the sample's rows that must comply; column kinds other than ``columns`` and ``unique``."""
    severity: Literal["critical", "warning"] = "critical"
    """``critical``: nothing is published; ``warning``: published and flagged."""
    why: str
    """Why it matters, for the person who reads the failure."""
    todo: str = "look at the Data Docs and at the report of this run"
    """What to do when it fails."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind in BOUNDED_KINDS and self.minimum is None and self.maximum is None:
            raise ValueError(f"check {self.name!r} of kind {self.kind!r} needs 'minimum' or 'maximum'")
        if (self.kind in ("metrics_equal", "share_between")) != (self.other is not None):
            raise ValueError(f"check {self.name!r}: 'other' belongs to kinds 'metrics_equal' and 'share_between' only")
        if (self.kind in ("values_in", "columns", "matches")) != bool(self.values):
            raise ValueError(f"check {self.name!r}: 'values' belongs to 'values_in', 'columns' and 'matches' only")
        if self.kind == "matches" and len(self.values) != 1:
            raise ValueError(f"check {self.name!r}: 'matches' takes one regular expression, got {len(self.values)}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"check {self.name!r}: minimum={self.minimum} is above maximum={self.maximum}")
        return self


class ValidationConfig(StageConfig):
    """Bounds of a recipe's audit. Invariants are always critical; what follows warns, unless it is an extra check."""

    sample_documents: Annotated[int, Field(ge=1, le=200_000)] = 10_000
    """Documents of the audit branch that Great Expectations looks at one by one; metrics cover all of them."""
    min_kept_share: Share = 0.005
    """Lowest expected published documents / fetched pages. FineWeb-like chains keep 1 to 20 % of a crawl's pages."""
    max_kept_share: Share = 0.9
    """Highest expected published documents / fetched pages: above it, filters probably did not run."""
    languages: tuple[str, ...] | None = None
    """Languages (ISO 639-1, as the language identification writes them) that may occur; None allows all."""
    max_drift_kept_share: Share = 0.1
    """Largest expected change of the kept share against the last published crawl, as a difference of shares."""
    max_drift_languages: Share = 0.1
    """Largest expected change of the language mix: total variation distance, 0 to 1."""
    max_drift_length: Annotated[float, Field(ge=0.0)] = 0.5
    """Largest expected relative change of the length quantiles (characters)."""
    max_drift_score: Annotated[float, Field(ge=0.0)] = 0.25
    """Largest expected relative change of the score quantiles."""
    ask_before_publishing: bool = False
    """Wait for a person's approval in Airflow where a check warned; without a warning nobody is asked."""
    extra_checks: tuple[CheckConfig, ...] = ()
    """A recipe's own checks, run beside the presets."""
