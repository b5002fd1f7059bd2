"""The checks every recipe runs, as data.

Metrics that the checks name, beside those of `corpusmill.validation.metrics`:

- ``pages_rows``: fetched pages in ``raw.pages`` for the crawl; ``manifest_rows``: rows that the shard manifests state;
- ``documents_rows``, ``documents_kept_rows``, ``documents_removed_rows``: rows after the rules;
- ``kept_without_text_rows``, ``removed_without_reason_rows``: rows that break the contract of the documents table;
- ``assembled_rows``: rows the assembly wrote; ``branch_rows``: rows the audit branch holds for the crawl;
- ``kept_share``: published documents / fetched pages;
- ``sample_rows``: rows of the sample (set by `corpusmill.validation.stage.validate`).
"""

from corpusmill.schema import CORPUS
from corpusmill.validation.config import CheckConfig, ValidationConfig

KEY_COLUMNS: tuple[str, ...] = tuple(f.name for f in CORPUS.schema if not f.nullable)
"""Columns of the corpus that must never be null."""
LENGTH_QUANTILES = ("n_chars_p10", "n_chars_p50", "n_chars_p90")
SCORE_QUANTILES = tuple(f"{column}_p{q}" for column in ("mean_nll", "el2n") for q in (10, 50, 90))
_FRESH = "compare the shard manifests with the table and run the stage again; nothing was published"


def corpus_checks(config: ValidationConfig | None = None) -> tuple[CheckConfig, ...]:
    """Returns the audit's checks: critical invariants, expected shares, drift, and the recipe's own checks."""
    config = config or ValidationConfig()
    return (*_invariants(), *_sample_invariants(), *_expected_shares(config), *_drift(config), *config.extra_checks)


def _invariants() -> list[CheckConfig]:
    checks = [
        CheckConfig(
            name="corpus.not_empty",
            kind="metric_between",
            subject="n_documents",
            minimum=1,
            why="an empty corpus would replace the crawl's documents by nothing",
            todo="look at the funnel for the stage that removed everything",
        ),
        CheckConfig(
            name="corpus.branch_holds_what_was_assembled",
            kind="metrics_equal",
            subject="assembled_rows",
            other="branch_rows",
            why="rows were lost or doubled between the workers and the audit branch",
            todo=_FRESH,
        ),
        CheckConfig(
            name="corpus.all_rows_were_measured",
            kind="metrics_equal",
            subject="n_documents",
            other="branch_rows",
            why="the checks must cover every row of the audit branch",
            todo=_FRESH,
        ),
        _zero(
            name="corpus.unique_doc_id",
            subject="n_duplicate_doc_ids",
            why="two rows with one id make every document's history ambiguous",
            todo="look for a WARC file that two shards read",
        ),
        _zero(
            name="corpus.unique_text",
            subject="n_duplicate_digests",
            why="equal documents survived deduplication; models memorise repeated text",
            todo="run deduplication of this crawl again, then assemble",
        ),
    ]
    for column in KEY_COLUMNS:
        checks.append(
            _zero(
                name=f"corpus.no_null.{column}",
                subject=f"nulls.{column}",
                why=f"a document without {column} cannot be read, traced or deduplicated",
                todo="look at the stage that writes the column",
            )
        )
    return checks


def _zero(name: str, subject: str, why: str, todo: str) -> CheckConfig:
    return CheckConfig(name=name, kind="metric_between", subject=subject, minimum=0, maximum=0, why=why, todo=todo)


def _sample_invariants() -> list[CheckConfig]:
    return [
        CheckConfig(
            name="sample.not_empty",
            kind="metric_between",
            subject="sample_rows",
            minimum=1,
            why="checks on an empty sample would pass without looking at anything",
        ),
        CheckConfig(
            name="sample.columns",
            kind="columns",
            subject="*",
            values=tuple(CORPUS.schema.names),
            why="readers rely on the published columns",
            todo="a column is renamed or added in schema.py only, with a changelog entry",
        ),
        CheckConfig(
            name="sample.doc_id_is_unique",
            kind="unique",
            subject="doc_id",
            why="two rows with one id make every document's history ambiguous",
        ),
        CheckConfig(
            name="sample.text_is_not_null",
            kind="not_null",
            subject="text",
            why="a document without text is no document",
        ),
        CheckConfig(
            name="sample.text_is_not_empty",
            kind="length_between",
            subject="text",
            minimum=1,
            why="an empty document teaches nothing and breaks packing",
            todo="look at the refiner's programs for documents whose every line was removed",
        ),
        CheckConfig(
            name="sample.n_chars_is_positive",
            kind="value_between",
            subject="n_chars",
            minimum=1,
            why="lengths feed the report and the selection",
        ),
        CheckConfig(
            name="sample.url_has_a_scheme",
            kind="matches",
            subject="url",
            values=("^[A-Za-z][A-Za-z0-9+.-]*:",),
            severity="warning",
            why="provenance needs an absolute URL",
        ),
    ]


