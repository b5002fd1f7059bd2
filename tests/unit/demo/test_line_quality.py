import gzip
import json

import pytest

from corpusmill.demo.quality import line_quality, read_gold


@pytest.fixture
def gold(tmp_path):
    rows = [
        {
            "url": "a",
            "kind": "news",
            "wanted": ["One two.", "Three four."],
            "noise": ["Share it", "Ads"],
            "keep_doc": True,
        },
        {"url": "s", "kind": "spam", "wanted": [], "noise": ["Buy"], "keep_doc": False},
    ]
    path = tmp_path / "gold.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    return path


BEFORE = "Title\n\nOne two.\nShare it\n  \u2022 Three   four.\nAds"


def test_a_perfect_refiner_scores_one(gold):
    found = line_quality(gold, {"a": (BEFORE, "Title\nOne two.\nThree four.")})
    assert (found["keep_f1"], found["remove_f1"], found["char_f1"]) == (1.0, 1.0, 1.0)
    assert (found["documents"], found["lines"], found["unjudged_lines"]) == (1, 4, 1)
    assert found["baseline_keep_f1"] == pytest.approx(2 / 3)


def test_an_untouched_text_scores_the_baseline(gold):
    found = line_quality(gold, {"a": (BEFORE, BEFORE)})
    assert found["keep_f1"] == found["baseline_keep_f1"]
    assert found["char_f1"] == found["baseline_char_f1"]
    assert found["remove_f1"] == 0.0
    assert found["remove_precision"] is None


def test_a_removed_document_loses_all_its_wanted_lines(gold):
    found = line_quality(gold, {"a": (BEFORE, None)})
    assert found["keep_recall"] == 0.0
    assert found["remove_precision"] == 0.5
    assert found["remove_recall"] == 1.0


def test_a_line_that_stands_twice_must_be_kept_twice(gold):
    found = line_quality(gold, {"a": ("Ads\nAds", "Ads")})
    assert found["remove_recall"] == 0.5


def test_pages_that_are_not_worth_keeping_and_unknown_ones_do_not_count(gold):
    found = line_quality(gold, {"s": ("Buy", "Buy"), "unknown": ("x", "x")})
    assert found["documents"] == 0
    assert found["keep_f1"] is None


def test_labels_say_keep_remove_or_nothing(gold):
    page = next(read_gold(gold))
    assert page.labels(BEFORE) == [None, None, True, False, True, False]
