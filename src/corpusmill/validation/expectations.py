"""Checks as a Great Expectations suite, run on two small pandas frames, with a Data Docs site.

Heavy: imports great_expectations and pandas. Two suites are run: ``metrics`` on a frame of one row whose columns are
the compared numbers, and ``sample`` on some documents. Great Expectations 1.24 crashes with numpy 2 in
ExpectColumnQuantileValuesToBeBetween, so quantiles are columns of the metrics frame. It prints page text into Data
Docs without escaping it; results are therefore escaped before the site is built. Nothing is sent to its makers.
"""

import datetime as dt
import html
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from corpusmill.validation.config import METRIC_KINDS, CheckConfig
from corpusmill.validation.contract import EXPECT_BETWEEN, Measured, Metric, measured, metric_result
from corpusmill.validation.results import MAX_SAMPLES, CheckResult, show_bounds, show_value

MAX_SAMPLE_ROWS = 200_000
"""Documents that are looked at one by one; a crawl of any size costs the same."""
MAX_SHOWN_CHARS = 200
"""Characters of an offending value that stand in the Data Docs."""

# Kind -> (expectation class, expectation type).
SAMPLE_EXPECTATIONS: dict[str, tuple[str, str]] = {
    "columns": ("ExpectTableColumnsToMatchSet", "expect_table_columns_to_match_set"),
    "not_null": ("ExpectColumnValuesToNotBeNull", "expect_column_values_to_not_be_null"),
    "unique": ("ExpectColumnValuesToBeUnique", "expect_column_values_to_be_unique"),
    "length_between": ("ExpectColumnValueLengthsToBeBetween", "expect_column_value_lengths_to_be_between"),
    "value_between": ("ExpectColumnValuesToBeBetween", EXPECT_BETWEEN),
    "values_in": ("ExpectColumnValuesToBeInSet", "expect_column_values_to_be_in_set"),
    "matches": ("ExpectColumnValuesToMatchRegex", "expect_column_values_to_match_regex"),
}


@dataclass(frozen=True)
class _Frame:
    """One suite and the frame it runs on."""

    name: str
    frame: pd.DataFrame
    expectations: list[Any]


def run_expectations(
    checks: Sequence[CheckConfig], metrics: Mapping[str, Metric], sample: pa.Table, docs_dir: Path, *, title: str
) -> tuple[list[CheckResult], Path]:
    """Returns each check's outcome in the order given, and the first page of the Data Docs.

    Args:
        checks: What is expected, names unique.
        metrics: Aggregates.
        sample: Documents.
        docs_dir: Folder whose ``gx`` (context) and ``site`` are replaced.
        title: Name of the audit.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside Great Expectations are not ours to act on
        numbers = {c.name: measured(c, metrics) for c in checks if c.kind in METRIC_KINDS}
        frames = [
            _metrics_frame([c for c in checks if c.kind in METRIC_KINDS], numbers, metrics),
            _sample_frame([c for c in checks if c.kind not in METRIC_KINDS], sample),
        ]
        outcomes = _run(frames, docs_dir, title)
    index = docs_dir / "site" / "index.html"
    return [_check_result(check, numbers.get(check.name), outcomes.get(check.name)) for check in checks], index


def _metrics_frame(
    checks: Sequence[CheckConfig], numbers: Mapping[str, Measured], metrics: Mapping[str, Metric]
) -> _Frame:
    import great_expectations.expectations as gxe

    # Plain metrics come first, for the reader of the site; the compared numbers replace those of the same name.
    row: dict[str, Metric] = dict(metrics)
    expectations = []
    for check in checks:
        number = numbers[check.name]
        about = _about(check)
        if number.skipped:
            continue
        if number.value is None:  # a null passes a range check in Great Expectations; the missing number must not
            row[number.label] = None
            expectations.append(gxe.ExpectColumnValuesToNotBeNull(column=number.label, **about))
        elif check.kind == "metrics_equal":
            expectations.append(
                gxe.ExpectColumnPairValuesToBeEqual(column_A=check.subject, column_B=check.other, **about)
            )
        else:
            row[number.label] = number.value
            expectations.append(
                gxe.ExpectColumnValuesToBeBetween(
                    column=number.label, min_value=check.minimum, max_value=check.maximum, **about
                )
            )
    return _Frame("metrics", pd.DataFrame([row], dtype=object).infer_objects(), expectations)


def _sample_frame(checks: Sequence[CheckConfig], sample: pa.Table) -> _Frame:
    if sample.num_rows > MAX_SAMPLE_ROWS:
        chosen = [i * sample.num_rows // MAX_SAMPLE_ROWS for i in range(MAX_SAMPLE_ROWS)]
        sample = sample.take(chosen)
    return _Frame("sample", sample.to_pandas(), [_sample_expectation(check) for check in checks])


def _sample_expectation(check: CheckConfig) -> Any:
    import great_expectations.expectations as gxe

    make = getattr(gxe, SAMPLE_EXPECTATIONS[check.kind][0])
    about = _about(check)
    if check.kind == "columns":
        return make(column_set=list(check.values), exact_match=True, **about)
    if check.kind == "unique":
        return make(column=check.subject, **about)
    arguments: dict[str, Any] = {"column": check.subject, "mostly": check.mostly}
    if check.kind in ("length_between", "value_between"):
        arguments |= {"min_value": check.minimum, "max_value": check.maximum}
    elif check.kind == "values_in":
        arguments["value_set"] = list(check.values)
    elif check.kind == "matches":
        arguments["regex"] = check.values[0]
    return make(**arguments, **about)


def _about(check: CheckConfig) -> dict[str, Any]:
    """Returns what the site says about a check; Data Docs render notes as markup, so they are escaped."""
    return {
        "meta": {"check": check.name},
        "severity": check.severity,
        "notes": html.escape(f"{check.name}: {check.why}. To do: {check.todo}"),
    }


def _run(frames: Sequence[_Frame], docs_dir: Path, title: str) -> dict[str, Any]:
    """Returns the result object of each check by name, and builds the site."""
    import great_expectations as gx

    for name in ("gx", "site"):
        shutil.rmtree(docs_dir / name, ignore_errors=True)
    docs_dir.mkdir(parents=True, exist_ok=True)
    context = gx.get_context(mode="file", project_root_dir=str(docs_dir))
    _configure(context, docs_dir / "site")
    run_id = gx.RunIdentifier(run_name=_slug(title), run_time=dt.datetime.now(dt.UTC))
    source = context.data_sources.add_pandas("audit")
    outcomes: dict[str, Any] = {}
    for part in frames:
        if not part.expectations:
            continue
        suite = context.suites.add(gx.ExpectationSuite(name=part.name, expectations=part.expectations))
        data = source.add_dataframe_asset(part.name).add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=part.name, data=data, suite=suite))
        result = definition.run(
            batch_parameters={"dataframe": part.frame}, result_format={"result_format": "SUMMARY"}, run_id=run_id
        )
        outcomes |= {r.expectation_config.meta["check"]: r for r in result.results}
    _escape_stored_results(docs_dir / "gx" / "uncommitted" / "validations")
    context.build_data_docs()
    for picture in (docs_dir / "site").rglob("*.gif"):  # 3.4 MB of tutorial that no page of ours shows
        picture.unlink()
    return outcomes


def _configure(context: Any, site: Path) -> None:
    """Points the context's only site at a folder, and switches progress bars and analytics off."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    context.variables.analytics_enabled = False
    context.variables.save()
    for name in list(context.get_site_names()):
        context.delete_data_docs_site(name)
    context.add_data_docs_site(
        "site",
        {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.absolute())},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.") or "audit"


