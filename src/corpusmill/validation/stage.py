"""Runs an audit: every check over the metrics and the sample, judged by Great Expectations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from corpusmill.errors import ConfigError
from corpusmill.validation.config import CheckConfig
from corpusmill.validation.contract import Metric
from corpusmill.validation.results import ValidationResult, failure_message, summarise

__all__ = ["failure_message", "validate"]


def validate(
    checks: Sequence[CheckConfig],
    metrics: Mapping[str, Metric],
    sample: pa.Table,
    docs_dir: Path,
    *,
    title: str,
) -> ValidationResult:
    """Returns each check's outcome and writes a Data Docs site that shows them.

    Great Expectations is imported here and not before (three seconds and 250 MB).

    Args:
        checks: What is expected; names must be unique.
        metrics: Aggregates over all documents; ``sample_rows`` is added.
        sample: Some documents, at most 200,000 are looked at (evenly spaced where there are more).
        docs_dir: Folder of the site; what an earlier audit left there is replaced.
        title: Name of the audit, shown in the site, for instance ``demo/CRAWL/3``.

    Raises:
        ConfigError: No check was given, or two have one name.
    """
    names = [check.name for check in checks]
    if not names:
        raise ConfigError("checks=() would pass anything; give at least one check, see corpus_checks()")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"check names {doubled} occur more than once; rename the recipe's extra checks")
    from corpusmill.validation.expectations import run_expectations

    numbers = {**metrics, "sample_rows": sample.num_rows}
    results, index = run_expectations(checks, numbers, sample, docs_dir, title=title)
    return summarise(results, index)
