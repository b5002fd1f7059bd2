"""The report of one stage on one shard or crawl: the only thing that travels through XCom.

A report holds counts, never data: at most a few kilobytes of JSON.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class StageReport:
    """Counts of one stage; reports of shards add up to the report of the crawl.

    Attributes:
        stage: Stage name, for instance ``"clean"``.
        crawl: Crawl id.
        shard: Shard name, ``""`` for a report of the whole crawl.
        documents_in: Documents (or records) that the stage read.
        documents_kept: Documents that it kept.
        characters_in: Unicode code points read.
        characters_kept: Unicode code points in kept text.
        removed: Removed documents by reason.
        quarantined: Inputs that could not be processed, by reason.
        metrics: Other additive counts of the stage (bytes lost, tokens, calls).
        seconds: Wall seconds, summed over shards.
        skipped: True where the stage found its result committed already and did nothing.
    """

    stage: str
    crawl: str
    shard: str = ""
    documents_in: int = 0
    documents_kept: int = 0
    characters_in: int = 0
    characters_kept: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    skipped: bool = False

    @property
    def documents_removed(self) -> int:
        """Removed documents over all reasons."""
        return sum(self.removed.values())

    def to_json(self) -> dict[str, Any]:
        """Returns a plain mapping of at most a few kilobytes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StageReport":
        """Returns the report that `to_json` wrote; unknown keys are ignored so that old runs stay readable."""
        return cls(**{k: v for k, v in values.items() if k in cls.__dataclass_fields__})


def merge_reports(stage: str, crawl: str, reports: Iterable[StageReport]) -> StageReport:
    """Returns the sum of the shards' reports as the report of the crawl."""
    total = StageReport(stage=stage, crawl=crawl)
    removed: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    metrics: Counter[str] = Counter()
    seen = skipped = 0
    for report in reports:
        total.documents_in += report.documents_in
        total.documents_kept += report.documents_kept
        total.characters_in += report.characters_in
        total.characters_kept += report.characters_kept
        total.seconds += report.seconds
        removed.update(report.removed)
        quarantined.update(report.quarantined)
        for name, value in report.metrics.items():
            metrics[name] += value  # type: ignore[assignment]  # Counter works for floats, its stub says int
        seen += 1
        skipped += report.skipped
    total.removed = dict(sorted(removed.items()))
    total.quarantined = dict(sorted(quarantined.items()))
    total.metrics = dict(sorted(metrics.items()))
    total.skipped = seen > 0 and skipped == seen
    return total
