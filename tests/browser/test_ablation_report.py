"""The report of a small ablation in a real browser: whole on a phone, in both themes, nothing fetched, no script."""

import json

import pytest

from corpusmill.ablation.config import parse_ablation
from corpusmill.ablation.experiment import ablate

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script> & more"
RECIPE = {
    "name": "browser",
    "description": HOSTILE,
    "pool": {"files": ["bundled:texts"], "noise": {}, "n_vocab": 400, "max_documents": 24},
    "references": {"crawl": {"preset": "test", "steps": 6, "n_vocab": 400, "batch_size": 4}},
    "random": [0.3, 0.7],
    "scores": [{"references": ["crawl"], "columns": ["bits_per_byte", "el2n"], "fractions": [0.3, 0.7]}],
    "students": {
        "trigram": {},
        "gpt": {"kind": "gpt", "preset": "test", "steps": 2, "batch_size": 2, "evaluate_every": 1, "context": 32},
    },
    "measures": {"minimal_pairs": []},
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Place of the page, and what the JSON beside it says."""
    made = ablate(parse_ablation(RECIPE).model_dump(mode="json"), str(tmp_path_factory.mktemp("out")), lambda _: None)
    with open(made["json"], encoding="utf-8") as stream:
        return made["html"], json.load(stream)


@pytest.fixture(params=[("light", 1280), ("dark", 1280), ("light", 360)], ids=lambda p: f"{p[0]}-{p[1]}")
def page(report, chromium, request):
    """The open report; requests beyond the page itself, dialogs and errors fail the test."""
    scheme, width = request.param
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found, problems = context.new_page(), []
    found.on("request", lambda r: None if r.url.endswith("/report.html") else problems.append(r.url))
    found.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.goto(f"file://{report[0]}")
    yield found
    assert problems == []
    context.close()


def test_the_report_reads_well(page, report, keep, request):
    _, values = report
    assert page.get_by_text(HOSTILE, exact=True).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "tables scroll, the page does not"
    labels = [row["arm"]["label"] for row in values["rows"] if row["student"] == "gpt"]
    table = page.get_by_role("region", name="Arms").last
    assert table.get_by_role("rowheader").all_inner_texts() == labels
    assert table.get_attribute("tabindex") == "0"
    charts = page.get_by_role("img")
    names = [chart.get_attribute("aria-label") for chart in charts.all()]
    assert len(names) >= 9  # two students on two tests, two histograms, three curves and one of the reference
    assert all(name.startswith(("Line chart, ", "Histogram of ")) for name in names)
    widths = page.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().right)")
    assert max(widths) <= page.evaluate("innerWidth")
    ink, paper = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    lightness = [sum(map(int, colour[4:-1].split(","))) for colour in (ink, paper)]
    assert abs(lightness[0] - lightness[1]) > 500
    assert (lightness[1] < 200) == ("dark" in request.node.name)
    keep(page, f"ablation_{request.node.callspec.id}")
