"""Figures of the report: gains, break-even, histograms, and a page that escapes what it is given."""

import math
import re

import pytest

from corpusmill.ablation.charts import BOTTOM, HEIGHT, TOP, Cut, Line, histogram_chart, line_chart, ticks
from corpusmill.ablation.costs import Costs, break_even, step_reaching
from corpusmill.ablation.report import page
from corpusmill.ablation.summary import histogram, summarise


def result(label, kind, seed, nll, **changes):
    arm = {"label": label, "kind": kind, "fraction": "1/2" if kind != "none" else "1", "which": "middle",
           "column": "el2n", "reference": "crawl" if kind == "score" else "", "steps": [],
           "by": [], "weight": "rows"}  # fmt: skip
    test = {"nll": nll, "perplexity": math.exp(nll), "bits_per_byte": nll / 3}
    return {
        "arm": arm, "student": "gpt", "kind": "gpt", "seed": seed,
        "corpus": {"purity": 0.5, "kept_bytes": 0.5, "n_tokens": 1000, "warnings": [], "selecting_seconds": 0.0},
        "epochs": 2.0, "tokens_seen": 4000, "n_parameters": 100, "test": {"clean": test}, "downstream": {},
        "costs": Costs(6 * 100 * 4000, 2e5 if kind == "score" else 0.0, 0.0).as_dict(),
        "losses": [5.0, nll], "curve": [{"step": 10.0, "clean": nll + 1}, {"step": 20.0, "clean": nll}], **changes,
    }  # fmt: skip


def test_gains_are_shares_of_perplexity_against_all_and_against_random():
    rows = summarise(
        [
            result("no pruning", "none", 0, 4.0),
            result("random 50%", "random", 0, 4.2),
            result("el2n middle 50% by crawl", "score", 0, 3.9),
            result("el2n middle 50% by crawl", "score", 1, 4.1),
        ],
        4.0,
    )
    by_label = {row["arm"]["label"]: row for row in rows}
    middle = by_label["el2n middle 50% by crawl"]
    assert middle["seeds"] == [0, 1]
    assert middle["test"]["clean"]["nll"] == {"mean": pytest.approx(4.0), "std": pytest.approx(0.1 * math.sqrt(2))}
    assert middle["gain_over_all"]["clean"] == pytest.approx(0.0)
    assert middle["gain_over_random"]["clean"] == pytest.approx(1 - math.exp(-0.2))
    assert by_label["no pruning"]["gain_over_all"] is None
    assert by_label["random 50%"]["gain_over_all"]["clean"] == pytest.approx(1 - math.exp(0.2))


def test_more_than_four_epochs_are_a_warning():
    (row,) = summarise([result("no pruning", "none", 0, 4.0, epochs=4.4)], 4.0)
    assert row["warnings"] == ["its corpus was seen 4.4 times, more than 4"]


def test_break_even_counts_scoring_and_the_steps_that_were_saved():
    found = break_even(n_student=100, step_tokens=200, baseline_steps=20, reached_at=10, selecting=60_000)
    train = 6 * 100 * 200
    assert found["ratio"] == pytest.approx((train * 10 + 60_000) / (train * 20))
    assert found["saved_tokens"] == 2000
    assert found["scoring_in_training_tokens"] == pytest.approx(60_000 / 600)
    assert found["n_break_even"] == pytest.approx(60_000 / (6 * 2000))
    never = break_even(100, 200, 20, None, 60_000)
    assert (never["ratio"], never["n_break_even"]) == (None, None)
    assert break_even(0, 200, 20, 10, 1.0) is None


def test_the_step_that_reaches_a_loss_is_the_first_measured_one():
    curve = [{"step": 1.0, "clean": 5.0}, {"step": 2.0, "clean": 4.0}, {"step": 3.0, "clean": 4.5}]
    assert step_reaching(curve, "clean", 4.2) == 2.0
    assert step_reaching(curve, "clean", 3.0) is None
    assert step_reaching(curve, "crawl", 9.0) is None


@pytest.mark.parametrize(
    ("values", "total"), [([1.0, 2.0, 2.5, math.nan], 3), ([7.0] * 5, 5), ([], 0), ([math.inf, 1.0], 1)]
)
def test_a_histogram_counts_every_finite_value_once(values, total):
    made = histogram(values, 4)
    assert sum(made["counts"]) == total
    assert len(made["edges"]) == len(made["counts"]) + 1
    assert made["edges"] == sorted(made["edges"])


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 1.0), (3.97, 4.02), (-5.0, 1e6), (0.3, 0.3000001)])
def test_ticks_are_round_values_inside_the_range(lo, hi):
    found = ticks(lo, hi)
    assert 2 <= len(found) <= 12
    assert all(lo <= value <= hi for value in found)


