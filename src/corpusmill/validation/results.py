"""What a check found, in words and numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MAX_SAMPLES = 5
"""Offending values shown in a sentence."""
MAX_SAMPLE_CHARS = 60
"""Characters of an offending value shown in a sentence."""


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome.

    Attributes:
        name: Name of the check.
        kind: Expectation type in Great Expectations' words, for instance ``expect_column_values_to_be_unique``.
        subject: Metric or column.
        severity: ``critical`` or ``warning``.
        passed: Whether the data comply; True for a skipped check.
        skipped: True where there was nothing to compare with; ``observed`` says why.
        expected: What is allowed, in words.
        observed: What was seen, in words and numbers.
        samples: Offending values, shortened; empty for metrics.
        why: Why it matters.
        todo: What to do about a failure.
    """

    name: str
    kind: str
    subject: str
    severity: str
    passed: bool
    expected: str
    observed: str
    why: str
    todo: str
    samples: tuple[str, ...] = ()
    skipped: bool = False

    @property
    def sentence(self) -> str:
        """``type(subject): what was seen, expected what, samples [...] - why``."""
        samples = f", samples [{', '.join(self.samples)}]" if self.samples else ""
        return f"{self.kind}({self.subject}): {self.observed}, expected {self.expected}{samples} - {self.why}"


@dataclass(frozen=True)
class ValidationResult:
    """All outcomes of one audit.

    Attributes:
        passed: True where no critical check failed; warnings do not count.
        failed_critical: Failed checks that forbid publication.
        failed_warnings: Failed checks that flag the publication.
        results: Every check's outcome, in the order of the checks.
        data_docs: First page of the Data Docs site.
    """

    passed: bool
    failed_critical: list[CheckResult] = field(default_factory=list)
    failed_warnings: list[CheckResult] = field(default_factory=list)
    results: list[CheckResult] = field(default_factory=list)
    data_docs: Path = Path()


def summarise(results: Sequence[CheckResult], data_docs: Path = Path()) -> ValidationResult:
    """Returns the outcomes sorted into passed, critical failures and warnings."""
    failed = [r for r in results if not r.passed]
    critical = [r for r in failed if r.severity == "critical"]
    return ValidationResult(
        passed=not critical,
        failed_critical=critical,
        failed_warnings=[r for r in failed if r.severity != "critical"],
        results=list(results),
        data_docs=data_docs,
    )


def failure_lines(failed: Sequence[CheckResult]) -> list[str]:
    """Returns one line per failed check: what was seen, what was expected, why it matters, what to do."""
    return [f"[{r.severity}] {r.name}: {r.sentence}. To do: {r.todo}." for r in failed]


def failure_message(result: ValidationResult) -> str:
    """Returns the text of a failed audit: a line per failed check, critical ones first; ``""`` if none failed."""
    failed = [*result.failed_critical, *result.failed_warnings]
    if not failed:
        return ""
    head = (
        f"{len(result.failed_critical)} critical and {len(result.failed_warnings)} warning check(s) failed "
        f"of {len(result.results)}"
    )
    tail = [f"Data Docs: {result.data_docs}"] if result.data_docs != Path() else []
    return "\n".join([f"{head}:", *failure_lines(failed), *tail])


def show_value(value: object) -> str:
    """Returns a value for a sentence: strings quoted and shortened, shares and scores with four digits."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    text = repr(value[: MAX_SAMPLE_CHARS + 1] if isinstance(value, str) else value)
    return text if len(text) <= MAX_SAMPLE_CHARS else f"{text[:MAX_SAMPLE_CHARS]}..."


def show_bounds(minimum: float | None, maximum: float | None) -> str:
    """Returns bounds in words: ``between a and b``, ``at least a``, ``at most b``, ``exactly a``."""
    if minimum is None:
        return f"at most {show_value(maximum)}"
    if maximum is None:
        return f"at least {show_value(minimum)}"
    if minimum == maximum:
        return f"exactly {show_value(minimum)}"
    return f"between {show_value(minimum)} and {show_value(maximum)}"
