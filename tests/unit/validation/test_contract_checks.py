import math

import pytest

from corpusmill.errors import ConfigError
from corpusmill.validation.checks import corpus_checks, documents_checks, pages_checks
from corpusmill.validation.config import CheckConfig, ValidationConfig
from corpusmill.validation.contract import check_contract, with_previous
from corpusmill.validation.results import failure_message, summarise


def check(kind, subject="n", **values):
    return CheckConfig.load({"name": "x", "kind": kind, "subject": subject, "why": "it counts", **values})


def outcome(kind, metrics, **values):
    return check_contract([check(kind, **values)], metrics)[0]


@pytest.mark.parametrize(
    ("value", "passed"),
    [(1, False), (2, True), (3.5, True), (4, True), (4.0001, False), (math.nan, False), (None, False)],
)
def test_bounds_are_inclusive_and_a_value_that_is_no_number_fails(value, passed):
    assert outcome("metric_between", {"n": value}, minimum=2, maximum=4).passed is passed


def test_a_metric_that_nobody_computed_fails_and_says_so():
    result = outcome("metric_between", {}, minimum=0)
    assert not result.passed
    assert "metric 'n' was not computed" in result.sentence


def test_a_text_where_a_number_belongs_fails():
    assert not outcome("metric_between", {"n": "12"}, minimum=0).passed


def test_a_failing_bound_is_told_in_words_and_numbers():
    result = outcome("metric_between", {"n": 0.12}, minimum=0.2, maximum=0.9)
    assert result.sentence == (
        "expect_column_values_to_be_between(n): observed 0.12, expected between 0.2 and 0.9 - it counts"
    )


def test_counts_that_must_agree_name_both_counts():
    result = outcome("metrics_equal", {"n": 7, "m": 8}, other="m")
    assert not result.passed
    assert result.sentence == (
        "expect_column_pair_values_to_be_equal(n): observed n 7 and m 8, expected the same as m - it counts"
    )
    assert outcome("metrics_equal", {"n": 8, "m": 8}, other="m").passed


def test_a_share_of_nothing_is_a_failure_not_a_pass():
    result = outcome("share_between", {"n": 0, "m": 0}, other="m", minimum=0.5)
    assert not result.passed
    assert "m is 0" in result.sentence
    assert outcome("share_between", {"n": 1, "m": 2}, other="m", minimum=0.5).passed


def test_drift_is_the_distance_to_the_previous_crawl():
    metrics = with_previous({"n": 0.5}, {"n": 0.3})
    assert metrics == {"n": 0.5, "previous_n": 0.3}
    assert outcome("drift", metrics, maximum=0.21).passed
    assert not outcome("drift", metrics, maximum=0.1).passed
    assert not outcome("relative_drift", metrics, maximum=0.5).passed
    assert outcome("relative_drift", metrics, maximum=0.7).passed


def test_drift_is_skipped_with_a_note_where_nothing_was_published_before():
    for kind in ("drift", "relative_drift", "mix_drift"):
        result = outcome(kind, with_previous({"n": 0.5, "n.en": 1.0}, None), maximum=0)
        assert result.passed
        assert result.skipped
        assert "no crawl was published before" in result.observed


def test_drift_fails_where_only_the_present_value_is_missing():
    assert not outcome("drift", {"previous_n": 0.5}, maximum=1).passed
    assert not outcome("mix_drift", {"previous_n.en": 1.0}, maximum=1).passed


def test_previous_metrics_of_the_previous_crawl_are_not_carried_along():
    assert with_previous({"n": 1}, {"n": 2, "previous_n": 3}) == {"n": 1, "previous_n": 2}


def test_a_language_that_vanished_and_one_that_appeared_both_count():
    metrics = {"n.en": 0.9, "n.de": 0.1, "previous_n.en": 0.8, "previous_n.fr": 0.2}
    result = outcome("mix_drift", metrics, maximum=0.1)
    assert not result.passed
    assert "observed 0.2" in result.sentence


def test_a_contract_refuses_checks_that_need_a_sample():
    with pytest.raises(ConfigError, match="'unique' looks at a column"):
        check_contract([check("unique")], {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "metric_between"}, "needs 'minimum' or 'maximum'"),
        ({"kind": "metrics_equal"}, "'other' belongs to"),
        ({"kind": "unique", "other": "m"}, "'other' belongs to"),
        ({"kind": "values_in"}, "'values' belongs to"),
        ({"kind": "matches", "values": ["a", "b"]}, "one regular expression"),
        ({"kind": "metric_between", "minimum": 2, "maximum": 1}, "is above maximum"),
        ({"kind": "nonsense"}, "kind='nonsense'"),
    ],
)
def test_an_incomplete_check_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        check(**values)


def test_healthy_pages_and_documents_meet_their_contracts():
    metrics = {"pages_rows": 10, "manifest_rows": 10, "documents_rows": 10, "documents_kept_rows": 4}
    metrics |= {"kept_without_text_rows": 0, "removed_without_reason_rows": 0}
    assert all(r.passed for r in check_contract([*pages_checks(), *documents_checks()], metrics))


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        ({"manifest_rows": 11}, "pages.table_holds_what_shards_wrote"),
        ({"documents_rows": 9}, "documents.one_row_per_page"),
        ({"kept_without_text_rows": 1}, "documents.kept_have_text"),
        ({"removed_without_reason_rows": 1}, "documents.removed_have_reason"),
        ({"documents_kept_rows": 0}, "documents.some_are_kept"),
    ],
)
def test_each_broken_contract_is_found(broken, failing):
    metrics = {"pages_rows": 10, "manifest_rows": 10, "documents_rows": 10, "documents_kept_rows": 4}
    metrics |= {"kept_without_text_rows": 0, "removed_without_reason_rows": 0} | broken
    failed = [r.name for r in check_contract([*pages_checks(), *documents_checks()], metrics) if not r.passed]
    assert failed == [failing]


def test_the_message_of_a_failed_audit_says_what_why_and_what_to_do():
    checks = [
        check("metrics_equal", other="m", todo="count again"),
        CheckConfig(
            name="w", kind="metric_between", subject="n", minimum=9, severity="warning", why="small", todo="wait"
        ),
    ]
    result = summarise(check_contract(checks, {"n": 7, "m": 8}))
    lines = failure_message(result).split("\n")
    assert lines[0] == "1 critical and 1 warning check(s) failed of 2:"
    assert lines[1].startswith("[critical] x: expect_column_pair")
    assert lines[1].endswith("- it counts. To do: count again.")
    assert lines[2].startswith("[warning] w: ")
    assert failure_message(summarise(check_contract(checks[:1], {"n": 7, "m": 7}))) == ""


def test_presets_have_unique_names_and_carry_the_recipes_own_checks():
    own = check("metric_between", minimum=1)
    names = [c.name for c in corpus_checks(ValidationConfig(extra_checks=(own,), languages=("en",)))]
    assert len(set(names)) == len(names)
    assert names[-1] == "x"
    assert "sample.language_is_expected" in names


def test_shares_and_drift_only_warn_by_default():
    for item in corpus_checks(ValidationConfig(languages=("en",))):
        judged_by_share = item.name.startswith("drift.") or "kept_share" in item.name or "language" in item.name
        assert (item.severity == "warning") is (judged_by_share or item.name == "sample.url_has_a_scheme"), item.name