def test_charts_escape_names_and_leave_out_what_is_not_finite():
    lines = [Line("<b>&x", [(0, 1.0), (1, math.nan), (2, 3.0)], [0.1, 0.0, 0.2]), Line("empty", [(0, math.nan)])]
    svg = line_chart(lines, "x", "y")
    assert "&lt;b&gt;&amp;x" in svg
    assert "<b>" not in svg
    assert "nan" not in svg
    assert svg.count("<circle") == 2
    assert line_chart([], "x", "y") == ""
    bars = histogram_chart([0.0, 1.0, 2.0], [3.0, 4.0], [Cut(1.5, "middle, from")], "el2n")
    assert bars.count("<rect") == 2
    assert "middle, from" in bars


def test_no_two_of_many_lines_look_alike():
    svg = line_chart([Line(str(i), [(0, float(i)), (1, float(i))]) for i in range(20)], "step", "loss")
    styles = re.findall(r'<polyline fill="none" (stroke="[^"]*"(?: stroke-dasharray="[^"]*")?)', svg)
    assert len(set(styles)) == len(styles) == 20
    keys = re.findall(r'<svg class="key"[^>]*><line [^>]*y2="4" (stroke="[^"]*"(?: stroke-dasharray="[^"]*")?)', svg)
    assert keys == styles
    assert 'aria-label="Line chart, loss by step: 20 lines. Lowest: 0, 0 at 0."' in svg


def test_error_bars_stay_inside_the_plot():
    svg = line_chart([Line("a", [(0, 4.0), (1, 4.1)], [0.5, 0.0])], "share", "loss")
    (y1, y2) = map(float, re.search(r'y1="([0-9.]+)" y2="([0-9.]+)" stroke="[^"]*" stroke-width="1.2"', svg).groups())
    assert TOP <= y2 < y1 <= HEIGHT - BOTTOM


def test_counts_have_no_halves():
    svg = histogram_chart([0.0, 1.0, 2.0], [1.0, 2.0], [], "EL2N")
    labels = re.findall(r'text-anchor="end">([^<]*)<', svg)
    assert labels == ["0", "1", "2"]


def test_operations_that_nobody_knows_are_not_zero():
    costs = Costs(2.4e6, None, 0.0).as_dict()
    assert costs["selecting_flops"] is None
    assert costs["total_flops"] is None
    rows = summarise([result("no pruning", "none", 0, 4.0), result("served", "stages", 0, 3.9, costs=costs)], 4.0)
    assert rows[1]["costs"]["selecting_flops"] is None
    assert rows[1]["break_even"] is None
    html = page({"name": "x", "description": "", "pool_key": "k", "rows": rows, "recipe": {}, "missing": [],
                 "scores": [], "references": [], "curves": []})  # fmt: skip
    cells = re.search(r'<th scope="row">served</th>(<td>gpt</td>.*?)</tr>', html)[1]
    assert re.findall("<td>(.*?)</td>", cells) == ["gpt", "unknown", "0.0", "0", "2.40e6", "unknown", "unknown", ""]


def test_a_chart_by_share_joins_arms_that_differ_in_their_share_alone():
    rows = []
    for fraction, share in (("1/2", "50%"), ("7/10", "70%")):
        for within, by in (("", []), (" within language", ["language"])):
            made = result(f"el2n middle {share}{within} by crawl", "score", 0, 4.0)
            made["arm"] |= {"fraction": fraction, "by": by}
            rows.append(made)
    html = page({"name": "x", "description": "", "pool_key": "k", "rows": summarise(rows, 4.0), "recipe": {},
                 "missing": [], "scores": [], "references": [], "curves": []})  # fmt: skip
    assert "</svg>el2n middle</li>" in html
    assert "</svg>el2n middle within language</li>" in html
    assert html.count("</svg>el2n") == 2


def test_a_long_curve_is_thinned():
    svg = line_chart([Line("loss", [(i, 1 / (i + 1)) for i in range(10_000)])], "step", "loss")
    assert len(re.search(r'points="([^"]*)"', svg)[1].split()) <= 300


def test_the_page_holds_every_section_and_no_raw_text_of_the_recipe():
    rows = summarise([result("no pruning", "none", 0, 4.0), result("<i>arm", "score", 0, 3.9)], 4.0)
    html = page(
        {
            "name": "x", "description": "<script>alert(1)</script>", "pool_key": "k", "rows": rows,
            "recipe": {"name": "</pre><script>"}, "missing": ["<u>run"],
            "scores": [{"reference": "r", "column": "el2n", "histogram": histogram([1.0, 2.0]), "cuts": []}],
            "references": [{"name": "r", "losses": [[3.0, 2.0]]}],
            "curves": [
                {"student": "gpt", "arm": "<u>a", "reference": "", "seed": 0, "losses": [3.0, 2.0],
                 "curve": [{"step": 1.0, "clean": 3.0}]},
            ],
        }
    )  # fmt: skip
    assert "<script>" not in html
    assert "<i>arm" not in html
    assert "<u>a" not in html
    assert "&lt;u&gt;run" in html
    for title in ("Arms: gpt", "Scores of the pool", "Loss curves", "Cost", "Recipe"):
        assert f"<h2>{title}</h2>" in html
    assert "http" not in html
