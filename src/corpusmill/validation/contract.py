"""Metric checks without Great Expectations: cheap enough to run after every commit.

`measured` turns a metric check into the one number that is compared; `corpusmill.validation.expectations` hands the
same number to Great Expectations, so that both ways judge the same thing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corpusmill.errors import ConfigError
from corpusmill.validation.config import METRIC_KINDS, PREVIOUS, CheckConfig
from corpusmill.validation.results import CheckResult, show_bounds, show_value

Metric = float | int | str | None
EXPECT_BETWEEN = "expect_column_values_to_be_between"
EXPECT_EQUAL = "expect_column_pair_values_to_be_equal"


@dataclass(frozen=True)
class Measured:
    """The number that a metric check compares.

    Attributes:
        value: The number; None where it could not be computed.
        label: The number's name for people and for the column of the metrics frame.
        note: Why there is no number; ``""`` where there is one.
        skipped: True where the absence is no failure (nothing published before).
    """

    value: float | int | None
    label: str
    note: str = ""
    skipped: bool = False


def check_contract(checks: Sequence[CheckConfig], metrics: Mapping[str, Metric]) -> list[CheckResult]:
    """Returns each metric check's outcome, in order.

    Raises:
        ConfigError: A check looks at a column of a sample, which this function does not have.
    """
    for check in checks:
        if check.kind not in METRIC_KINDS:
            raise ConfigError(
                f"check {check.name!r} of kind {check.kind!r} looks at a column; a contract takes metric kinds only: "
                f"{sorted(METRIC_KINDS)}"
            )
    return [judge(check, measured(check, metrics)) for check in checks]


def judge(check: CheckConfig, number: Measured) -> CheckResult:
    """Returns the outcome of one metric check on its number; a missing number fails unless it is skipped."""
    if number.value is None:
        return metric_result(check, number, passed=number.skipped)
    if check.kind == "metrics_equal":
        return metric_result(check, number, passed=number.value == 0)
    above = check.minimum is None or number.value >= check.minimum
    below = check.maximum is None or number.value <= check.maximum
    return metric_result(check, number, passed=above and below)


def metric_result(check: CheckConfig, number: Measured, *, passed: bool, error: str = "") -> CheckResult:
    """Returns the outcome of a metric check in words.

    Args:
        check: The check.
        number: Its number.
        passed: The verdict, ours or Great Expectations'.
        error: What broke while the check ran, ``""`` where nothing did.
    """
    equal = check.kind == "metrics_equal"
    observed = error or number.note or f"observed {show_value(number.value)}"
    if equal and number.value is not None and not error:
        observed = f"observed {number.label}"
    return CheckResult(
        name=check.name,
        kind=EXPECT_EQUAL if equal else EXPECT_BETWEEN,
        subject=check.subject if equal else number.label,
        severity=check.severity,
        passed=passed,
        skipped=number.skipped,
        expected=f"the same as {check.other}" if equal else show_bounds(check.minimum, check.maximum),
        observed=observed,
        why=check.why,
        todo=check.todo,
    )


def measured(check: CheckConfig, metrics: Mapping[str, Metric]) -> Measured:
    """Returns the number that a metric check compares."""
    if check.kind == "mix_drift":
        return _mix_drift(check.subject, metrics)
    if check.kind in ("drift", "relative_drift"):
        return _drift(check, metrics)
    first = _number(metrics, check.subject)
    if first is None:
        return _absent(check.subject, check.subject, metrics)
    if check.other is None:
        return Measured(first, check.subject)
    second = _number(metrics, check.other)
    if second is None:
        return _absent(check.other, f"{check.subject} / {check.other}", metrics)
    if check.kind == "metrics_equal":
        shown = f"{check.subject} {show_value(first)} and {check.other} {show_value(second)}"
        return Measured(first - second, shown)
    label = f"{check.subject} / {check.other}"
    if second == 0:
        return Measured(None, label, note=f"{check.other} is 0, so the share is not defined")
    return Measured(first / second, label)


def _drift(check: CheckConfig, metrics: Mapping[str, Metric]) -> Measured:
    relative = check.kind == "relative_drift"
    label = f"{'relative change' if relative else 'change'} of {check.subject}"
    now, before = _number(metrics, check.subject), _number(metrics, PREVIOUS + check.subject)
    if before is None:
        return Measured(None, label, note="skipped: no crawl was published before that has this metric", skipped=True)
    if now is None:
        return _absent(check.subject, label, metrics)
    if not relative:
        return Measured(abs(now - before), label)
    if before == 0:
        return Measured(None, label, note="skipped: the previous value is 0, no relative change exists", skipped=True)
    return Measured(abs(now - before) / abs(before), label)


def _mix_drift(subject: str, metrics: Mapping[str, Metric]) -> Measured:
    label = f"change of the {subject} mix"
    now, before = _shares(metrics, f"{subject}."), _shares(metrics, f"{PREVIOUS}{subject}.")
    if not before:
        return Measured(None, label, note="skipped: no crawl was published before that has this metric", skipped=True)
    if not now:
        return _absent(f"{subject}.*", label, metrics)
    names = sorted(now.keys() | before.keys())
    return Measured(math.fsum(abs(now.get(n, 0.0) - before.get(n, 0.0)) for n in names) / 2, label)


def _shares(metrics: Mapping[str, Metric], prefix: str) -> dict[str, float]:
    found = {name.removeprefix(prefix): _number(metrics, name) for name in metrics if name.startswith(prefix)}
    return {name: value for name, value in found.items() if value is not None}


def _number(metrics: Mapping[str, Metric], name: str) -> float | int | None:
    """Returns a metric as a finite number; None where it is absent, null, not finite or a text."""
    value = metrics.get(name)
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return value


def _absent(name: str, label: str, metrics: Mapping[str, Metric]) -> Measured:
    state = f"is {metrics[name]!r}" if name in metrics else "was not computed"
    return Measured(None, label, note=f"metric {name!r} {state}, so nothing can be said")


def with_previous(metrics: Mapping[str, Metric], previous: Mapping[str, Metric] | None) -> dict[str, Metric]:
    """Returns the metrics joined with those of the last published crawl under ``previous_*`` names."""
    if previous is None:
        return dict(metrics)
    return {**metrics, **{PREVIOUS + name: value for name, value in previous.items() if not name.startswith(PREVIOUS)}}
