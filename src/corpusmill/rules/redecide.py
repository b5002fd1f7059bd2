"""Decides on cleaned documents again from their stored rows, where only thresholds changed."""

from collections.abc import Mapping
from typing import Any, Protocol

from corpusmill.rules.config import RulesConfig
from corpusmill.rules.decision import decide_with
from corpusmill.rules.presets import Preset

Row = dict[str, Any]


class StoredDocuments(Protocol):
    """Rows of ``documents`` that were measured under the same settings, thresholds apart, on the same pages."""

    def find(self, key: str) -> Row | None:
        """Returns the row of a document id, None where there is none."""
        ...


def redecided(stored: Mapping[str, Any], config: RulesConfig, preset: Preset) -> Row | None:
    """Returns a document's row under other thresholds, None where its page must be measured anew.

    That is where the row holds no complete measures (``error.*``), where the document is admitted now, because the text
    of a removed document is not stored, and where it is removed now after something in it was masked, because only
    kept texts are masked and counted so.

    Args:
        stored: A row of ``documents`` with all columns.
        config: Settings with the same `RulesConfig.measure_fingerprint` as those it was measured under.
        preset: ``config.resolved()``.
    """
    if (stored["drop_reason"] or "").startswith("error."):
        return None
    decision = decide_with(stored, config, preset)
    changed = decision.kept != stored["kept"]
    if changed and (decision.kept or stored["n_pii"]):
        return None
    row = {**stored, "kept": decision.kept, "drop_reason": decision.reason}
    return row if decision.kept else {**row, "text": None, "dedup_digest": None}