def _expected_shares(config: ValidationConfig) -> list[CheckConfig]:
    checks = [
        CheckConfig(
            name="corpus.kept_share",
            kind="metric_between",
            subject="kept_share",
            minimum=config.min_kept_share,
            maximum=config.max_kept_share,
            severity="warning",
            why="far fewer documents than usual mean a broken extractor or model, far more that filters did not run",
            todo="look at the funnel; set min_kept_share and max_kept_share in the recipe if the source is unusual",
        )
    ]
    if config.languages is not None:
        checks.append(
            CheckConfig(
                name="sample.language_is_expected",
                kind="values_in",
                subject="language",
                values=config.languages,
                mostly=0.99,
                severity="warning",
                why="documents in other languages mean that language identification failed or was left out",
                todo="look at language_score of the samples",
            )
        )
    return checks


def _drift(config: ValidationConfig) -> list[CheckConfig]:
    advice = "compare the funnels of the two crawls; raise the bound in the recipe if the change is real"
    checks = [
        CheckConfig(
            name="drift.kept_share",
            kind="drift",
            subject="kept_share",
            maximum=config.max_drift_kept_share,
            severity="warning",
            why="crawls of one source keep similar shares; a jump means that a stage changed its behaviour",
            todo=advice,
        ),
        CheckConfig(
            name="drift.languages",
            kind="mix_drift",
            subject="language_share",
            maximum=config.max_drift_languages,
            severity="warning",
            why="another language mix changes what a model learns",
            todo=advice,
        ),
    ]
    bounds = dict.fromkeys(LENGTH_QUANTILES, config.max_drift_length)
    bounds |= dict.fromkeys(SCORE_QUANTILES, config.max_drift_score)
    for name, bound in bounds.items():
        checks.append(
            CheckConfig(
                name=f"drift.{name}",
                kind="relative_drift",
                subject=name,
                maximum=bound,
                severity="warning",
                why="a shifted distribution means that extraction, refiner or reference model behave differently",
                todo=advice,
            )
        )
    return checks


def pages_checks() -> tuple[CheckConfig, ...]:
    """Returns the contract after ingestion: metric checks only, for `corpusmill.validation.contract`."""
    return (
        CheckConfig(
            name="pages.not_empty",
            kind="metric_between",
            subject="pages_rows",
            minimum=1,
            why="a crawl without a readable page is a wrong address or a broken download",
            todo="look at ops.quarantine for this crawl, and at the source's warc.paths.gz",
        ),
        CheckConfig(
            name="pages.table_holds_what_shards_wrote",
            kind="metrics_equal",
            subject="pages_rows",
            other="manifest_rows",
            why="rows were lost or doubled between the workers and the table",
            todo=_FRESH,
        ),
    )


def documents_checks() -> tuple[CheckConfig, ...]:
    """Returns the contract after rule cleaning: metric checks only, for `corpusmill.validation.contract`."""
    return (
        CheckConfig(
            name="documents.one_row_per_page",
            kind="metrics_equal",
            subject="documents_rows",
            other="pages_rows",
            why="every page keeps a row with its measures, kept or not; otherwise its fate cannot be explained",
            todo=_FRESH,
        ),
        CheckConfig(
            name="documents.kept_have_text",
            kind="metric_between",
            subject="kept_without_text_rows",
            maximum=0,
            why="a kept document without text would be published empty",
        ),
        CheckConfig(
            name="documents.removed_have_reason",
            kind="metric_between",
            subject="removed_without_reason_rows",
            maximum=0,
            why="a document removed without a reason cannot be explained",
        ),
        CheckConfig(
            name="documents.some_are_kept",
            kind="share_between",
            subject="documents_kept_rows",
            other="documents_rows",
            minimum=0.001,
            severity="warning",
            why="rules that remove nearly everything usually do not fit the extractor or the language",
            todo="look at the reasons in the report of the rules",
        ),
    )
