"""Our measures beside those of IBM's data-prep-kit (DPK): equal where both count the same, explained where not.

DPK's repetition and FineWeb annotators split words at other places than spaCy, so what is counted in words can differ;
what is counted in lines, paragraphs and characters must be equal. Its fastText verdicts come from another model, on
lists of file names: no reference for ours (lid.176), whose test is the Declaration of Human Rights.
"""

import gzip
import json

import pytest

from corpusmill.rules import c4, fineweb, gopher_repetition, presets
from corpusmill.rules.decision import first_reason
from corpusmill.rules.segment import Segmenter


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter()


def _records(shared_data, name):
    with gzip.open(shared_data / "oracles" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_line_and_paragraph_repetition_equals_dpk(shared_data):
    records = _records(shared_data, "dpk_gopher_repetition")
    assert len(records) == 5
    for record in records:
        measures = gopher_repetition.line_measures(record["text"])
        for kind in ("para", "line"):
            for what in ("frac", "char_frac"):
                assert measures[f"gopher_repetition_dup_{kind}_{what}"] == record[f"dup_{kind}_{what}"]


def test_n_gram_repetition_equals_dpk_given_its_words(segmenter, shared_data):
    """All nine shares equal DPK's on two documents with spaCy's words and on two others with whitespace words.

    DPK's own word splitter is not known; on the fifth document (421 characters, nearly all digits and punctuation)
    neither split gives its numbers, and only the share of the top 2-gram is equal.
    """
    equal = []
    for record in _records(shared_data, "dpk_gopher_repetition"):
        text = record["text"]
        counts = [_n_equal(record, words) for words in (segmenter.words(text).words, text.split())]
        equal.append(tuple(counts))
    assert equal == [(6, 9), (9, 5), (5, 9), (1, 0), (9, 7)]


def _n_equal(record, words):
    """Returns how many of the nine n-gram shares equal DPK's, given the words."""
    measures = gopher_repetition.n_gram_measures(record["text"], words)
    top = [measures[f"gopher_repetition_top_{n}_gram"] == record[f"top_{n}_grams"] for n in (2, 3, 4)]
    repeated = [measures[f"gopher_repetition_dup_{n}_grams"] == record[f"dup_{n}_grams"] for n in range(5, 11)]
    return sum(top + repeated)


def test_fineweb_line_measures_equal_dpk(shared_data):
    """Only newlines per word differ, because DPK counts words in its own way."""
    records = _records(shared_data, "dpk_fineweb_quality")
    assert len(records) == 5
    for record in records:
        measures = fineweb.line_measures(record["text"])
        assert measures["fineweb_line_punct_ratio"] == record["frac_line_punct"]
        assert measures["fineweb_short_line_ratio"] == record["short_line_frac"]
        assert measures["fineweb_char_dup_ratio"] == record["dup_line_char_frac"]


def test_c4_verdicts_and_cleaned_texts_equal_dpk(segmenter, shared_data):
    """One of six differs: DPK has mC4's rule of three long paragraphs on, which C4's paper has not."""
    verdicts = []
    for record in _records(shared_data, "dpk_c4"):
        rewritten = c4.rewrite(record["text"], c4.LineRules(), segmenter.n_sentences)
        reason = first_reason(presets.C4_RULES, rewritten.measures)
        verdicts.append((reason or "", record["drop_reason"]))
        if not reason and not record["drop_reason"]:
            assert rewritten.text == record["clean_contents"]
    assert sorted(verdicts) == [
        ("", ""),
        ("", ""),
        ("", "drop_too_few_paragraphs"),
        ("c4.lorem_ipsum", "drop_lorem_ipsum"),
        ("c4.too_few_sentences", "drop_too_few_sentences"),
        ("c4.too_few_sentences", "drop_too_few_sentences"),
    ]
