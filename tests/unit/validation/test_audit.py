import html
import re
import socket
import subprocess
import sys

import pyarrow as pa
import pytest

from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError
from corpusmill.schema import CORPUS
from corpusmill.validation import expectations
from corpusmill.validation.checks import corpus_checks
from corpusmill.validation.config import CheckConfig, ValidationConfig
from corpusmill.validation.contract import check_contract, with_previous
from corpusmill.validation.metrics import corpus_metrics
from corpusmill.validation.stage import failure_message, validate

pytestmark = pytest.mark.slow
HOSTILE = '<script>alert("gotcha")</script><img src=x onerror=alert(1)> $x ${y} %s {{7*7}}'


def documents(n=8, **columns):
    rows = [
        {
            "crawl": "C",
            "doc_id": f"id-{i}",
            "url": f"https://e.org/{i}",
            "language": "en",
            "text": f"text {i}",
            "n_chars": 6,
            "mean_nll": 3.0,
            "dedup_digest": f"d{i}",
            "warc_file": "f",
            "warc_offset": i,
            "warc_length": 1,
            "recipe_fingerprint": "r",
        }
        | {name: values[i] for name, values in columns.items()}
        for i in range(n)
    ]
    return rows_to_table(rows, pa.schema([f.with_nullable(True) for f in CORPUS.schema]))


def metrics_of(table, **changes):
    return {
        **corpus_metrics([table]),
        "assembled_rows": table.num_rows,
        "branch_rows": table.num_rows,
        "kept_share": 0.2,
        **changes,
    }


def audit(tmp_path, table, checks=None, **changes):
    return validate(checks or corpus_checks(), metrics_of(table, **changes), table, tmp_path, title="demo/C/3")


def test_a_healthy_corpus_passes_every_check_and_gets_its_site(tmp_path):
    result = audit(tmp_path, documents())
    assert result.passed
    assert result.failed_critical == []
    assert result.failed_warnings == []
    assert [r.name for r in result.results] == [c.name for c in corpus_checks()]
    assert result.data_docs == tmp_path / "site" / "index.html"
    assert result.data_docs.is_file()
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 2_000_000
    skipped = {r.name for r in result.results if r.skipped}
    assert skipped == {c.name for c in corpus_checks() if c.name.startswith("drift.")}
    assert failure_message(result) == ""


@pytest.mark.parametrize(
    ("columns", "changes", "failing"),
    [
        ({"doc_id": ["a", "a"]}, {}, {"corpus.unique_doc_id", "sample.doc_id_is_unique"}),
        ({"text": ["", "b"]}, {}, {"sample.text_is_not_empty"}),
        ({"text": [None, "b"]}, {}, {"corpus.no_null.text", "sample.text_is_not_null"}),
        ({"dedup_digest": ["a", "a"]}, {}, {"corpus.unique_text"}),
        ({"n_chars": [0, 5]}, {}, {"sample.n_chars_is_positive"}),
        ({}, {"branch_rows": 3}, {"corpus.branch_holds_what_was_assembled", "corpus.all_rows_were_measured"}),
        ({}, {"assembled_rows": None}, {"corpus.branch_holds_what_was_assembled"}),
        ({}, {"n_documents": float("nan")}, {"corpus.not_empty", "corpus.all_rows_were_measured"}),
    ],
)
def test_each_broken_invariant_forbids_publication(tmp_path, columns, changes, failing):
    result = audit(tmp_path, documents(2, **columns), **changes)
    assert {r.name for r in result.failed_critical} == failing
    assert not result.passed
    for item in result.failed_critical:
        assert item.sentence in failure_message(result)


def test_an_empty_corpus_cannot_pass(tmp_path):
    result = audit(tmp_path, documents(0))
    assert {r.name for r in result.failed_critical} >= {"corpus.not_empty", "sample.not_empty"}


def test_a_missing_and_an_unknown_column_are_named(tmp_path):
    table = documents(2).drop_columns(["el2n"]).append_column("extra", pa.array([1, 2]))
    result = audit(tmp_path, table)
    sentence = next(r.sentence for r in result.failed_critical if r.name == "sample.columns")
    assert "missing columns ['el2n'], unknown columns ['extra']" in sentence


def test_a_check_on_a_column_that_is_not_there_fails(tmp_path):
    check = CheckConfig(name="x", kind="not_null", subject="nowhere", why="it counts")
    result = audit(tmp_path, documents(2), [check])
    assert not result.passed
    assert "could not be checked" in result.failed_critical[0].observed


