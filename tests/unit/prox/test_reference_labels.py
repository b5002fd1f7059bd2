"""Labels by a reference text, measured on pages whose labels are known."""

import gzip
import json

import numpy as np
import pytest

from corpusmill.prox.annotation_config import SynthesisConfig
from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE, read_labelled_pages
from corpusmill.prox.line_edits import RejectedError
from corpusmill.prox.reference_labels import align_lines, cleaned, edits_of_reference, full_text, main_text

ARTICLE = [
    "Herons in the valley were counted again this year by volunteers.",
    "The survey found two hundred and fourteen birds near the river mouth.",
    "Sources",
    "Most of them bred in old alders, as the last survey had found out.",
]
PAGE = ["Home", "Sources", "", "***", *ARTICLE, "Share this page with your friends", "Home"]


def test_lines_are_labelled_by_what_the_reference_has_of_them():
    aligned = align_lines(PAGE, "\n".join(ARTICLE))
    assert aligned.labels == [REMOVE, REMOVE, KEEP, UNSURE, KEEP, KEEP, KEEP, KEEP, REMOVE, REMOVE]
    assert aligned.found == 1.0


def test_a_line_that_is_kept_elsewhere_is_unsure():
    aligned = align_lines([ARTICLE[1], *ARTICLE], "\n".join(ARTICLE))
    assert aligned.labels == [UNSURE, KEEP, KEEP, KEEP, KEEP]


def test_half_of_a_line_is_unsure():
    line = "Most of them bred in old alders and now subscribe to our weekly letter"
    aligned = align_lines([*ARTICLE[:2], line], "\n".join([*ARTICLE[:2], "Most of them bred in old alders"]))
    assert aligned.labels == [KEEP, KEEP, UNSURE]


@pytest.mark.parametrize(
    ("reference", "settings", "reason"),
    [
        ("Herons.", {}, "reference_short"),
        ("another text altogether " * 20, {}, "reference_not_found"),
        ("\n".join([*ARTICLE, "Share this page now or never again please"]), {"max_unsure_share": 0.0}, "too_unsure"),
    ],
)
def test_references_that_do_not_fit_are_refused(reference, settings, reason):
    config = SynthesisConfig(**{"min_reference_tokens": 5, "min_reference_found": 0.8} | settings)
    with pytest.raises(RejectedError) as caught:
        edits_of_reference(PAGE, reference, config)
    assert caught.value.reason == reason


def test_a_cleaner_that_fails_rejects_its_document_only():
    def broken(text):
        raise ValueError("no such page")

    with pytest.raises(RejectedError, match="no such page") as caught:
        cleaned("text", broken)
    assert caught.value.reason == "extractor_failed"


HTML = (
    "<html><head><title>Herons</title></head><body><nav><ul><li><a href='/'>Home</a></li><li><a href='/n'>News</a>"
    "</li></ul></nav><article><h1>Herons</h1>" + "".join(f"<p>{line}</p>" for line in ARTICLE * 2) + "</article>"
    "<footer>(c) 2009 The valley</footer></body></html>"
)


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse"])
def test_extractors_see_html_and_leave_the_menu_out(extractor):
    pytest.importorskip(extractor)
    assert "Home" in full_text(HTML)
    main = main_text(HTML, extractor)
    assert ARTICLE[1] in main
    assert "Home" not in main


def test_huge_and_broken_html_does_not_stop_the_rest():
    pytest.importorskip("trafilatura")
    with pytest.raises(RejectedError) as caught:
        main_text("<p>" * 3_000_000, "trafilatura")
    assert caught.value.reason == "html_too_large"
    assert main_text("\x00<<<>", "trafilatura") == ""


def test_gold_text_gives_the_labels_of_the_shared_set(shared_data):
    gold = {}
    for path in (shared_data / "crawls" / "gold").glob("*.gold.jsonl.gz"):
        with gzip.open(path, "rt") as file:
            for row in map(json.loads, file):
                gold[row["record_id"].rsplit(":", 1)[-1]] = row.get("text")
    pages = [page for page in read_labelled_pages(shared_data / "refine" / "dev.jsonl.gz") if page.tier == "human"]
    assert len(pages) == 29
    counts = np.zeros((2, 2), dtype=int)
    refused = 0
    for page in pages:
        try:
            _, aligned = edits_of_reference(page.lines, gold[page.doc_id], SynthesisConfig())
        except RejectedError:
            refused += 1
            continue
        labels = np.array(aligned.labels)
        known = (labels != UNSURE) & (page.labels != UNSURE)
        np.add.at(counts, (page.labels[known], labels[known]), 1)
    keep_f1 = 2 * counts[KEEP, KEEP] / (2 * counts[KEEP, KEEP] + counts[KEEP, REMOVE] + counts[REMOVE, KEEP])
    assert keep_f1 > 0.995
    assert refused <= 2