def _escape_stored_results(folder: Path) -> None:
    for path in sorted(folder.rglob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        for result in stored.get("results", []):
            result["result"] = _escaped(result.get("result"))
            result["exception_info"] = _escaped(result.get("exception_info"))
        path.write_text(json.dumps(stored, indent=1), encoding="utf-8")


def _escaped(value: Any) -> Any:
    """Returns a JSON value whose strings are shortened and hold no markup and no template sign."""
    if isinstance(value, str):
        shown = value if len(value) <= MAX_SHOWN_CHARS else f"{value[:MAX_SHOWN_CHARS]}..."
        return html.escape(shown).replace("$", "&#36;")
    if isinstance(value, dict):
        return {_escaped(k): _escaped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_escaped(v) for v in value]
    return value


def _check_result(check: CheckConfig, number: Measured | None, outcome: Any) -> CheckResult:
    error = "" if outcome is None else _error_of(outcome)
    if number is not None:
        passed = number.skipped if outcome is None else bool(outcome.success) and not error
        return metric_result(check, number, passed=passed, error=error)
    found = dict(outcome.result or {})
    samples = [show_value(v) for v in _distinct(found.get("partial_unexpected_list") or [])]
    passed = bool(outcome.success) and not error
    return CheckResult(
        name=check.name,
        kind=SAMPLE_EXPECTATIONS[check.kind][1],
        subject=check.subject,
        severity=check.severity,
        passed=passed,
        expected=_expected(check),
        observed=error or _observed(check, found),
        samples=() if passed else tuple(samples[:MAX_SAMPLES]),
        why=check.why,
        todo=check.todo,
    )


def _error_of(outcome: Any) -> str:
    """Returns why an expectation could not run, ``""`` where it ran."""
    info = outcome.exception_info or {}
    raised = [info] if "raised_exception" in info else [v for v in info.values() if isinstance(v, dict)]
    messages = sorted({str(i.get("exception_message")) for i in raised if i.get("raised_exception")})
    return f"could not be checked: {'; '.join(messages)}" if messages else ""


def _observed(check: CheckConfig, found: Mapping[str, Any]) -> str:
    if check.kind == "columns":
        mismatched = (found.get("details") or {}).get("mismatched") or {}
        missing, unknown = mismatched.get("missing") or [], mismatched.get("unexpected") or []
        return f"missing columns {sorted(missing)}, unknown columns {sorted(unknown)}"
    percent = found.get("unexpected_percent") or 0.0
    return f"unexpected {percent:.2f} % ({found.get('unexpected_count', 0)} of {found.get('element_count', 0)})"


def _expected(check: CheckConfig) -> str:
    words = {
        "columns": f"exactly the columns {sorted(check.values)}",
        "not_null": "a value in every row",
        "unique": "each value once",
        "values_in": f"one of {sorted(check.values)}",
        "matches": f"a match of {' '.join(check.values)!r}",
    }
    if check.kind in words:
        text = words[check.kind]
    else:
        unit = " characters" if check.kind == "length_between" else ""
        text = f"{show_bounds(check.minimum, check.maximum)}{unit}"
    return text if check.mostly == 1.0 else f"{text} in at least {check.mostly:.2%} of the rows"


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({repr(v): v for v in values}.values())