def test_a_failing_column_is_told_in_words_numbers_and_samples(tmp_path):
    checks = [
        CheckConfig(name="v", kind="values_in", subject="language", values=("en",), mostly=0.9, why="English only"),
        CheckConfig(name="m", kind="matches", subject="url", values=("^https:",), severity="warning", why="safe links"),
        CheckConfig(name="l", kind="length_between", subject="text", minimum=6, maximum=9, why="bounded"),
        CheckConfig(name="b", kind="value_between", subject="n_chars", maximum=5, why="short"),
    ]
    table = documents(4, language=["en", "de", "fr", "de"], text=["short", "text 1", "text 2", "x" * 500])
    result = audit(tmp_path, table, checks)
    sentences = {r.name: r.sentence for r in result.results}
    assert sentences["v"] == (
        "expect_column_values_to_be_in_set(language): unexpected 75.00 % (3 of 4), "
        "expected one of ['en'] in at least 90.00% of the rows, samples ['de', 'fr'] - English only"
    )
    assert sentences["l"].startswith(
        "expect_column_value_lengths_to_be_between(text): unexpected 50.00 % (2 of 4), "
        "expected between 6 and 9 characters, samples ['short', 'xxxx"
    )
    assert len(sentences["l"]) < 300
    assert "unexpected 100.00 % (4 of 4), expected at most 5, samples [6]" in sentences["b"]
    assert [r.passed for r in result.results] == [False, True, False, False]


def test_a_warning_is_flagged_and_does_not_forbid_publication(tmp_path):
    result = audit(tmp_path, documents(), kept_share=0.95)
    assert result.passed
    assert [r.name for r in result.failed_warnings] == ["corpus.kept_share"]
    assert "observed 0.95, expected between 0.005 and 0.9" in failure_message(result)


def test_great_expectations_and_the_plain_contract_judge_metrics_alike(tmp_path):
    table = documents(8, language=["de"] * 8)
    metrics = with_previous(metrics_of(table, kept_share=0.4), metrics_of(documents(8, mean_nll=[9.0] * 8)))
    checks = [c for c in corpus_checks() if not c.name.startswith("sample.")]
    plain = check_contract(checks, metrics)
    judged = validate(checks, metrics, table, tmp_path, title="t").results
    assert judged == plain
    failed = {r.name for r in plain if not r.passed}
    assert failed == {"drift.kept_share", "drift.languages", *(f"drift.mean_nll_p{q}" for q in (10, 50, 90))}


def test_page_text_is_shown_escaped_in_the_data_docs(tmp_path):
    checks = [CheckConfig(name="v", kind="values_in", subject="text", values=("no",), why=f"why {HOSTILE}")]
    table = documents(3, text=[HOSTILE, HOSTILE, "y" * 9000 + "<script>"])
    result = audit(tmp_path, table, checks)
    assert "<script>alert" in result.failed_critical[0].sentence  # plain text in messages, as it was
    pages = {p: p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.html")}
    shown = [p for p, page in pages.items() if "gotcha" in html.unescape(html.unescape(page))]
    assert any("validations" in p.parts for p in shown)
    for path, page in pages.items():
        assert not re.search(r"<script>\s*alert|<img src=x", page), path
        assert "y" * 300 not in page, path


def test_a_second_audit_replaces_the_site_of_the_first(tmp_path):
    (tmp_path / "of_somebody_else.txt").write_text("stays")
    for _ in range(2):
        audit(tmp_path, documents(1))
    assert len(list((tmp_path / "site").rglob("*sample.html"))) == 2  # the suite and one run
    assert (tmp_path / "of_somebody_else.txt").is_file()


def test_an_audit_prints_nothing_and_calls_nobody(tmp_path, capfd, monkeypatch):
    def refuse(*_):
        raise AssertionError("an audit must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "sendto", refuse)
    assert audit(tmp_path, documents(2)).passed
    assert "".join(capfd.readouterr()) == ""


def test_importing_the_settings_of_the_audit_is_cheap():
    heavy = ("pandas", "pyarrow", "numpy", "great_expectations")
    code = f"import sys, corpusmill.validation.config; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_evenly_spaced_rows_of_a_large_sample_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(expectations, "MAX_SAMPLE_ROWS", 4)
    check = CheckConfig(name="v", kind="values_in", subject="language", values=("en",), why="w")
    languages = ["de" if i % 3 == 0 else "en" for i in range(12)]
    result = audit(tmp_path, documents(12, language=languages), [check])
    assert "(4 of 4)" in result.failed_critical[0].observed


def test_no_check_and_doubled_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="would pass anything"):
        validate([], {}, documents(1), tmp_path, title="t")
    own = ValidationConfig(extra_checks=(corpus_checks()[0],))
    with pytest.raises(ConfigError, match=r"corpus\.not_empty"):
        validate(corpus_checks(own), {}, documents(1), tmp_path, title="t")
