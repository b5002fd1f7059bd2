"""Evaluation: perfect and useless refiners score as they must, shipped weights meet a floor."""

import json
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from corpusmill.cli import _parser
from corpusmill.prox.labelled_pages import LabelledPage, main_content_pages, read_labelled_pages
from corpusmill.prox.line_labeller import LabellerChunkRefiner, LabellerDocRefiner, program_of
from corpusmill.prox.refiner import Chunk, ChunkOutput
from corpusmill.prox.refiner_evaluation import evaluate, evaluate_pages, remove_nothing

SHARED = Path(os.environ.get("CORPUSMILL_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
SHIPPED = Path(str(files("corpusmill") / "demo" / "models" / "line_labeller"))
needs_shared = pytest.mark.skipif(
    not (SHARED / "refine").is_dir(), reason="no shared data: set CORPUSMILL_SHARED_DATA to measure on real pages"
)


def make_page(labels, tier="human"):
    lines = tuple(f"line {i} of the page" for i in range(len(labels)))
    return LabelledPage("x", "d", tier, lines, np.array(labels, dtype=np.int8))


PAGES = [make_page([1, 1, 0, 0, -1, 1]), make_page([0, 1], "silver"), make_page([0, 0, 1])]


class Answers:
    """Answers each text's only window with the next of the given programs."""

    model_id = fingerprint = "answers"

    def __init__(self, programs):
        self.programs = iter(programs)

    def split(self, text):
        return [Chunk(0, tuple(text.split("\n")))]

    def write_programs(self, chunks):
        return [ChunkOutput(next(self.programs), 1, truncated=False) for _ in chunks]


def test_a_refiner_that_repeats_the_labels_is_perfect():
    ticks = iter(range(100))
    refiner = Answers(program_of(page.labels == 1, 0) for page in PAGES)
    result = evaluate_pages(refiner, PAGES, clock=lambda: float(next(ticks)))
    assert (result["keep_f1"], result["char_f1"], result["remove_f1"], result["validity"]) == (1.0, 1.0, 1.0, 1.0)
    assert result["all"]["macro"]["keep_f1"] == 1.0
    assert result["docs_per_s"] == 3.0
    assert (result["n_pages"], result["all"]["n_pages"]) == (2, 3)


def test_keeping_all_equals_the_baseline():
    result = evaluate_pages(Answers(["keep_chunk()"] * 3), PAGES)
    assert result["all"]["keep_f1"] == remove_nothing(PAGES).keep_f1
    assert result["remove_f1"] == 0.0


def test_malformed_unknown_and_cut_programs_are_not_valid():
    programs = ["remove_lines(start=x, end=1)", "delete everything", "remove_lines(start=0, en"]
    assert evaluate_pages(Answers(programs), PAGES)["validity"] == 0.0


def test_a_wrong_line_number_costs_quality():
    programs = ["remove_lines(start=1, end=2)", "keep_chunk()", "remove_lines(start=2, end=2)"]
    assert evaluate_pages(Answers(programs), PAGES)["keep_f1"] < 1.0


def test_removing_every_line_is_measured_and_not_a_dropped_document():
    result = evaluate_pages(Answers(["remove_lines(start=0, end=5)", "remove_lines(start=0, end=1)"] * 2), PAGES)
    assert result["keep_f1"] == 0.0
    assert result["remove_f1"] > 0.5


def test_scores_are_a_json_object():
    assert json.loads(json.dumps(evaluate_pages(Answers(["keep_chunk()"] * 3), PAGES)))["validity_free"] == 1.0


def test_the_shipped_model_is_small_and_says_where_it_comes_from():
    config = json.loads((SHIPPED / "config.json").read_text())
    assert (SHIPPED / "model.safetensors").stat().st_size <= 3_000_000
    command = config["training"]["command"].removeprefix("OMP_NUM_THREADS=1 corpusmill ").split()
    assert vars(_parser().parse_args(command))["steps"] == 360
    assert config["quality"]["documents"]["drop_precision"] >= 0.85
    assert config["training"]["dev_domains_in_training"] == 0


def test_the_shipped_model_takes_a_menu_and_leaves_an_article():
    article = [
        "The lighthouse was built in 1871 after two ships had been lost on the reef in a single winter.",
        "Its keeper lived there with his family until the lamp was automated a century later.",
        "Today the tower is open to visitors, who climb its 214 steps for a view over the bay.",
    ]
    lines = [
        "Home",
        "News",
        "Shop",
        "Log in",
        "",
        *article,
        "",
        "Share on Facebook",
        "Copyright 2024",
        "Privacy policy",
    ]
    refiner = LabellerChunkRefiner(SHIPPED)
    (output,) = refiner.write_programs([Chunk(0, tuple(lines))])
    assert output.output == "remove_lines(start=0, end=4)\nremove_lines(start=9, end=11)"
    menu = ["Buy now!", "Add to cart", "$19.99", "Free shipping", "Size S M L", "Sign up for our newsletter"]
    decisions = LabellerDocRefiner(SHIPPED).decide(["\n".join(article), "\n".join(menu)])
    assert [decision.decision for decision in decisions] == ["keep", "drop"]


@needs_shared
@pytest.mark.slow
def test_the_shipped_model_meets_its_floor_on_pages_of_other_domains():
    result = evaluate(SHIPPED, SHARED / "refine" / "dev.jsonl.gz")
    stored = json.loads((SHIPPED / "config.json").read_text())["quality"]["full_text"]
    assert result["keep_f1"] >= 0.84
    assert result["remove_f1"] >= 0.965
    assert result["validity"] == 1.0
    assert result["keep_f1"] == pytest.approx(stored["keep_f1"], abs=0.005)


@needs_shared
@pytest.mark.slow
def test_the_shipped_model_beats_removing_nothing_on_extracted_text():
    pages = main_content_pages(read_labelled_pages(SHARED / "refine" / "dev.jsonl.gz"), SHARED / "crawls")
    human = [page for page in pages if page.tier == "human"]
    result, nothing = evaluate_pages(LabellerChunkRefiner(SHIPPED), human), remove_nothing(human)
    assert result["keep_f1"] > nothing.keep_f1 + 0.02
    assert result["char_f1"] >= nothing.char_f1 - 0.005
