"""Keeps a run's report within its size: whatever a crawl holds, a page or a terminal reads at most 2 MB."""

import json
from typing import Any

from corpusmill.errors import DataError

MAX_BYTES = 2_000_000
"""Bytes of a stored report."""
MAX_MESSAGE = 20_000
"""Characters of the message that a run ended with; the task's log has all of it."""
MAX_SENTENCES = 100
"""Failed checks and warnings that are told one by one."""
MAX_SENTENCE = 1_000
"""Characters of one of them."""
MAX_REASONS = 300
"""Reasons that one stage names; the rest is summed."""
REST = "other.reasons"


class ReportTooLargeError(DataError):
    """A report does not fit its size even without examples."""


def bounded(report: dict[str, Any]) -> dict[str, Any]:
    """Returns the report with as many of its examples as fit into `MAX_BYTES`; ``examples_left_out`` counts the others.

    Raises:
        ReportTooLargeError: It does not fit without any example.
    """
    kept = {**report, "message": shortened(str(report["message"]), MAX_MESSAGE)}
    kept["funnel"] = [_few_reasons(step) for step in report["funnel"]]
    if report.get("validation"):
        kept["validation"] = _few_sentences(report["validation"])
    examples = list(report["examples"])
    room = MAX_BYTES - size_of({**kept, "examples": [], "examples_left_out": len(examples)})
    if room < 0:
        raise ReportTooLargeError(
            f"the report of {report['crawl']} has {MAX_BYTES - room} bytes without its examples, expected at most "
            f"{MAX_BYTES}; the recipe has more stages, reasons or checks than a report can list"
        )
    fitting = []
    for example in examples:
        room -= size_of(example) + 2
        if room < 0:
            break
        fitting.append(example)
    return {**kept, "examples": fitting, "examples_left_out": len(examples) - len(fitting)}


def size_of(value: Any) -> int:
    """Returns the bytes of a value as `records.write_record` stores it."""
    return len(json.dumps(value, sort_keys=True, ensure_ascii=True))


def shortened(text: str, n: int) -> str:
    """Returns a text of at most ``n`` characters; what was cut off is said at its end."""
    if len(text) <= n:
        return text
    end = f"\n... ({len(text):,} characters in all; the task's log has the rest)"
    return text[: n - len(end)] + end


def _few_sentences(validation: dict[str, Any]) -> dict[str, Any]:
    return {**validation, **{name: _first(validation.get(name) or []) for name in ("failed", "warnings")}}


def _first(sentences: list[str]) -> list[str]:
    if len(sentences) > MAX_SENTENCES:
        sentences = [*sentences[:MAX_SENTENCES], f"... and {len(sentences) - MAX_SENTENCES} more; see the Data Docs"]
    return [shortened(s, MAX_SENTENCE) for s in sentences]


def _few_reasons(step: dict[str, Any]) -> dict[str, Any]:
    return {**step, **{name: _largest(step[name]) for name in ("removed", "quarantined")}}


def _largest(reasons: dict[str, int]) -> dict[str, int]:
    if len(reasons) <= MAX_REASONS:
        return reasons
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return dict(sorted(ordered[: MAX_REASONS - 1])) | {REST: sum(n for _, n in ordered[MAX_REASONS - 1 :])}
